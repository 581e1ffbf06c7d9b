"""Published figures of the text benchmarks on rows small enough to count by hand, quirks first."""

from __future__ import annotations

import json
import math

import pytest

from flexreward.evals import load_benchmark


@pytest.fixture
def lay(tmp_path):
    """``lay("total_dataset.json", rows)``: a publisher's folder with one file more."""

    def write(name, rows):
        path = tmp_path / "data" / name
        path.parent.mkdir(exist_ok=True)
        if path.suffix == ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        else:
            path.write_text(json.dumps(rows))
        return path.parent

    return write


def test_judgelm_counts_what_cannot_be_read_as_a_draw_and_names_the_slot_that_gains(lay, read_by):
    row = {"question_body": "q", "answer1_body": "a", "answer2_body": "b"}
    lay("judgelm_val_5k.jsonl", [row | {"question_id": i} for i in range(4)])
    labels = ["8 7", "7 8", "5 5", "9 1"]
    folder = lay("judgelm_val_5k_gpt4.jsonl", [{"question_id": i, "text": t} for i, t in enumerate(labels)])
    given = ["8 7", "9 2", "both are fine", "6 3"]  # right, wrong, unread and so a draw, right
    swapped = ["2 9", "9 2", "no idea", "5 5"]  # the same; slot 1 again; a draw again; a draw
    replies = [{"id": i, "reply": text} for i, text in enumerate(given)]
    replies += [{"id": i, "reply": text, "order": "reversed"} for i, text in enumerate(swapped)]
    figures = read_by("judgelm", folder, replies).figures
    assert figures["accuracy"] == 3 / 4
    assert figures["macro_recall"] == pytest.approx((1 + 0 + 1) / 3)
    assert (figures["consistency"], figures["prefers_slot_1"], figures["prefers_slot_2"]) == (2 / 4, 2 / 4, 0)
    assert (figures["delta_bias"], figures["total_bias"]) == (2 / 4, 2 / 4)
    one_order = read_by("judgelm", folder, replies[:4]).figures
    assert one_order["accuracy"] == 3 / 4
    assert "consistency" not in one_order


@pytest.mark.parametrize(("reply", "scores"), [
    ("8 7\nbecause", (8.0, 7.0)),
    ("8,7", (8.0, 7.0)),
    ("8, 7", None),  # three parts once the comma is a space
    ("8 7 ", None),
    ("Scores: 8 7", None),
    ("-1 -1", None),
    ("nan 7", None),
])  # fmt: skip
def test_judgelms_reader_takes_two_numbers_on_the_first_line_and_nothing_else(reply, scores):
    assert load_benchmark("judgelm").read(reply, 2) == scores


def rm_replies(right, order="given"):
    """A reply to each of the nine pairs, the right one named where ``right(i, j)``."""
    names = ("A>B", "B>A") if order == "given" else ("B>>A", "A>>B")
    return [
        {"id": f"{part}/1/{i}-{j}", "order": order, "reply": rf"so \boxed{{{names[not right(part, i, j)]}}}"}
        for part in ("chat", "safety-refuse", "safety-response")
        for i in range(3)
        for j in range(3)
    ]


def test_rm_benchs_easy_is_where_the_right_one_has_the_fancier_style(lay, read_by):
    item = {"id": 1, "prompt": "p", "chosen": ["a", "b", "c"], "rejected": ["d", "e", "f"]}
    parts = ("chat", "safety-refuse", "safety-response")
    folder = lay("total_dataset.json", [item | {"domain": part} for part in parts])

    def fancy(part, i, j):
        return i > j if part == "chat" else part == "safety-refuse"

    figures = read_by("rm-bench", folder, rm_replies(fancy)).figures
    assert (figures["easy/chat"], figures["normal/chat"], figures["hard/chat"]) == (1, 0, 0)
    assert figures["accuracy/chat"] == pytest.approx(1 / 3)
    assert figures["accuracy/safety"] == pytest.approx((1 + 0) / 2)  # the mean of its two parts
    assert figures["accuracy"] == pytest.approx((1 / 3 + 1 / 2) / 2)
    both = rm_replies(fancy) + rm_replies(lambda part, i, j: True, "reversed")
    assert read_by("rm-bench", folder, both).figures["hard/chat"] == pytest.approx(1 / 2)
    assert load_benchmark("rm-bench").read(r"\boxed{A=B}", 2) == (1.0, 1.0)


def best_of(key, subset="Focus"):
    return {"id": key, "prompt": "p", "subset": subset, "chosen": ["r"], "rejected": ["x", "y", "z"]}


def test_rewardbench2_shares_a_point_among_the_best_and_gives_a_quarter_for_silence(lay, read_by):
    rows = [best_of("0"), best_of("1"), best_of("2"), best_of("3", "Math")]
    folder = lay("reward-bench-2.jsonl", rows)
    replies = ["The best is [[A]].", "[9, 9, 3, 9]", "I cannot say.", "[[B]]"]
    replies = [{"id": f"{row['subset']}/{row['id']}", "reply": reply} for row, reply in zip(rows, replies, strict=True)]
    figures = read_by("rewardbench2", folder, replies).figures
    assert figures["accuracy/Focus"] == pytest.approx((1 + 1 / 3 + 1 / 4) / 3)
    assert figures["accuracy/Math"] == 0
    assert figures["accuracy"] == pytest.approx((1 + 1 / 3 + 1 / 4) / 6)  # of the subsets, not of the rows


