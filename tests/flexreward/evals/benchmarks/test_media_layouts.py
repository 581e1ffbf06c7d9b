"""Every loader of images, videos and sounds on rows in its publisher's layouts, and on the real files beside."""

from __future__ import annotations

import json
import math
from collections import Counter

import pytest

from flexreward.errors import SampleError
from flexreward.evals import load_benchmark
from flexreward.evals.source import open_folder
from flexreward.evals.table import table_of
from flexreward.templates import load_template
from flexreward.types import Media

PNG = b"\x89PNG\r\n\x1a\n"

MEDIA = (
    *("bvcc", "genai-edit", "genai-image", "genai-video", "mj-bench", "mj-bench-quality", "mj-bench-safety"),
    *("mllm-judge-batch", "mllm-judge-pair", "mllm-judge-score", "multimodal-rewardbench", "nisqa", "somos"),
    *("vl-rewardbench", "voxsim"),
)


def load(name, folder):
    """The rows, each of which the benchmark's template can show."""
    benchmark = load_benchmark(name)
    rows = list(benchmark.rows(open_folder(benchmark.source, folder)))
    template = load_template(benchmark.template)
    for row in rows:
        prompt = template.render(row.request)
        assert prompt.media
        assert all(len(placed.media.digest) == 64 for placed in prompt.media)
    assert len({row.request.id for row in rows}) == len(rows)
    return rows


def content(media: Media) -> bytes:
    data = media.data if media.data is not None else media.path.read_bytes()
    return data.removeprefix(PNG)


# MLLM-as-a-Judge


def test_mllm_judge_takes_both_keys_both_kinds_of_numbers_and_both_styles_of_paths(publish):
    publish.mllm_judge(6)
    score = load("mllm-judge-score", publish.folder)
    rows = [json.loads(line) for line in (publish.folder / "Benchmark/score.jsonl").read_text().splitlines()]
    assert {type(row.get("human", row.get("human_answer"))) for row in rows} == {int, str}
    assert {"human" in row for row in rows} == {True, False}
    assert [content(row.request.media[0]) for row in score] == [f"image/{i}.jpg".encode() for i in range(6)]
    assert (score[0].request.id, score[0].human, score[0].group, score[0].systems) == ("0", (1.0,), "coco", ("gemini",))
    pair = load("mllm-judge-pair", publish.folder)
    assert (len(pair[0].request.completions), pair[0].human) == (2, (1.0, 0.0))
    batch = load("mllm-judge-batch", publish.folder)
    assert (batch[0].human, batch[0].columns, batch[0].systems) == (
        (4.0, 3.0, 2.0, 1.0), {"cluster": "0.jpg", "ranking": "ABCD"}, tuple("abcd")
    )  # fmt: skip


def test_mllm_judges_real_excerpts_are_read(publish, shared_data):
    for name in ("score", "pair", "batch"):
        (source,) = (shared_data / "mllm_judge").glob(f"{name}*_excerpt.jsonl")
        publish.put(f"Benchmark/{name}.jsonl", source.read_bytes())
        for line in source.read_text().splitlines():
            publish.put(f"image/{json.loads(line)['image_path'].rpartition('/')[2]}")
    score = load("mllm-judge-score", publish.folder)
    assert (len(score), {row.group for row in score}) == (15, {"coco"})
    assert {row.human[0] for row in score} <= {1, 2, 3, 4, 5}
    assert len(load("mllm-judge-pair", publish.folder)) == 7
    batch = load("mllm-judge-batch", publish.folder)
    assert [len(row.request.completions) for row in batch] == [4, 4, 4]
    ranking = batch[0].columns["ranking"]
    assert max(range(4), key=lambda i: batch[0].human[i]) == "ABCD".index(ranking[0])


@pytest.mark.parametrize(("name", "fields", "message"), [
    ("score", {"human": 6}, r"score\.jsonl: line 1: human is 6, expected 1 to 5"),
    ("score", {"human": "4.5"}, r"human is '4\.5', expected 1 to 5"),
    ("pair", {"human": "D"}, r"pair\.jsonl: line 1: human is 'D', expected A, B or C"),
    ("batch", {"human": "ABCX"}, r"human is 'ABCX', expected a ranking of ABCD"),
    ("pair", {"answer1": "text"}, r"an answer has no text under 'answer'"),
    ("score", {"image_path": "9.jpg"}, r"9\.jpg is missing; copy Benchmark/ and image/ of https://"),
    ("score", {"image_path": None}, r"line 1: image_path holds no image, expected the name of a file"),
])  # fmt: skip
def test_a_row_of_mllm_judge_that_is_none_is_one_line(publish, name, fields, message):
    publish.mllm_judge(1)
    path = publish.folder / f"Benchmark/{name}.jsonl"
    row = json.loads(path.read_text())
    label = row.pop("human_answer")
    publish.jsonl(f"Benchmark/{name}.jsonl", [row | {"human": label} | fields])
    with pytest.raises(SampleError, match=message):
        load(f"mllm-judge-{name}", publish.folder)


