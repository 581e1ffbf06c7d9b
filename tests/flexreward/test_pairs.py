import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexreward.errors import RecipeError, SampleError
from flexreward.files.samples import Sample
from flexreward.pairs.build import candidates, pair_items
from flexreward.pairs.keep import JudgedPair, PairCounts, disagreement, margin, parse_keep, sort_out, widest

SCORES = st.none() | st.tuples(st.sampled_from([1.0, 2.0, 5.0]), st.sampled_from([1.0, 2.0, 5.0]))


def sample(*completions, prompt="x", id="q") -> Sample:
    return Sample(id=id, prompt=prompt, completions=completions, where="s.jsonl: line 1")


def judged(first, second, indices=(0, 1)) -> JudgedPair:
    scores = None
    if first and second:
        scores = ((first[0] + second[0]) / 2, (first[1] + second[1]) / 2)
    return JudgedPair(id=f"q#{indices[0]}-{indices[1]}", indices=indices, scores=scores, orders=(first, second))


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        ((8.0, 3.0), (7.0, 2.0), None),
        ((3.0, 8.0), (2.0, 3.0), None),
        ((8.0, 3.0), (3.0, 8.0), "flipped"),
        ((9.0, 1.0), (4.0, 5.0), "flipped"),
        ((5.0, 5.0), (2.0, 2.0), "tied"),
        ((8.0, 3.0), (5.0, 5.0), "half_tied"),
        ((8.0, 3.0), None, "unscored"),
        (None, None, "unscored"),
    ],
)
def test_a_pair_survives_only_where_both_orders_name_one_strict_winner(first, second, why):
    assert disagreement(judged(first, second)) == why


@given(st.lists(st.tuples(SCORES, SCORES), max_size=8))
def test_every_pair_is_kept_or_dropped_with_a_reason_and_the_winner_has_the_better_score(orders):
    pairs = [judged(first, second, (0, i + 1)) for i, (first, second) in enumerate(orders)]
    counts = PairCounts()
    for pair, reason in zip(pairs, sort_out(pairs, parse_keep("consistent,margin=2,widest=1")), strict=True):
        counts.add(pair, reason)
        if reason is None:
            assert pair.readable
            assert set(pair.winners) == {pair.chosen}
            assert pair.margin >= 2
    assert counts.kept + counts.dropped.total() == len(pairs) == counts.judged
    assert counts.kept <= 1
    assert counts.readable == sum(first is not None and second is not None for first, second in orders)


def test_the_flip_rate_leaves_out_what_could_not_be_read_and_counts_ties_apart():
    counts = PairCounts()
    for first, second in [
        ((8.0, 3.0), (3.0, 8.0)),
        ((3.0, 8.0), (8.0, 3.0)),
        ((8.0, 3.0), (8.0, 3.0)),
        ((8.0, 3.0), (5.0, 5.0)),
        ((8.0, 3.0), None),
    ]:
        pair = judged(first, second)
        counts.add(pair, disagreement(pair))
    assert counts.flip_rate == 0.5
    assert counts.flipped_to_slot_1 == 1
    assert counts.summary()["half_tied_rate"] == 0.25
    assert counts.summary()["pairs"] == {
        **{"kept": 1, "dropped": {"flipped": 2, "half_tied": 1, "unscored": 1}},
        **{"tied": 0, "judged": 5, "readable": 4, "flipped_to_slot_1": 1},
    }


def test_rules_compose_each_over_what_the_ones_before_it_kept():
    pairs = [judged((9.0, 1.0), (1.0, 9.0)), judged((5.0, 4.0), (5.0, 4.0)), judged((8.0, 4.0), (8.0, 4.0))]
    assert sort_out(pairs, parse_keep("widest=1")) == ["flipped", "not_widest", None]
    assert sort_out(pairs, parse_keep("margin=2")) == ["flipped", "margin", None]
    assert sort_out(pairs, [margin(5), widest(1)]) == ["margin", "margin", "margin"]
    assert sort_out(pairs[2:], parse_keep("consistent")) == [None]


def test_a_pair_whose_texts_differ_much_in_length_is_dropped():
    pairs = [
        replace(judged((9.0, 1.0), (9.0, 1.0)), lengths=lengths) for lengths in ((10, 20), (20, 9), (5, 0), (0, 0))
    ]
    assert sort_out(pairs, parse_keep("ratio=2")) == [None, "ratio", "ratio", None]


