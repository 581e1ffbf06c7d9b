"""Published figures of the image, video and speech benchmarks on rows small enough to count by hand, quirks first."""

from __future__ import annotations

import math
import random
import statistics

import numpy as np
import pytest

from flexreward.evals import load_benchmark


def thought(*answers):
    return "<think>hm</think>" + "".join(f"<answer>{answer}</answer>" for answer in answers)


def replies(rows, order="given"):
    """``{id: [reply, ...]}``: one a sample."""
    return [
        {"id": key, "reply": text, "order": order, "sample": sample}
        for key, texts in rows.items()
        for sample, text in enumerate(texts)
    ]


# MLLM-as-a-Judge: three runs


def mllm(publish, task, rows):
    """Rows of one task: ``(data set, label)``."""
    publish.put("image/1.jpg")
    common = {"id": 1, "image_path": "1.jpg", "instruction": "q"}
    texts = [{"name": "m", "answer": "x"}] * 4
    answers = {
        "score": {"answer": "x", "name": "m"}, "pair": {"answer1": texts[0], "answer2": texts[1]},
        "batch": {"answers": texts},
    }[task]  # fmt: skip
    publish.jsonl(
        f"Benchmark/{task}.jsonl",
        [
            common | answers | {"id": i, f"{task}_id": i, "original_dataset": name, "human": label}
            for i, (name, label) in enumerate(rows)
        ],
    )


def test_runs_of_scores_pile_up_unread_ones_are_minus_one_and_the_median_counts(publish, read_by):
    labels = [1, 2, 3, 4]
    mllm(publish, "score", [("coco", label) for label in labels] + [("wit", 3), ("wit", 4)])
    runs = [[1, 2, 3, 4], [4, 3, 2, None], [1, 1, 2, 5]]
    votes = {i: [thought(run[i]) if run[i] else "no idea" for run in runs] for i in range(4)}
    votes |= {4: [thought(2)] * 3, 5: [thought(2)] * 3}  # all equal: there is no correlation
    figures = read_by("mllm-judge-score", publish.folder, replies(votes), template="image-score").figures
    pooled = [-1 if score is None else score for run in runs for score in run]
    expected = statistics.median(np.corrcoef(pooled[:n], (labels * 3)[:n])[0, 1] for n in (4, 8, 12))
    assert figures["pearson/coco"] == pytest.approx(expected, abs=1e-12)
    assert figures["pearson/wit"] == 0
    assert figures["pearson_over_groups"] == pytest.approx(expected / 2, abs=1e-12)


A, B, TIE = thought(8, 3), thought(3, 8), thought(5, 5)


@pytest.mark.parametrize(("votes", "choice"), [
    ((A, TIE, TIE), "A"),  # not a majority
    ((A, B, TIE), "C"),
    ((A, A, B), "A"),
    ((B, "no idea", "no idea"), "B"),  # what cannot be read is a tie
    (("no idea",) * 3, "C"),
])  # fmt: skip
def test_votes_on_a_pair_are_summed_with_signs(publish, read_by, votes, choice):
    for label in "ABC":
        mllm(publish, "pair", [("coco", label)])
        figures = read_by("mllm-judge-pair", publish.folder, replies({0: votes})).figures
        assert figures["accuracy_over_groups"] == (label == choice)
        without = figures["accuracy_without_ties_over_groups"]
        assert math.isnan(without) if label == "C" else without == (label == choice)


def test_values_of_data_sets_are_rounded_before_their_mean_and_ties_of_people_left_out(publish, read_by):
    mllm(publish, "pair", [("coco", label) for label in "AAC"] + [("wit", "C")])
    votes = {0: [A] * 3, 1: [B] * 3, 2: [A] * 3, 3: [TIE] * 3}
    figures = read_by("mllm-judge-pair", publish.folder, replies(votes)).figures
    assert (figures["accuracy/coco"], figures["accuracy/wit"]) == (0.333, 1)
    assert figures["accuracy_over_groups"] == pytest.approx((0.333 + 1) / 2, abs=1e-12)
    assert figures["accuracy_without_ties/coco"] == figures["accuracy_without_ties_over_groups"] == 0.5