def test_a_missing_image_folder_is_one_line_that_says_where_to_get_it(publish):
    row = {"id": 1, "image_path": "1.jpg", "original_dataset": "coco", "instruction": "q", "answer": "a", "human": 4}
    publish.jsonl("Benchmark/score.jsonl", [row])
    with pytest.raises(
        SampleError, match=r"^[^\n]*: has no folder image/ or images/ or Images/ with 1\.jpg; copy [^\n]*$"
    ):
        load("mllm-judge-score", publish.folder)


# VL-RewardBench


def vl_row(publish, name, ranking=(0, 1)):
    return {
        "id": name, "query": "q", "response": ["good", "bad"], "image": publish.picture(name),
        "human_ranking": list(ranking), "models": ["m1", "m2"], "judge": "gpt-4o", "rationale": "",
        "query_source": "", "ground_truth": "",
    }  # fmt: skip


def test_vl_rewardbench_groups_by_the_beginning_of_an_id_whatever_its_case(publish):
    names = ["mathverse_1", "MMMU_pro_2", "hallucination_pair-3", "RLAIF-V-4", "rlhf-v-5", "wildvision_6", "svit-7"]
    publish.parquet("data/test-00000-of-00001.parquet", [vl_row(publish, name) for name in names])
    assert [row.group for row in load("vl-rewardbench", publish.folder)] == [
        *("reasoning", "reasoning", "hallucination", "hallucination", "hallucination", "general", "general")
    ]


def test_vl_rewardbench_ranks_places_and_names_the_second_row_of_an_id(publish):
    publish.parquet("test-0.parquet", [vl_row(publish, "a"), vl_row(publish, "a", (1, 0)), vl_row(publish, "b")])
    first, second, third = load("vl-rewardbench", publish.folder)
    assert (first.human, second.human) == ((1.0, 0.0), (0.0, 1.0))
    assert [row.request.id for row in (first, second, third)] == ["a", "a#2", "b"]
    assert content(first.request.media[0]) == b"a"
    publish.parquet("test-0.parquet", [vl_row(publish, "a", (0, 0))])
    with pytest.raises(SampleError, match=r"row 1: human_ranking is .*, expected \[0, 1\] or \[1, 0\]"):
        load("vl-rewardbench", publish.folder)


# MJ-Bench, in its three layouts


def test_mj_bench_reads_the_hubs_old_set_by_split(publish):
    old = [
        {
            "caption": "c",
            "image0": publish.picture("x"),
            "image1": publish.picture("y"),
            "label": label,
            "info": "object",
        }
        for label in (0, 1)
    ]
    for split in ("alignment", "safety", "quality", "bias"):
        publish.parquet(f"data/{split}-00000-of-00001.parquet", old)
    rows = load("mj-bench", publish.folder)
    assert [(row.request.id, row.human, row.group) for row in rows] == [
        ("alignment/0", (1.0, 0.0), "object"), ("alignment/1", (0.0, 1.0), "object")
    ]  # fmt: skip
    assert [content(image) for image in rows[0].request.completions] == [b"x", b"y"]
    assert [row.request.id for row in load("mj-bench-safety", publish.folder)] == ["safety/0", "safety/1"]


def test_mj_bench_reads_the_new_set_by_category(publish):
    new = [
        {"caption": "c", "image0": publish.picture(i), "image1": publish.picture(-i - 1), "label": 0,
         "category": category, "subcategory": "s", "model": "flux"}
        for i, category in enumerate(("Composition", "Visualization", "Quality"))
    ]  # fmt: skip
    publish.parquet("data/train-00000-of-00001.parquet", new)
    rows = load("mj-bench", publish.folder)
    assert [(row.request.id, row.group, row.systems) for row in rows] == [
        ("composition/0", "composition", ("flux", "flux")), ("visualization/1", "visualization", ("flux", "flux"))
    ]  # fmt: skip
    assert [row.request.id for row in load("mj-bench-quality", publish.folder)] == ["quality/2"]
    with pytest.raises(SampleError, match="holds no safety images, which only the old set has"):
        load("mj-bench-safety", publish.folder)


def test_mj_bench_reads_githubs_alignment(publish, shared_data):
    counts = {"actions": 117, "attributes": 229, "existence": 251, "other": 243, "spatial": 76}
    for part in counts:
        source = shared_data / "mj_bench" / f"alignment_{part}_test.json"
        publish.put(f"alignment/benchmark/{part}/{part}_test.json", source.read_bytes())
        for row in json.loads(source.read_bytes()):
            publish.put(f"image/{row['image0']}", b"0")
            publish.put(f"image/{row['image1']}", b"1")
    rows = load("mj-bench", publish.folder)
    assert Counter(row.group for row in rows) == counts
    assert rows[0].request.id == "actions/pap_0"
    assert rows[0].human == (0.0, 1.0)


