"""Figures that others published, recomputed from the replies that they published too."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from flexreward.evals.winners import TIE, winners


def jsonl(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def percent(value):
    return round(100 * value, 2)


@pytest.mark.parametrize(("size", "accuracy", "precision", "recall", "f1"), [
    ("7b", 78.28, 74.90, 75.74, 75.05),
    ("3b", 77.68, 74.26, 70.86, 72.12),
])  # fmt: skip
def test_judgelrm_on_pandalm_is_read_as_its_authors_read_it_and_scores_what_they_published(
    shared_data, read_by, tmp_path, size, accuracy, precision, recall, f1
):
    template = tmp_path / "judgelrm.toml"
    template.write_text('system = ""\nuser = "pair"\nscale = [0, 10]\nreasoning = "none"\n')
    lines = jsonl(shared_data / "judgelrm_pandalm" / f"judgelrm{size}_outputs.jsonl")
    replies = [{"id": line["idx"], "reply": line["output"]} for line in lines]
    read = read_by("pandalm", shared_data / "pandalm", replies, template=str(template))
    result_N = np.array([{0: TIE, 1: 0, 2: 1}[line["result"]] for line in lines])
    assert (winners(read.table.scores_NC) == result_N).sum() == len(lines) == 999
    assert [percent(read.figures[name]) for name in ("accuracy", "macro_precision", "macro_recall", "macro_f1")] == [
        *(accuracy, precision, recall, f1)
    ]
    assert read.coverage.line is None


def test_judgelrm_scores_some_completions_0_which_a_template_from_1_to_10_calls_off_its_scale(shared_data, read_by):
    lines = jsonl(shared_data / "judgelrm_pandalm" / "judgelrm7b_outputs.jsonl")
    replies = [{"id": line["idx"], "reply": line["output"]} for line in lines]
    read = read_by("pandalm", shared_data / "pandalm", replies, template="pair-direct")
    assert read.table.reply_reasons == ("off_scale",) * sum("<answer>0<" in line["output"] for line in lines)
    assert len(read.table.reply_reasons) == 32


def test_the_strict_tag_that_judgelrm_published_would_read_9_replies_of_999(shared_data):
    lines = jsonl(shared_data / "judgelrm_pandalm" / "judgelrm3b_outputs.jsonl")
    assert sum(bool(re.search(r"<answer>(\d+)</answer>", line["output"])) for line in lines) == 9


@pytest.mark.parametrize(("file", "field", "accuracy", "precision", "recall", "f1", "unread"), [
    ("pandalm-7b", "pandalm_result", 66.77, 57.38, 57.50, 57.43, 0),
    ("gpt-3.5-turbo", "gpt_result", 71.07, 58.79, 57.36, 57.55, 25),
])  # fmt: skip
def test_pandalm_and_gpt35_on_pandalm(shared_data, read_by, file, field, accuracy, precision, recall, f1, unread):
    lines = json.loads((shared_data / "pandalm" / f"{file}-testset-v1.json").read_bytes())
    replies = [{"id": line["idx"], "reply": str(line[field])} for line in lines]
    read = read_by("pandalm", shared_data / "pandalm", replies)
    assert [percent(read.figures[name]) for name in ("accuracy", "macro_precision", "macro_recall", "macro_f1")] == [
        *(accuracy, precision, recall, f1)
    ]
    assert len(read.table.reply_reasons) == unread  # "garbage" is no answer, and a tie only for the published figure


def test_autojs_example_with_its_exchanged_twin(shared_data, read_by):
    folder = shared_data / "autoj_pairwise"
    twins = {"given": "pairwise_example_output.jsonl", "reversed": "pairwise_exchange_example_output.jsonl"}
    replies = [
        {"id": i, "order": order, "reply": str(line["output"])}
        for order, name in twins.items()
        for i, line in enumerate(jsonl(folder / name))
    ]
    figures = read_by("auto-j", folder, replies).figures
    names = ("accuracy", "consistency", "accuracy_both")
    assert [percent(figures[name]) for name in names] == [59.99, 83.41, 54.96]


RUNS = ("ChatGPT_CoT", "ChatGPT_Rating", "ChatGPT_Vanilla", "GPT-4_CoT", "GPT-4_Vanilla", "LLaMA2_CoT")


@pytest.mark.parametrize("run", RUNS)
def test_llmbars_runs_end_in_the_statistics_that_ship_with_them(shared_data, read_by, run):
    folder = shared_data / "llmbar"
    replies = []
    for line in jsonl(folder / "outputs" / f"Natural__{run}.jsonl"):
        result, key = line["results"][-1], f"Natural/{line['idx']}"
        if "score_1" in result:  # one rating each, so both orders show the same two
            ratings = [result[f"score_{i}"][0] for i in (1, 2)]
            replies += [{"id": key, "reply": " ".join(ratings)}]
            replies += [{"id": key, "reply": " ".join(ratings[::-1]), "order": "reversed"}]
        else:
            replies += [{"id": key, "reply": result["swap = False"]["completion"][0]}]
            replies += [{"id": key, "reply": result["swap = True"]["completion"][0], "order": "reversed"}]
    read = read_by("llmbar", folder, replies)
    shipped = json.loads((folder / "outputs" / f"Natural__{run}.statistics.json").read_bytes())
    figures = {
        "correct_False": "accuracy_given/Natural",
        "correct_True": "accuracy_swapped/Natural",
        "correct_average": "accuracy/Natural",
        "correct_both": "accuracy_both/Natural",
        "equal": "equal/Natural",
        "kappa_False": "kappa_given",
        "kappa_True": "kappa_swapped",
        "kappa_average": "kappa_average",
        "kappa_agreement": "kappa_of_orders",
    }
    assert set(figures) == set(shipped)
    for name, value in shipped.items():
        published = float(value.split("= ")[-1].rstrip("%")) / 100 if isinstance(value, str) else value
        assert read.figures[figures[name]] == pytest.approx(published, abs=1e-12), name
    assert read.coverage.num_rows == 419
    assert read.coverage.num_missing == 319  # the adversarial ones were not judged: a half-run
    assert len(read.table) == 100


def test_judgebench_by_the_two_order_rule(shared_data, read_by):
    folder = shared_data / "judgebench"

    def replies(name, text):
        return [
            {"id": line["pair_id"], "order": order, "reply": text(judgment)}
            for line in jsonl(folder / name)
            for order, judgment in zip(("given", "reversed"), line["judgments"], strict=True)
        ]

    skywork = replies("judgments_skywork-reward-llama3.1-8b_on_gpt-4o.jsonl", lambda one: f"[[{one['decision']}]]")
    assert percent(read_by("judgebench", folder, skywork).figures["accuracy"]) == 62.29
    assert percent(read_by("judgebench", folder, skywork).figures["inconsistent"]) == 0.29

    haiku = replies("judgments_claude-3-haiku_arena_hard_on_claude-3-5-sonnet.jsonl", lambda one: one["response"])
    read = read_by("judgebench-claude", folder, haiku)
    assert percent(read.figures["accuracy"]) == 32.22
    # 45.19 % change their decision; with the 13 rows where one order has none, 50 % are not the same in both.
    assert percent(read.figures["inconsistent"]) == 50.00
    assert percent(read.figures["inconsistent"] - read.figures["null"]) == 45.19
    assert len(read.table.reply_reasons) == 13
    decisions = [one["decision"] for line in jsonl(
        folder / "judgments_claude-3-haiku_arena_hard_on_claude-3-5-sonnet.jsonl"
    ) for one in line["judgments"]]  # fmt: skip
    assert decisions.count(None) == 13