def test_of_equal_scores_the_later_letter_is_ranked_first_and_the_worst_running_mean_counts(publish, read_by):
    mllm(publish, "batch", [("coco", "DBAC"), ("coco", "ABCD")])
    tied, best = thought(7, 7, 5, 9), thought(9, 8, 7, 6)  # DBAC and ABCD
    votes = {0: [tied, tied, "no idea"], 1: [best, thought(6, 7, 8, 9), best]}
    read = read_by("mllm-judge-batch", publish.folder, replies(votes))
    runs = [(0 + 0) / 2, (0 + 1) / 2, (1 + 0) / 2]  # DCBA is four edits from ABCD, an empty ranking too
    running = [sum(runs[:n]) / n for n in (1, 2, 3)]
    assert read.figures["levenshtein_over_groups"] == pytest.approx(max(running), abs=1e-12)
    assert not load_benchmark("mllm-judge-batch").higher_is_better


# VL-RewardBench


def vl(publish, names):
    publish.parquet(
        "data/test-0.parquet",
        [
            {"id": name, "query": "q", "response": ["good", "bad"], "image": publish.picture(name),
             "human_ranking": [0, 1]}
            for name in names
        ],
    )  # fmt: skip


def test_rows_that_no_majority_reads_leave_vl_rewardbenchs_accuracy_and_are_wrong_in_the_other(publish, read_by):
    vl(publish, ["mathverse_1", "mathverse_2", "rlaif-v-3", "wild_4"])
    votes = {
        "mathverse_1": [A, A, B],
        "mathverse_2": ["no idea", "no idea", A],  # neither agree nor reject
        "rlaif-v-3": [TIE, B, A],  # equal scores disagree
        "wild_4": [A, "no idea", A],
    }
    figures = read_by("vl-rewardbench", publish.folder, replies(votes), reader="template").figures
    assert figures["accuracy"] == 2 / 3
    assert (figures["accuracy/reasoning"], figures["accuracy/hallucination"], figures["accuracy/general"]) == (1, 0, 1)
    assert figures["accuracy_over_groups"] == 2 / 3
    assert figures["accuracy_unscored_wrong"] == (2 + 1 + 1 + 2) / 12
    assert figures["accuracy_over_groups_unscored_wrong"] == pytest.approx((3 / 6 + 1 / 3 + 2 / 3) / 3)


# MJ-Bench


def test_mj_bench_pools_the_replies_of_both_orders_and_drops_ties_only_in_the_second_figure(publish, read_by):
    row = {"caption": "c", "image0": publish.picture(0), "image1": publish.picture(1), "label": 0, "info": ""}
    publish.parquet("data/alignment-0.parquet", [row, row | {"label": 1}])
    given = replies({"alignment/0": [A], "alignment/1": [TIE]})
    swapped = replies({"alignment/0": [A], "alignment/1": ["no idea"]}, order="reversed")
    figures = read_by("mj-bench", publish.folder, given + swapped, reader="template").figures
    assert figures["accuracy"] == 1 / 4  # of the first row, one order is right: slot 1 wins in both
    assert figures["accuracy_where_decided"] == 1 / 2


# GenAI-Bench


def genai(publish, votes):
    picture = publish.picture("x")
    rows = [{"prompt": "p", "left_image": picture, "right_image": picture, "vote_type": vote} for vote in votes]
    publish.parquet("image_generation/test_v1-0.parquet", rows)


def label(*names):
    return [f"<think>hm</think><answer>[[{name}]]</answer>" if name else "no idea" for name in names]


def test_the_plurality_of_seven_goes_to_the_first_to_come_and_may_be_none(publish, read_by):
    genai(publish, ["leftvote", "tievote", "rightvote"])
    votes = {
        0: label("A>B", "B>A", "B>A", "A>B", "A=B=Good", "", "A=B=Bad"),
        1: label("A=B=Bad", "", "", "A=B=Bad", "A=B=Good", "B>A", "A>B"),
        2: label("", "", "", "B>A", "B>A", "A>B", "A>B"),
    }
    figures = read_by("genai-image", publish.folder, replies(votes), reader="template").figures
    assert figures["accuracy_four_way"] == pytest.approx((2 + 1 + 2) / 21)
    assert figures["accuracy_four_way_voted"] == 1 / 3  # A>B came before B>A; "both bad"; none
    assert figures["accuracy_without_ties"] == pytest.approx((2 + 2) / 14)
    assert figures["accuracy"] == pytest.approx((2 + 3 + 2) / 21)