def test_mj_bench_reads_githubs_quality_and_its_real_images(publish, shared_data):
    source = shared_data / "mj_bench"
    captions = json.loads((source / "quality_human_captions.json").read_bytes())
    there = [row for row in captions if (source / "images" / row["image_0"]).is_file()]
    publish.array("quality/human/captions_human.json", there)
    for row in there:
        for name in (row["image_0"], row["image_1"]):
            publish.put(f"quality/human/examples_human/{name}", (source / "images" / name).read_bytes())
    rows = load("mj-bench-quality", publish.folder)
    assert len(rows) == 10
    assert {row.human for row in rows} == {(1.0, 0.0)}
    assert all(image.path.read_bytes().startswith(b"\xff\xd8\xff") for image in rows[0].request.completions)


# GenAI-Bench


def test_genai_bench_reads_the_three_parts_of_the_hub(publish):
    models = {"left_model": "sd", "right_model": "dalle"}
    image = {
        "prompt": "p",
        "left_image": publish.picture("l"),
        "right_image": publish.picture("r"),
        "vote_type": "tievote",
    } | models
    edit = {
        "source_prompt": "s", "target_prompt": "t", "instruct_prompt": "i", "source_image": publish.picture("src"),
        "left_output_image": publish.picture("l"), "right_output_image": publish.picture("r"),
        "vote_type": "bothbad_vote",
    } | models  # fmt: skip
    video = {
        "prompt": "p",
        "left_video": "https://x.y/a/1.mp4",
        "right_video": "2.mp4",
        "vote_type": "leftvote",
    } | models
    publish.parquet("image_generation/test_v1-00000-of-00001.parquet", [image])
    publish.parquet("image_generation/test-00000-of-00001.parquet", [image] * 3)
    publish.parquet("image_edition/test_v1-00000-of-00001.parquet", [edit])
    publish.parquet("video_generation/test_v1-00000-of-00001.parquet", [video])
    publish.put("videos/1.mp4")
    publish.put("videos/2.mp4")
    (row,) = load("genai-image", publish.folder)
    assert (row.request.id, row.human, row.systems) == ("0", (1.0, 1.0), ("sd", "dalle"))
    assert [content(one) for one in row.request.completions] == [b"l", b"r"]
    (row,) = load("genai-edit", publish.folder)
    assert (content(row.request.media[0]), row.human) == (b"src", (0.0, 0.0))
    assert row.request.prompt == "[Source Image Prompt]\ns\n\n[Target Image Prompt]\nt\n\n[Editing Prompt]\ni"
    (row,) = load("genai-video", publish.folder)
    assert [(one.kind, one.path.name) for one in row.request.completions] == [("video", "1.mp4"), ("video", "2.mp4")]
    (publish.folder / "videos/2.mp4").unlink()
    with pytest.raises(
        SampleError, match=r"2\.mp4 is missing; copy video_generation/ .*videos that it names by address"
    ):
        load("genai-video", publish.folder)


def test_genai_bench_reads_the_real_video_votes(publish, shared_data):
    source = (shared_data / "genai_bench" / "video_votes_unifiedreward.json").read_bytes()
    votes = json.loads(source)[:200]
    publish.array("data.json", votes)
    for vote in votes:
        publish.put(f"videos/{vote['video_left']}", b"l")
        publish.put(f"videos/{vote['video_right']}", b"r")
    rows = load("genai-video", publish.folder)
    assert len(rows) == 200
    assert rows[0].human == (0.0, 1.0)


# Speech


def test_nisqa_reads_each_set_that_is_there(publish):
    header = ["db", "con", "file", "con_description", "filename_deg", "filename_ref", "mos", "filepath_deg"]
    for name in ("P501", "FOR"):
        row = [f"NISQA_TEST_{name}", 7, 1, "noise", "c1.wav", "r1.wav", "3.4567", "deg/c1.wav"]
        publish.table(f"NISQA_Corpus/NISQA_TEST_{name}/NISQA_TEST_{name}_file.csv", [header, row])
        publish.put(f"NISQA_Corpus/NISQA_TEST_{name}/deg/c1.wav", name.encode())
    rows = load("nisqa", publish.folder)
    assert [(row.request.id, row.human, row.group, row.systems) for row in rows] == [
        ("FOR/c1.wav", (3.4567,), "FOR", ("FOR/7",)), ("P501/c1.wav", (3.4567,), "P501", ("P501/7",))
    ]  # fmt: skip
    assert [content(row.request.completions[0]) for row in rows] == [b"FOR", b"P501"]


