import json

import pytest
from datasets import Dataset

from flexreward.errors import RecipeError, SampleError
from flexreward.right import right_named

pytest.importorskip("trl", reason="needs pip install 'flexreward[train]'")
preferences = pytest.importorskip("training.preferences")
check = pytest.importorskip("training.check")
from training.recipe import Check  # noqa: E402


def user(text):
    return [{"role": "user", "content": text}]


def assistant(text):
    return [{"role": "assistant", "content": text}]


def written(tmp_path, *rows):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def pair(n: int = 0, **more):
    return {"prompt": f"p{n}", "chosen": "good", "rejected": "bad", **more}


def test_texts_become_turns_where_the_policy_chats_and_stay_texts_where_it_does_not(tmp_path):
    source = written(tmp_path, pair(judge="a"), pair(1, judge="a", topic={"x": 1}))
    turned = preferences.read_pairs(source, chat=True)
    assert turned.rows[0] == {"prompt": user("p0"), "chosen": assistant("good"), "rejected": assistant("bad")}
    assert turned.judges == {"a": 2}
    assert preferences.read_pairs(source, chat=False).rows[0] == pair()


def test_a_conversation_takes_sides_that_are_texts_and_no_prompt_is_what_both_sides_begin_with(tmp_path):
    whole = {"chosen": user("p") + assistant("good"), "rejected": user("p") + assistant("bad")}
    source = written(tmp_path, {"prompt": user("p"), "chosen": "good", "rejected": "bad"}, whole)
    found = preferences.read_pairs(source, chat=False).rows
    assert found[0] == found[1] == {"prompt": user("p"), "chosen": assistant("good"), "rejected": assistant("bad")}


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"prompt": "p", "chosen": "x"}, "line 1: no 'rejected', which a preference pair has; it has prompt, chosen"),
        ({"prompt": 3, "chosen": "x", "rejected": "y"}, "line 1: prompt is 3, expected text or messages"),
    ],
)
def test_a_row_that_is_no_pair_is_named(tmp_path, row, complaint):
    with pytest.raises(SampleError, match=complaint):
        preferences.read_pairs(written(tmp_path, row), chat=True)


def test_all_pairs_of_a_prompt_are_on_one_side_and_the_seed_says_which():
    rows = Dataset.from_list([pair(n % 10, chosen=str(n)) for n in range(30)])
    parted = preferences.part(rows, share=0.2, seed=0)
    train, held_out = (set(side["prompt"]) for side in parted)
    assert len(held_out) == 2
    assert not train & held_out
    assert len(parted.train) == 24
    assert parted.held_out["chosen"] == preferences.part(rows, share=0.2, seed=0).held_out["chosen"]
    assert any(set(preferences.part(rows, share=0.2, seed=seed).held_out["prompt"]) != held_out for seed in (1, 2, 3))


def test_a_share_is_at_least_one_prompt_and_never_all():
    two = Dataset.from_list([pair(0), pair(1)])
    assert len(preferences.part(two, share=0.01, seed=0).held_out) == 1
    assert len(preferences.part(two, share=0.99, seed=0).train) == 1
    assert preferences.part(two, share=0.0, seed=0).held_out is None
    assert preferences.part(two.select([0]), share=0.5, seed=0).held_out is None


def test_held_out_prompts_that_were_trained_on_are_refused():
    rows = Dataset.from_list([pair(0), pair(1)])
    with pytest.raises(SampleError, match="e: 1 of its prompts are among the training pairs too"):
        preferences.refuse_overlap(rows, rows.select([1]), "e")
    preferences.refuse_overlap(rows, Dataset.from_list([pair(2)]), "e")