def test_a_tie_that_names_no_kind_is_right_for_both_kinds(publish, read_by):
    genai(publish, ["tievote", "bothbad_vote", "leftvote", "bothbad_vote"])
    texts = ["[[A=B]]", "[[A=B]]", "[[A=B]]", "[[A=B=Good]]"]
    figures = read_by("genai-image", publish.folder, [{"id": i, "reply": t} for i, t in enumerate(texts)]).figures
    assert figures["accuracy_four_way"] == 2 / 4
    assert figures["accuracy"] == 3 / 4  # the two ties as one class


# Speech


def speech(publish, lines):
    publish.table("DATA/sets/test_mos_list.txt", lines)
    for name, _ in lines:
        publish.put(f"DATA/wav/{name}")


def test_a_systems_truth_is_the_publishers_where_it_gives_one(publish, read_by):
    lines = [(f"sys{s}-utt{i}.wav", value) for s, values in enumerate([(1, 2), (3, 4), (5, 5)]) for i, value in
             enumerate(values)]  # fmt: skip
    speech(publish, lines)
    said = {
        name.removesuffix(".wav"): [thought(score)] for (name, _), score in zip(lines, (2, 2, 1, 3, 4, 5), strict=True)
    }
    options = {"reader": "template"}
    means = read_by("bvcc", publish.folder, replies(said), **options).figures
    assert means["system_mse"] == pytest.approx(np.mean([(2 - 1.5) ** 2, (2 - 3.5) ** 2, (4.5 - 5) ** 2]))
    publish.table("DATA/mydata_system.csv", [("system", "mean"), ("sys0", 1.0), ("sys1", 2.0)])
    given = read_by("bvcc", publish.folder, replies(said), **options).figures
    assert given["system_mse"] == pytest.approx(np.mean([(2 - 1) ** 2, 0]))  # sys2 is not in the list
    assert given["pearson"] == means["pearson"]


@pytest.mark.parametrize(("name", "constant"), [("bvcc", 0.0), ("somos", 3.0), ("nisqa", 3.0), ("voxsim", 3.5)])
def test_what_cannot_be_read_is_a_constant_of_the_script(publish, read_by, name, constant):
    if name == "bvcc":
        speech(publish, [("s-1.wav", 4), ("s-2.wav", 2)])
        keys = ["s-1", "s-2"]
    elif name == "somos":
        publish.table("split1/clean/test_mos_list.txt", [("utteranceId", "mean"), ("a_1.wav", 4), ("b_1.wav", 2)])
        keys = ["a_1", "b_1"]
        for key in keys:
            publish.put(f"audios/{key}.wav")
    elif name == "nisqa":
        header = ("con", "filename_deg", "mos", "filepath_deg")
        lines = [(1, "a.wav", 4, "deg/a.wav"), (1, "b.wav", 2, "deg/b.wav")]
        publish.table("NISQA_TEST_FOR/NISQA_TEST_FOR_file.csv", [header, *lines])
        keys = ["FOR/a.wav", "FOR/b.wav"]
        for key in "ab":
            publish.put(f"NISQA_TEST_FOR/deg/{key}.wav")
    else:
        publish.table("voxsim_test_list.txt", [("a.wav", "b.wav", 1, "", 4), ("b.wav", "a.wav", 0, "", 2)])
        keys = ["a.wav b.wav", "b.wav a.wav"]
        for key in "ab":
            publish.put(f"wav/{key}.wav")
    said = {keys[0]: [thought(4)], keys[1]: ["<think>hm</think>no idea"]}
    read = read_by(name, publish.folder, replies(said), reader="template")
    assert read.figures["mse"] == (2 - constant) ** 2 / 2
    assert read.table.reasons == ("", "no_answer")  # counted, while the published figure takes it for a score


# Multimodal RewardBench


def test_a_reply_that_names_no_side_is_a_toss_of_the_scripts_coin(publish, read_by):
    count = 40
    publish.put("data/images/1.jpg")
    common = {"Category": "vqa", "Text": "t", "Image": "images/1.jpg", "Output1": "a", "Output2": "b"}
    publish.array("data/all_data.json", [common | {"ID": f"x{i}", "Better": "Output1"} for i in range(count)])
    said = [{"id": f"x{i}", "reply": "[[A]]" if i % 2 else "Both are fine."} for i in range(count)]
    figures = read_by("multimodal-rewardbench", publish.folder, said).figures
    coin = random.Random(123)
    right = sum(i % 2 == 1 or coin.random() < 0.5 for i in range(count))
    assert figures == {"accuracy": right / count, "accuracy/vqa": right / count}
    assert count / 2 < right < count