def test_the_earlier_completion_may_have_to_win():
    pairs = [judged((9.0, 1.0), (9.0, 1.0)), judged((1.0, 9.0), (1.0, 9.0)), judged((9.0, 1.0), (1.0, 9.0))]
    assert sort_out(pairs, parse_keep("first")) == [None, "not_first", "flipped"]


@pytest.mark.parametrize(
    "text",
    ["", "margin", "margin=x", "margin=nan", "margin=-1", "widest=0", "widest=1.5", "ratio=0.5", "first=1", "best"],
)
def test_a_rule_that_is_none_is_refused(text):
    with pytest.raises(RecipeError, match="expected consistent, margin=NUMBER, widest=COUNT, ratio=NUMBER"):
        parse_keep(text)


def test_equal_texts_and_repeated_pairs_are_never_judged():
    found = candidates(sample("a", "b", "a", "a"))
    assert found.judged == [(0, 1)]
    assert found.duplicates == [(0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]


def test_pairs_are_drawn_the_same_each_time_and_differ_between_prompts():
    texts = [str(i) for i in range(8)]
    drawn = candidates(sample(*texts), per_prompt=5)
    assert drawn == candidates(sample(*texts), per_prompt=5)
    assert len(set(drawn.judged)) == 5
    assert drawn != candidates(sample(*texts, id="other"), per_prompt=5)
    assert drawn != candidates(sample(*texts), per_prompt=5, seed=1)
    assert len(candidates(sample(*texts), per_prompt=99).judged) == 28


def test_one_completion_is_no_pair():
    with pytest.raises(SampleError, match="line 1: has one completion"):
        list(pair_items([sample("a")]))


def test_a_pair_is_named_by_its_sample_and_places():
    (item,) = pair_items([sample("a", "b")])
    assert item.request.id == "q#0-1"
    assert item.request.completions == ("a", "b")


def load(folder):
    import datasets

    return datasets.load_dataset(str(folder), cache_dir=str(folder / "cache"))["train"]


def command(*arguments) -> int:
    from flexreward.cli import run

    return run([str(argument) for argument in arguments])


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_folder_loads_as_a_data_set_with_provenance(tmp_path):
    rows = [{"id": f"q{i}", "prompt": f"p{i}", "completions": ["x" * 9, "x" * 99, "x"], "topic": i} for i in range(3)]
    source, out = write(tmp_path / "s.jsonl", *rows), tmp_path / "pairs"
    options = ("pairs", source, "--out", out, "--judge", "scripted:longer", "--no-store")
    assert command(*options) == 0
    found = load(out)
    assert len(found) == 9
    first = found[0]
    assert (first["id"], first["prompt"], first["chosen"], first["rejected"]) == ("q0#0-1", "p0", "x" * 99, "x" * 9)
    assert (first["chosen_index"], first["rejected_index"], first["topic"]) == (1, 0, 0)
    assert first["score_chosen"] > first["score_rejected"]
    assert len(first["judge"]) == 64
    before = (out / "pair_outcomes.jsonl").read_bytes()
    assert command(*options, "--keep", "widest=1") == 0
    assert (out / "pair_outcomes.jsonl").read_bytes() == before
    assert len((out / "train.jsonl").read_text().splitlines()) == 3
    assert json.loads((out / "summary.json").read_text())["pairs"]["dropped"] == {"not_widest": 6}
    reasons = [json.loads(line)["reason"] for line in (out / "dropped.jsonl").read_text().splitlines()]
    assert reasons == ["not_widest"] * 6


def test_conversations_stay_conversations(tmp_path):
    turn = {"role": "user", "content": "Hi"}
    row = {"prompt": [turn], "completions": [[{"role": "assistant", "content": "Hello there"}], "Yo"]}
    out = tmp_path / "pairs"
    assert (
        command("pairs", write(tmp_path / "s.jsonl", row), "--out", out, "--judge", "scripted:longer", "--no-store")
        == 0
    )
    (pair,) = load(out)
    assert pair["prompt"] == [turn]
    assert pair["chosen"] == [{"role": "assistant", "content": "Hello there"}]
    assert pair["rejected"] == [{"role": "assistant", "content": "Yo"}]


def test_a_judge_with_nothing_but_a_position_bias_gives_no_pairs(tmp_path, capsys):
    rows = [{"prompt": "p", "completions": [f"a{i}", f"b{i}"]} for i in range(4)]
    out = tmp_path / "pairs"
    options = ("--judge", "scripted:first", "--no-store", "--json")
    assert command("pairs", write(tmp_path / "s.jsonl", *rows), "--out", out, *options) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["pairs"]["kept"] == 0
    assert found["pairs"]["dropped"] == {"flipped": 4}
    assert found["pairs"]["flipped_to_slot_1"] == 4
    assert found["flip_rate"] == 1.0


def test_other_rules_over_a_judged_folder_judge_nothing_and_count_what_was_judged(tmp_path, capsys):
    source, out = (
        write(tmp_path / "s.jsonl", *({"prompt": f"p{i}", "completions": ["a", "bb"]} for i in range(4))),
        tmp_path / "o",
    )
    options = ("pairs", source, "--out", out, "--judge", "scripted:longer", "--no-store", "--json")
    assert command(*options) == 0
    first = json.loads(capsys.readouterr().out)
    assert command(*options, "--keep", "ratio=1") == 0
    again = json.loads(capsys.readouterr().out)
    assert (first["judged_now"], again["judged_now"]) == (4, 0)
    for name in ("rows", "scored", "replies", "parse_rate", "tokens"):
        assert again[name] == first[name]
    assert again["pairs"]["dropped"] == {"ratio": 4}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"prompt": "other", "completions": ["a", "bb"]}], "where the input now has another"),
        ([{"prompt": "p", "completions": ["a", "bb"]}], "holds more rows than the input"),
    ],
)
def test_samples_that_changed_since_they_were_judged_are_told(tmp_path, capsys, rows, message):
    before = [{"prompt": "p", "completions": ["a", "bb"]}, {"prompt": "q", "completions": ["a", "bb"]}]
    out = tmp_path / "pairs"
    options = ("--out", out, "--judge", "scripted:longer", "--no-store")
    assert command("pairs", write(tmp_path / "s.jsonl", *before), *options) == 0
    train = (out / "train.jsonl").read_bytes()
    assert command("pairs", write(tmp_path / "s.jsonl", *rows), *options) == 2
    assert message in capsys.readouterr().err
    assert (out / "train.jsonl").read_bytes() == train