def test_pairs_that_are_too_long_are_left_out_or_refused_and_never_cut(tokenizer):
    rows = Dataset.from_list([pair(0), pair(1, rejected="x" * 50)])

    def within(length, too_long):
        return preferences.within(rows, tokenizer, max_length=length, too_long=too_long, name="data")

    assert within(53, "refuse").num_dropped == 0
    kept, dropped = within(52, "drop")
    assert (kept["prompt"], dropped) == (["p0"], 1)
    with pytest.raises(SampleError, match="data: a pair has 53 tokens, above max_length 52; too_long: drop leaves it"):
        within(52, "refuse")
    with pytest.raises(SampleError, match="no pair is left to train on: 2 were above max_length 2"):
        within(2, "drop")


def test_the_length_of_a_conversation_is_that_of_its_longer_side(tokenizer):
    rows = Dataset.from_list([{"prompt": user("p"), "chosen": assistant("x"), "rejected": assistant("x" * 9)}])
    ids = tokenizer.apply_chat_template(user("p") + assistant("x" * 9), return_dict=True)["input_ids"]
    assert preferences.within(rows, tokenizer, max_length=len(ids), too_long="refuse", name="data").num_dropped == 0
    with pytest.raises(SampleError, match=f"a pair has {len(ids)} tokens"):
        preferences.within(rows, tokenizer, max_length=len(ids) - 1, too_long="refuse", name="data")


@pytest.mark.parametrize(
    ("right", "completion", "reference", "found"),
    [
        ("number", "It is 1,234.", "1234", True),
        ("number", "12, no, 13", "13", True),
        ("number", "13 it is, not 12", "13", False),
        ("number", "none", "none", False),
        ("exact", " yes\n", "yes", True),
        ("exact", "yes!", "yes", False),
        ("contains", "oh yes!", "yes", True),
        ("operator:eq", "a", "a", True),
    ],
)
def test_what_is_right_is_told_by_the_way_that_is_asked_for(right, completion, reference, found):
    assert right_named(right, "check.right")(completion, reference) is found


@pytest.mark.parametrize("right", ["numbre", "nowhere:eq", "operator:nothing"])
def test_another_way_is_refused(right):
    with pytest.raises(RecipeError, match=r"check\.right"):
        right_named(right, "check.right")


def test_what_is_trained_on_cannot_be_what_is_checked(tmp_path):
    asked = Check(prompts=written(tmp_path, {"prompt": 'say "p"', "reference": "1"}))
    for seen in ('say "p"', user('say "p"')):
        trained = preferences.prompts_of(Dataset.from_list([pair() | {"prompt": seen}]))
        with pytest.raises(SampleError, match="1 of its prompts are among the training pairs"):
            check.refuse_known(check.questions(asked), trained, asked)
    others = preferences.prompts_of(Dataset.from_list([pair() | {"prompt": 'say "p" twice'}]))
    check.refuse_known(check.questions(asked), others, asked)
    with pytest.raises(RecipeError, match=r"check\.right"):
        check.refuse_known([], others, asked.model_copy(update={"right": "numbre"}))


def test_questions_are_put_as_a_policy_is_asked_and_have_references(tmp_path):
    system = {"role": "system", "content": "Be brief."}
    rows = [{"prompt": "p", "reference": "1"}, {"prompt": [system, *user("q")], "reference": "2"}]
    asked = Check(prompts=written(tmp_path, *rows))
    assert [(one.system, one.user, ref) for one, ref in check.questions(asked)] == [
        ("", "p", "1"),
        ("Be brief.", "q", "2"),
    ]
    assert len(check.questions(asked.model_copy(update={"limit": 1}))) == 1
    with pytest.raises(SampleError, match="line 1: has no reference"):
        check.questions(Check(prompts=written(tmp_path, {"prompt": "p"})))


def test_pairs_with_molecules_are_not_learnt_from_without_them(tmp_path):
    with pytest.raises(SampleError, match=r"line 1: brings molecules, .* training\.mol_dpo trains one that is"):
        preferences.read_pairs(written(tmp_path, pair(molecules=["CCO"])), chat=True)
