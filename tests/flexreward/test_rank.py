"""The best of some completions by a real judge over a scripted engine: in one call, and over files."""

import asyncio
import json
import random
import re

import pytest

from flexreward.cli import run
from flexreward.engines.base import Capabilities
from flexreward.engines.scripted import ScriptedEngine
from flexreward.engines.scripts import script_named
from flexreward.errors import EngineError, RecipeError, SampleError
from flexreward.files.outcomes import read_outcomes
from flexreward.files.samples import read_samples
from flexreward.jobs.run import judge_rounds_to_file
from flexreward.judge import Judge
from flexreward.ledger import Ledger
from flexreward.ledger.store import Store
from flexreward.pairs import rounds as rounds_of
from flexreward.pairs.contest import METHODS, Plan
from flexreward.pairs.rank import best_of_n, best_of_n_now
from flexreward.templates import load_template
from flexreward.types import Reason, Reply, TokenLogprob
from tests.seeing import noise

WORTH = re.compile(r"worth ([0-9.]+)")
COMPLETIONS = ("worth 4", "worth 9", "worth 2", "worth 9", "worth 7")


def by_worth(prompt):
    """Scores each completion by the number it names, on a scale that every template has."""
    return "<think>I look.</think>" + "".join(f"<answer>{float(w) / 2}</answer>" for w in WORTH.findall(prompt.user))


class Telling(ScriptedEngine):
    """Writes a 4 for everybody, and is the surer of a 5 the more it is worth."""

    can = Capabilities(token_ids=True, prefix=True, logprobs=True)

    def __init__(self, script=None, **_):
        super().__init__(self.tell)

    def tell(self, prompt):
        from math import log

        def token(text, chance=1.0, **others):
            return TokenLogprob(
                text=text, logprob=log(chance), top=((text, log(chance)), *((k[1:], log(v)) for k, v in others.items()))
            )

        tokens = [token("<think>x</think>")]
        for worth in WORTH.findall(prompt.user):
            tokens += [token("<answer>"), token("4", 1 - float(worth) / 20, _5=float(worth) / 20), token("</answer>")]
        return Reply(text="".join(one.text for one in tokens), logprobs=tuple(tokens))


def judge_of(script=by_worth, template="pair", **options):
    return Judge(ScriptedEngine(script), load_template(template), **options)


@pytest.mark.parametrize("method", METHODS)
async def test_a_function_ranks_completions_and_buys_equal_ones_once(method):
    judge = judge_of()
    ranked = await best_of_n("how much?", COMPLETIONS, judge, method=method)
    assert ranked.best == (1, 3)
    assert ranked.chosen == 1
    if method != "knockout":  # which ranks those that leave in one round alike
        assert ranked.order == (1, 3, 4, 0, 2)
    assert ranked.failure is None
    calls = {"pointwise": 4, "knockout": 2 * ranked.counts.judgments, "listwise": 2}
    assert judge.engine.num_calls == calls.get(method, 2 * 6)


def test_a_script_without_an_event_loop_gets_the_same():
    ranked = best_of_n_now("how much?", COMPLETIONS, judge_of(), method="round-robin")
    assert (ranked.order, ranked.scores) == ((1, 3, 4, 0, 2), (0.25, 0.875, 0.0, 0.875, 0.5))


async def test_where_nothing_can_be_read_there_is_no_order_and_a_reason():
    def dead(prompt):
        raise EngineError("it is dead")

    for method in METHODS:
        ranked = await best_of_n("?", ("worth 1", "worth 2", "worth 3"), judge_of(dead), method=method)
        assert (ranked.order, ranked.chosen, ranked.best) == (None, None, ())
        assert set(ranked.scores) == {None}
        assert ranked.failure.reason in (Reason.ENGINE, Reason.QUORUM)
        assert ranked.counts.unscored == ranked.counts.judgments


async def test_a_judge_of_positions_ends_in_counted_draws():
    first = judge_of(lambda prompt: "<think></think><answer>9</answer><answer>2</answer>")
    ranked = await best_of_n("?", COMPLETIONS[:3], first, method="knockout")
    assert (ranked.counts.flipped, ranked.counts.drawn) == (2, 2)


async def test_expected_scores_break_ties_where_the_engine_tells_them():
    for method in METHODS:
        judge = Judge(Telling(), load_template("pair"))
        ranked = await best_of_n("how much?", COMPLETIONS, judge, method=method, ties="expected")
        assert (ranked.best, ranked.counts.drawn) == ((1, 3), 0)
    with pytest.raises(RecipeError, match="ties: expected needs log-probabilities, and the engine scripted reports"):
        await best_of_n("?", COMPLETIONS, judge_of(), ties="expected")
    with pytest.raises(RecipeError, match="ties: 'coin' is unknown, expected one of draws, expected"):
        await best_of_n("?", COMPLETIONS, judge_of(), ties="coin")