def test_rows_that_were_added_are_judged_and_the_others_are_not_judged_again(tmp_path, capsys):
    rows = [{"prompt": f"p{i}", "completions": ["a", "bb"]} for i in range(5)]
    options = ("--out", tmp_path / "pairs", "--judge", "scripted:longer", "--no-store", "--json")
    assert command("pairs", write(tmp_path / "s.jsonl", *rows[:3]), *options) == 0
    capsys.readouterr()
    assert command("pairs", write(tmp_path / "s.jsonl", *rows), *options) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rows"], found["judged_now"]) == (5, 2)


def test_a_pair_keeps_the_molecules_of_its_prompt_for_a_trainer(tmp_path):
    row = {"prompt": "What is <mol>?", "completions": ["A long answer.", "Short."], "molecules": ["CCO"]}
    source = write(tmp_path / "s.jsonl", row)
    for template, name in [("mol-pair", "placed"), ("pair", "text")]:
        out = tmp_path / name
        told = ("--out", out, "--judge", "scripted:longer", "--no-store", "--template", template)
        assert command("pairs", source, *told) == 0
        (found,) = load(out)
        assert found["molecules"] == ["CCO"]
        assert found["prompt"] == "What is <mol>?"
        assert found["chosen"] == "A long answer."


def test_a_row_whose_molecules_have_no_places_is_named(tmp_path, capsys):
    row = {"prompt": "<mol> or <mol>?", "completions": ["One.", "The other."], "molecules": ["CCO"]}
    told = ("--out", tmp_path / "pairs", "--judge", "scripted:longer", "--no-store", "--template", "mol-pair")
    assert command("pairs", write(tmp_path / "s.jsonl", row), *told) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert "line 1: template 'mol-pair': the prompt has 2 <mol>, and 1 molecule(s) come with it" in line