def test_bvcc_reads_its_list_without_a_header_and_the_scores_of_systems(publish):
    lines = [["sys64e2f-utt490ff75.wav", "3.0"], ["sys64e2f-utt1.wav", "4.125"], ["sysaaaaa-utt2.wav", "1.5"]]
    publish.table("main/DATA/sets/test_mos_list.txt", lines)
    publish.table("main/DATA/sets/train_mos_list.txt", [["other.wav", "1"]])
    publish.table("main/DATA/mydata_system.csv", [["system", "mean"], ["sys64e2f", "3.25"]])
    for name, _ in lines:
        publish.put(f"main/DATA/wav/{name}")
    rows = load("bvcc", publish.folder)
    assert [(row.request.id, row.human[0], row.systems[0]) for row in rows] == [
        ("sys64e2f-utt490ff75", 3.0, "sys64e2f"), ("sys64e2f-utt1", 4.125, "sys64e2f"),
        ("sysaaaaa-utt2", 1.5, "sysaaaaa"),
    ]  # fmt: skip
    assert [dict(row.columns) for row in rows] == [{"system_score": 3.25}, {"system_score": 3.25}, {}]
    publish.table("main/DATA/sets/test_mos_list.txt", [["sys64e2f-utt1.wav", "loud"]])
    with pytest.raises(SampleError, match=r"line 1: score is 'loud', expected a number"):
        load("bvcc", publish.folder)


def test_somos_reads_the_clean_list_with_its_header(publish):
    for kind in ("clean", "full"):
        lines = [["utteranceId", "mean"], ["novel_2007_0098_015.wav", "3.2"]]
        publish.table(f"training_files/split1/{kind}/test_mos_list.txt", lines)
    publish.table("training_files/split1/clean/test_system.csv", [["systemId", "mean"], ["015", "3.3"]])
    publish.put("audios/novel_2007_0098_015.wav")
    (row,) = load("somos", publish.folder)
    assert (row.request.id, row.human, row.systems) == ("novel_2007_0098_015", (3.2,), ("015",))
    assert row.columns == {"system_score": 3.3}


def test_voxsim_shows_two_recordings_and_judges_the_claim_that_they_are_of_one(publish, shared_data):
    source = (shared_data / "mos_lists" / "voxsim_test_list.txt").read_bytes()
    publish.put("voxsim_test_list.txt", source)
    for line in source.decode().split():
        for name in line.split(",")[:2]:
            publish.put(f"wav/{name}", name.encode())
    rows = load("voxsim", publish.folder)
    assert len(rows) == 2776
    assert (rows[0].human, rows[0].group, len(rows[0].request.media)) == ((2.0,), "different", 2)
    assert Counter(row.group for row in rows)["same"] == 1898


# Multimodal RewardBench


def test_multimodal_rewardbench_splits_safety_and_reasoning_as_its_script_does(publish):
    rows = [
        {"ID": name, "Category": category, "Text": "t", "Image": f"images/x/{i}.jpg", "Output1": "a", "Output2": "b",
         "Better": "Output2" if i % 2 else "Output1"}
        for i, (name, category) in enumerate([
            ("nocaps_1", "open_generation/correctness_task"), ("PAIRS_2", "safety"), ("hateful_3", "safety"),
            ("mathvista_4", "reasoning"), ("EMMA-Coding_5", "reasoning"),
        ])
    ]  # fmt: skip
    publish.array("data/all_data.json", rows)
    for i in range(len(rows)):
        publish.put(f"data/images/x/{i}.jpg")
    found = load("multimodal-rewardbench", publish.folder)
    assert [row.group for row in found] == [
        *("open_generation/correctness_task", "safety/bias", "safety/toxicity", "reasoning/math", "reasoning/coding")
    ]
    assert [row.human[0] for row in found] == [1, 0, 1, 0, 1]


# All of them


@pytest.mark.parametrize("name", MEDIA)
def test_a_folder_without_the_files_is_one_line_that_says_where_to_get_them(publish, name):
    with pytest.raises(SampleError) as error:
        load(name, publish.folder)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"{publish.folder}: holds no ")
    assert "https://" in str(error.value)


@pytest.mark.parametrize("name", MEDIA)
def test_what_is_stated_of_a_benchmark_fits_its_template_and_figures(name):
    benchmark = load_benchmark(name)
    template = load_template(benchmark.template)
    assert benchmark.name == name
    assert template.media
    counts = {"rating": 1, "pair": 2, "ranking": None}
    assert template.num_completions == counts[benchmark.task]
    assert benchmark.quirks
    assert benchmark.source.remedy
    assert "Quirks: " in benchmark.published.__doc__
    assert math.isnan(benchmark.published(table_of([]))[benchmark.headline])