async def test_images_are_ranked_by_a_template_that_shows_them():
    images = [noise(8, 8, seed=n) for n in range(3)]
    judge = judge_of(lambda prompt: "<think>x</think><answer>6</answer><answer>5</answer>")
    ranked = await best_of_n("a square", images, judge, method="round-robin")
    assert {one.template for one in ranked.judgments.values()} == {"mj-align"}
    with pytest.raises(SampleError, match="method: no bundled template shows such completions by pointwise"):
        await best_of_n("a square", images, judge)


async def test_what_cannot_be_ranked_is_refused_in_one_line():
    with pytest.raises(SampleError, match="completions: there is none"):
        await best_of_n("?", (), judge_of())
    with pytest.raises(RecipeError, match="both_orders: the judge shows one order, and knockout needs both"):
        await best_of_n("?", COMPLETIONS, judge_of(both_orders=False), method="knockout")


def call(*arguments) -> int:
    return run([str(argument) for argument in arguments])


def write(path, count=12):
    rng = random.Random(5)
    rows = [
        {"id": f"q{i}", "prompt": f"p{i}", "completions": ["x" * rng.randint(1, 40) for _ in range(6)]}
        for i in range(count)
    ]
    for row in rows:
        row["right"] = [len(text) == max(map(len, row["completions"])) for text in row["completions"]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


JUDGE = ("--judge", "scripted:longer", "--json")


@pytest.mark.parametrize(
    ("method", "sizes"),
    [("knockout", "124"), ("round-robin", "124"), ("bradley-terry", "124"), ("listwise", "124")],
)
def test_every_method_chooses_from_files_and_draws_its_curve(tmp_path, capsys, method, sizes):
    source, out = write(tmp_path / "s.jsonl"), tmp_path / "o"
    assert call("best-of-n", source, "--out", out, "--method", method, *JUDGE, "--no-store") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["method"] == method
    assert list(found["best_of_n"]) == list(sizes)
    assert found["counts"]["judgments"] == found["rows"]
    assert found["counts"]["unscored"] == 0
    assert found["best_of_n"]["4"]["mean"] > found["best_of_n"]["1"]["mean"] + 0.2
    rows = [json.loads(line) for line in (out / "best.jsonl").read_text().splitlines()]
    assert all(row["right"][row["index"]] for row in rows)
    assert (out / "curve.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "plan", [Plan(method="knockout"), Plan(method="listwise", list_size=3)], ids=["pairs", "lists"]
)
def test_rounds_that_were_cut_anywhere_go_on_to_the_same_bytes(tmp_path, plan):
    source, ledger = write(tmp_path / "s.jsonl"), Ledger(Store(tmp_path / "store.sqlite"))
    template = load_template("pair" if plan.method == "knockout" else "batch")

    def judged(path):
        engine = ScriptedEngine(script_named("scripted:longer"))

        def rounds(counts):
            return rounds_of.round_items(read_samples(str(source)), path, plan, counts)

        asyncio.run(judge_rounds_to_file(Judge(engine, template, ledger=ledger), rounds, path))
        return path.read_bytes(), engine.num_calls

    content, num_calls = judged(tmp_path / "whole.jsonl")
    assert num_calls > 24
    for cut in random.Random(1).sample(range(len(content)), 12):
        (tmp_path / "cut.jsonl").write_bytes(content[:cut])
        assert judged(tmp_path / "cut.jsonl") == (content, 0)


def test_a_rerun_judges_nothing_and_other_samples_are_refused(tmp_path, capsys):
    source, out = write(tmp_path / "s.jsonl"), tmp_path / "o"
    command = ("best-of-n", source, "--out", out, "--method", "knockout", *JUDGE, "--no-store")
    assert call(*command) == 0
    rounds = [row["round"] for row in read_outcomes(out / "outcomes.jsonl")]
    assert rounds == sorted(rounds)
    assert set(rounds) == {1, 2, 3}
    capsys.readouterr()
    assert call(*command) == 0
    assert json.loads(capsys.readouterr().out)["judged_now"] == 0
    assert call(*command, "--limit", "6") == 2
    assert "the samples or the options changed" in capsys.readouterr().err.splitlines()[-1]


def test_round_robin_and_bradley_terry_read_the_same_judgments(tmp_path, capsys):
    command = ("best-of-n", write(tmp_path / "s.jsonl"), "--out", tmp_path / "o", *JUDGE, "--no-store", "--method")
    assert call(*command, "round-robin") == 0
    capsys.readouterr()
    assert call(*command, "bradley-terry") == 0
    assert json.loads(capsys.readouterr().out)["judged_now"] == 0


def test_where_no_pair_can_be_read_nothing_is_chosen_and_it_is_counted(tmp_path, capsys):
    source = write(tmp_path / "s.jsonl", 3)
    for method in ("knockout", "round-robin", "listwise"):
        out = tmp_path / method
        options = ("--judge", "scripted:mute", "--no-store", "--json", "--method", method)
        assert call("best-of-n", source, "--out", out, *options) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["counts"]["unscored"] == found["counts"]["judgments"] == found["rows"]
        row = json.loads((out / "best.jsonl").read_text().splitlines()[0])
        assert (row["index"], row["score"], row["num_unscored"]) == (None, None, 6)


def test_expected_scores_are_written_beside_the_judgments(tmp_path, capsys):
    source = tmp_path / "s.jsonl"
    source.write_text(json.dumps({"id": "q", "prompt": "?", "completions": list(COMPLETIONS)}) + "\n")
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"model: telling\nengine: {__name__}:Telling\n")
    out = tmp_path / "o"
    command = ("best-of-n", source, "--out", out, "--no-store", "--method", "round-robin", "--judge")
    assert call(*command, recipe, "--ties", "expected") == 0
    rows = list(read_outcomes(out / "outcomes.jsonl"))
    assert [row["scores"] for row in rows] == [[4, 4]] * 6
    assert rows[0]["expected"] == pytest.approx([4.2, 4.45])
    assert json.loads((out / "best.jsonl").read_text())["tied"] == [1, 3]
    assert call(*command, "scripted:longer", "--ties", "expected") == 2
    assert (
        "ties: expected needs log-probabilities, and the engine scripted reports none; take draws"
        in (capsys.readouterr().err.splitlines()[-1])
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--method", "swiss"), "method: 'swiss' is unknown, expected one of pointwise, knockout"),
        (("--method", "knockout", "--n", "3"), "line 1: a bracket of 6 completions holds choices among 1, 2, 4, 6,"),
        (("--method", "knockout", "--n", "8"), "line 1: has 6 completions, --n asks for 8"),
        (("--method", "knockout", "--template", "score"), "--method knockout shows two completions, such as pair does"),
        (("--method", "listwise", "--list-size", "2"), "list_size: 2 is too few, expected 3 or more"),
        (("--ties", "coin"), "ties: 'coin' is unknown"),
    ],
)
def test_a_method_says_what_does_not_fit(tmp_path, capsys, options, message):
    source = write(tmp_path / "s.jsonl", 1)
    assert call("best-of-n", source, "--out", tmp_path / "o", *JUDGE, "--no-store", *options) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_images_in_files_are_chosen_by_what_shows_them(tmp_path, capsys):
    for n in (3, 4, 5):
        (tmp_path / f"{n}.png").write_bytes(noise(8, 8, seed=n).data)
    source = tmp_path / "s.jsonl"
    images = [{"image": f"{n}.png"} for n in (3, 4, 5)]
    source.write_text(json.dumps({"id": "q", "prompt": "a square", "completions": images}) + "\n")
    command = ("best-of-n", source, "--out", tmp_path / "o", *JUDGE, "--no-store")
    assert call(*command, "--method", "knockout") == 0
    row = json.loads((tmp_path / "o" / "best.jsonl").read_text())
    assert row["completion"]["image"].endswith(images[row["index"]]["image"])
    assert call(*command) == 2
    assert "no bundled template shows each completion alone that are image" in capsys.readouterr().err
    mixed = {"id": "r", "prompt": "a square", "completions": [images[0], "a text"]}
    with source.open("a") as file:
        file.write(json.dumps(mixed) + "\n")
    assert call(*command, "--method", "knockout", "--overwrite") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "line 2: template 'mj-align': expected image as completion 2, found text" in said


def test_without_a_truth_a_knockouts_curve_is_what_the_judge_gave(tmp_path, capsys):
    source = write(tmp_path / "s.jsonl", 8)
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    for row in rows:
        del row["right"]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ("best-of-n", source, "--out", tmp_path / "o", *JUDGE, "--no-store", "--method", "knockout")
    assert call(*command, "--estimate") == 0
    assert json.loads(capsys.readouterr().out)["estimate"]["requests"] == 5 * 8
    assert call(*command) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["truth"] is None
    assert "oracle" not in found
    assert found["best_of_n"]["1"]["mean"] < found["best_of_n"]["4"]["mean"]