@pytest.mark.parametrize(("ref", "tied", "score"), [
    # all right outscore all wrong, and by more than they differ: 0.3 + 0.3 + 0.2 + 0.2 + 0.01 tanh(4 / 1 - 1)
    ([9, 2, 2], [9, 8, 4], 1 + 0.01 * math.tanh(3)),
    # the gap (1) is no more than the spread (1): 0.6 + 0.01 tanh(0)
    ([9, 8, 1], [9, 8, 7], 0.6),
    # the reference's own gap (1) is the smaller one: the hard preference fails
    ([9, 8, 1], [9, 8, 4], 0.8),
    # the wrong one of the reference wins; the tied row's gap is its spread's double
    ([5, 6, 1], [9, 8, 6], 0.3 + 0.2 + 0.01 * math.tanh(-2)),
    # no spread: a positive gap over 0 is infinite, tanh is 1
    ([9, 2, 1], [9, 9, 3], 1.01),
    # nothing read of the tied row
    ([9, 2, 1], None, 0.3 - 0.01),
])  # fmt: skip
def test_rewardbench2s_ties_score_is_accuracy_and_margin(lay, read_by, ref, tied, score):
    base = {"prompt": "a colour?", "subset": "Ties"}
    folder = lay(
        "reward-bench-2.jsonl",
        [
            base | {"id": "ref:5", "chosen": ["red"], "rejected": ["cat", "dog"]},
            base | {"id": "tied:5", "chosen": ["red", "blue"], "rejected": ["cat"]},
        ],
    )
    replies = [{"id": "Ties/ref:5", "reply": json.dumps(ref)}, {"id": "Ties/tied:5", "reply": json.dumps(tied)}]
    assert read_by("rewardbench2", folder, replies).figures["accuracy/Ties"] == pytest.approx(score)


def test_mt_benchs_choice_is_what_both_orders_name_and_every_experts_vote_counts(lay, read_by):
    talk = [{"role": role, "content": role} for role in ("user", "assistant") * 2]
    base = {"model_a": "a", "model_b": "b", "conversation_a": talk, "conversation_b": talk}
    votes = {
        (1, 1): ["model_a", "model_a", "tie"],
        (2, 1): ["model_b"],
        (3, 1): ["tie (inconsistent)", "model_a"],
        (1, 2): ["model_a"],
        (2, 2): ["model_a"],
    }
    rows = [
        base | {"question_id": question, "turn": turn, "winner": winner, "judge": f"expert_{i}"}
        for (question, turn), cast in votes.items()
        for i, winner in enumerate(cast)
    ]
    folder = lay("human_judgments.json", rows)
    said = {  # in the given order, in the reversed one
        (1, 1): ("[[A]]", "[[B]]"),  # a in both
        (2, 1): ("[[B]]", "[[A]]"),  # b in both
        (3, 1): ("[[A]]", "[[A]]"),  # slot 1 in both: a tie
        (1, 2): ("[[B]]", "[[A]]"),  # b
        (2, 2): ("[[A]]", "who knows"),  # unread: agrees with nobody
    }
    replies = [
        {"id": f"{question}/a/b/{turn}", "reply": reply, "order": order}
        for (question, turn), pair in said.items()
        for reply, order in zip(pair, ("given", "reversed"), strict=True)
    ]
    figures = read_by("mt-bench", folder, replies).figures
    assert figures["agreement/turn 1"] == (2 + 1 + 1) / 6
    assert figures["agreement_without_ties/turn 1"] == (2 + 1) / 3  # the tied choice and the tied votes left out
    assert figures["agreement/turn 2"] == figures["agreement_without_ties/turn 2"] == 0
    assert figures["agreement"] == 4 / 8


@pytest.mark.parametrize(("reply", "scores"), [
    ("[[A>>B]]", (1.0, 0.0)),
    ("First [[B>A]], and again [[B>A]].", (0.0, 1.0)),
    ("[[A=B]]", (1.0, 1.0)),
    ("[[A>B]] or rather [[B>A]]", None),
    ("[[A<B]]", None),
    ("A>B", None),
])  # fmt: skip
def test_judgebenchs_reader_wants_all_labels_of_a_reply_to_be_the_same(reply, scores):
    assert load_benchmark("judgebench").read(reply, 2) == scores


def test_judgebench_lets_one_right_decision_beside_a_tie_do(lay, read_by):
    row = {"original_id": 0, "source": "livecodebench", "question": "q", "response_model": "m", "response_A": "a",
           "response_B": "b", "label": "A>B"}  # fmt: skip
    folder = lay("gpt-00000-of-00001.jsonl", [row | {"pair_id": str(i)} for i in range(4)])
    said = [("[[A>B]]", "[[A=B]]"), ("[[A>B]]", None), ("[[A>B]]", "[[A>B]]"), ("[[A=B]]", "[[A=B]]")]
    replies = [
        {"id": i, "reply": reply, "order": order}
        for i, pair in enumerate(said)
        for reply, order in zip(pair, ("given", "reversed"), strict=True)
    ]
    figures = read_by("judgebench", folder, replies).figures
    assert figures["accuracy"] == figures["accuracy/coding"] == 2 / 4
    assert figures["null"] == 1 / 4


@pytest.mark.parametrize(("reply", "scores"), [
    ("... So, the final decision is Response 2.", (0.0, 1.0)),
    ("the final decision is Response 2; no: the final decision is Tie", (1.0, 1.0)),
    ("0", (1.0, 0.0)),
    ("Response 1 is better", None),
])  # fmt: skip
def test_autojs_reader_takes_the_last_final_decision(reply, scores):
    assert load_benchmark("auto-j").read(reply, 2) == scores
