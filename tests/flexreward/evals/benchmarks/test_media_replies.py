"""Figures of image, video and speech judges, recomputed from the replies that others published."""

from __future__ import annotations

import csv
import json

import pytest

from flexreward.evals import load_benchmark


def jsonl(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def percent(value):
    return round(100 * value, 2)


def genai_image(publish, lines):
    picture = publish.picture("x")
    rows = [
        {"prompt": line["prompt"], "left_image": picture, "right_image": picture, "vote_type": line["human_vote"]}
        for line in lines
    ]
    publish.parquet("image_generation/test_v1-00000-of-00001.parquet", rows)


def genai_edit(publish, lines):
    picture = publish.picture("x")
    images = dict.fromkeys(("source_image", "left_output_image", "right_output_image"), picture)
    texts = ("source_prompt", "target_prompt", "instruct_prompt")
    rows = [{name: line[name] for name in texts} | images | {"vote_type": line["human_vote"]} for line in lines]
    publish.parquet("image_edition/test_v1-00000-of-00001.parquet", rows)


def test_gpt4o_on_genai_bench_image_generation(shared_data, read_by, publish):
    lines = jsonl(shared_data / "genai_bench" / "image_generation_gpt4o_pairwise.jsonl")
    genai_image(publish, lines)
    replies = [{"id": line["idx"], "reply": line["response"]} for line in lines]
    read = read_by("genai-image", publish.folder, replies)
    assert percent(read.figures["accuracy_four_way"]) == 45.59
    assert percent(read.figures["accuracy_four_way_voted"]) == 45.59  # one run is its own plurality
    assert percent(read.figures["accuracy_without_ties"]) == 55.44
    assert (len(read.table), len(read.table.reply_reasons)) == (1735, 11)
    assert (read.table.human_NC[:, 0] != read.table.human_NC[:, 1]).sum() == 1306
    votes = [None if scores[0] != scores[0] else tuple(scores) for scores in read.table.scores_NC.tolist()]
    labels = {"[[A>B]]": (1, 0), "[[B>A]]": (0, 1), "[[A=B=Good]]": (1, 1), "[[A=B=Bad]]": (0, 0), None: None}
    assert votes == [labels[line["model_vote"]] for line in lines]


@pytest.mark.parametrize(("judge", "accuracy"), [("llava", 26.12), ("idefics2", 27.31)])
def test_llava_and_idefics2_on_genai_bench_editing(shared_data, read_by, publish, judge, accuracy):
    lines = jsonl(shared_data / "genai_bench" / f"image_edition_{judge}_pairwise.jsonl")
    genai_edit(publish, lines)
    replies = [{"id": line["idx"], "reply": line["response"]} for line in lines]
    read = read_by("genai-edit", publish.folder, replies)
    assert percent(read.figures["accuracy_four_way"]) == accuracy
    assert (len(read.table), read.coverage.line) == (919, None)
    if judge == "llava":  # it says [[A>B]] of every edit: what it scores is the share of left votes
        assert {tuple(scores) for scores in read.table.scores_NC.tolist()} == {(1.0, 0.0)}


def bvcc(publish, shared_data):
    path = shared_data / "mos_lists" / "bvcc_test_example_results.csv"
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    names = [line["wav_path"].rpartition("/")[2] for line in lines]
    publish.table("DATA/sets/test_mos_list.txt", list(zip(names, (line["avg_score"] for line in lines), strict=True)))
    for name in names:
        publish.put(f"DATA/wav/{name}", b"RIFF")
    return [{"id": name.removesuffix(".wav"), "reply": line["answer"]} for name, line in zip(names, lines, strict=True)]


def test_a_predictor_on_bvcc_over_recordings_and_over_systems(shared_data, read_by, publish):
    read = read_by("bvcc", publish.folder, bvcc(publish, shared_data))
    names = ("mse", "pearson", "spearman", "kendall")
    assert [round(read.figures[name], 3) for name in names] == [0.271, 0.867, 0.870, 0.693]
    assert [round(read.figures[f"system_{name}"], 3) for name in names] == [0.123, 0.930, 0.930, 0.777]
    assert (len(read.table), len(set(read.table.systems))) == (1066, 187)


def test_rounded_labels_would_make_another_figure_of_the_same_predictions(shared_data, read_by, publish):
    figures = read_by("bvcc", publish.folder, bvcc(publish, shared_data)).figures
    names = ("pearson", "spearman", "mse")
    assert [figures[f"{name}_labels_rounded"] for name in names] == [0.866, 0.870, 0.275]


def test_imagereward_on_mj_benchs_people(shared_data, read_by, publish):
    source = shared_data / "mj_bench"
    captions = json.loads((source / "quality_human_captions.json").read_bytes())
    publish.array("quality/human/captions_human.json", captions)
    for row in captions:
        for name in (row["image_0"], row["image_1"]):
            publish.put(f"quality/human/examples_human/{name}")
    lines = json.loads((source / "quality_human_imagereward_scores.json").read_bytes())
    assert [line["caption"] for line in lines] == [row["caption"] for row in captions]
    replies = [{"id": f"human/{line['id']}", "reply": f"{line['score_0']} {line['score_1']}"} for line in lines]
    read = read_by("mj-bench-quality", publish.folder, replies)
    assert read.figures["accuracy"] == read.figures["accuracy_where_decided"] == 67 / 100
    preferred = [str(int(one < other)) for one, other in read.table.scores_NC.tolist()]
    assert preferred == [line["pred"] for line in lines]


# Readers


@pytest.mark.parametrize(("name", "reply", "scores"), [
    ("genai-image", "so [[A>>B]]", (1, 0)),
    ("genai-image", "tie: [[A=B]]", (0.5, 0.5)),
    ("genai-image", "[[A=B=Bad]]\nor [[A>B]]", (0, 0)),  # the first line that has one
    ("genai-image", "[[A>B]] rather than [[B>A]]", None),  # greedy: one label from the first to the last bracket
    ("genai-image", "[[A=B=Fine]]", None),
    ("genai-image", "A is better", None),
    ("vl-rewardbench", "**Overall Judgment**: Answer 2 is slightly better.", (0, 1)),
    ("vl-rewardbench", "Therefore,\nAnswer 1 is the better one.", (1, 0)),
    ("vl-rewardbench", "Therefore Answer 1 is clearly better.", None),
    ("vl-rewardbench", "therefore answer 1 is better", (1, 0)),
    ("vl-rewardbench", "Answer 1 is better", None),
    ("mj-bench", "IMAGE-1 RATING: 7\nIMAGE-2 RATING: 4\nBETTER IMAGE: 2", (0, 1)),
    ("mj-bench", "BETTER IMAGE: 0", (1, 1)),
    ("mj-bench", "IMAGE-1 RATING: 7.5\nIMAGE-2 RATING: 4\nBETTER IMAGE: neither", (7.5, 4)),
    ("mj-bench", "-0.31 1.2", (-0.31, 1.2)),
    ("mj-bench", "the first one", None),
    ("multimodal-rewardbench", "not [[B]] but [[A]]", (1, 0)),
    ("multimodal-rewardbench", "[[B]]", (0, 1)),
    ("multimodal-rewardbench", "[[C]]", None),
    ("nisqa", "<think>4</think><answer>3.8</answer>", (3.8,)),
    ("nisqa", "3.75", (3.75,)),
    ("nisqa", "about 3.8", None),
    ("bvcc", "the rating is 3.5 of 5", (3.5,)),
    ("bvcc", "Score: 4", (4,)),
    ("bvcc", "I would give it a 2, perhaps", (2,)),
    ("bvcc", "excellent", (0,)),
])  # fmt: skip
def test_a_publishers_reader_reads_as_its_script_does(name, reply, scores):
    count = 1 if name in ("nisqa", "bvcc") else 2
    assert load_benchmark(name).read(reply, count) == scores
