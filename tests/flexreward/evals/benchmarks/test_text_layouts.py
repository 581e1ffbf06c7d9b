"""Every text benchmark's loader on rows in its publisher's layouts, and on the real files where they lie beside."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from flexreward.errors import RecipeError, SampleError
from flexreward.evals import BENCHMARKS, load_benchmark
from flexreward.evals.source import open_folder
from flexreward.types import Message


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text(json.dumps(rows), encoding="utf-8")


def load(name, folder):
    benchmark = load_benchmark(name)
    return list(benchmark.rows(open_folder(benchmark.source, folder)))


JUDGELM_ASKED = {
    "question_id": 7, "question_body": "Why?", "answer1_body": "Because.", "answer2_body": "No idea.",
    "answer1_model_id": "vicuna-7b", "answer2_model_id": "alpaca-7b", "score": [0.5, 0.4],
}  # fmt: skip


def test_judgelm_joins_questions_with_what_gpt4_said_and_leaves_out_what_it_did_not_score(tmp_path):
    write(tmp_path / "judgelm_val_5k.jsonl", [JUDGELM_ASKED | {"question_id": i} for i in (7, 8, 9)])
    texts = {7: "8 2.5\nThe first is right.", 8: "Both are bad.", 9: "4,4\nEqual."}
    write(
        tmp_path / "judgelm_val_5k_gpt4.jsonl",
        [{"question_id": i, "text": texts[i], "reviewer_id": "gpt-4"} for i in (9, 8, 7)],
    )
    first, tied = load("judgelm", tmp_path)  # question 8 has no two scores on its first line
    assert (first.request.id, first.human, first.columns["gpt4"]) == ("7", (1.0, 0.0), [8.0, 2.5])
    assert (tied.request.id, tied.human) == ("9", (1.0, 1.0))
    assert first.systems == ("vicuna-7b", "alpaca-7b")
    write(tmp_path / "judgelm_val_5k_gpt4.jsonl", [{"question_id": 7, "text": "8 2"}])
    with pytest.raises(SampleError, match=r"line 2: GPT-4 judged no question 8"):
        load("judgelm", tmp_path)


def test_rewardbench2_reads_the_hubs_parquet_ties_included(tmp_path):
    four = {"chosen": ["right"], "rejected": ["w1", "w2", "w3"], "num_correct": 1, "num_incorrect": 3}
    ties = {"chosen": ["red", "blue"], "rejected": ["cat"], "num_correct": 2, "num_incorrect": 1}
    rows = [
        {"id": "0", "prompt": "p", "subset": "Factuality", "models": ["a", "b", "c", "d"], **four},
        {"id": "tied:3", "prompt": "a colour?", "subset": "Ties", "models": [], **ties},
    ]
    write(tmp_path / "data" / "test-00000-of-00001.parquet", rows)
    factual, tied = load("rewardbench2", tmp_path)
    assert (factual.request.id, factual.human, factual.systems[0]) == ("Factuality/0", (1.0, 0.0, 0.0, 0.0), "a")
    assert (tied.request.id, tied.human) == ("Ties/tied:3", (1.0, 1.0, 0.0))
    assert tied.request.completions == ("red", "blue", "cat")
    write(tmp_path / "data" / "test-00000-of-00001.parquet", [rows[1] | {"id": "3"}])
    with pytest.raises(SampleError, match=r"the id of a Ties row is '3', expected ref:N or tied:N"):
        load("rewardbench2", tmp_path)


@pytest.mark.parametrize("name", [
    "data/gpt-00000-of-00001.jsonl",  # the hub
    "data/dataset=judgebench,response_model=gpt-4o-2024-05-13.jsonl",  # GitHub
])  # fmt: skip
def test_judgebench_reads_the_hubs_layout_and_githubs(tmp_path, name):
    row = {
        "pair_id": "b5ce", "original_id": 12, "source": "livebench-math", "question": "1+1?",
        "response_model": "gpt-4o-2024-05-13", "response_A": "2", "response_B": "3", "label": "A>B",
    }  # fmt: skip
    write(tmp_path / name, [row])
    (found,) = load("judgebench", tmp_path)
    assert (found.request.id, found.human, found.group) == ("b5ce", (1.0, 0.0), "math")
    write(tmp_path / name, [row | {"label": "A=B"}])
    with pytest.raises(SampleError, match=r"line 1: label is 'A=B', expected 'A>B' or 'B>A'"):
        load("judgebench", tmp_path)


def rm_bench_row(**fields):
    return {"id": 8, "prompt": "p", "chosen": ["c0", "c1", "c2"], "rejected": ["r0", "r1", "r2"]} | fields


@pytest.mark.parametrize("name", ["total_dataset.json", "data/math_filtered.json"])
def test_rm_bench_makes_nine_pairs_of_a_prompt_from_the_hubs_layout_and_githubs(tmp_path, name):
    write(tmp_path / name, [rm_bench_row(**({"domain": "math"} if "total" in name else {}))])
    rows = load("rm-bench", tmp_path)
    assert len({row.columns["cluster"] for row in rows}) == 1
    assert [row.request.id for row in rows] == [f"math/8/{i}-{j}" for i in range(3) for j in range(3)]
    assert rows[5].request.completions == ("c1", "r2")
    assert {row.human for row in rows} == {(1.0, 0.0)}
    write(tmp_path / name, [rm_bench_row(domain="math", chosen=["c0"])])
    with pytest.raises(SampleError, match=r"line 1: expected 3 chosen and 3 rejected, found 1 and 3"):
        load("rm-bench", tmp_path)


def test_llmbar_reads_githubs_folders(tmp_path):
    row = {"input": "Say hi", "output_1": "Hi", "output_2": "A poem", "label": 1}
    for subset in (
        "Natural",
        "Adversarial/Neighbor",
        "Adversarial/GPTInst",
        "Adversarial/GPTOut",
        "Adversarial/Manual",
    ):
        write(tmp_path / "Dataset" / "LLMBar" / subset / "dataset.json", [row, row | {"label": 2}])
    rows = load("llmbar", tmp_path)
    assert len(rows) == 10
    assert (rows[1].request.id, rows[1].human, rows[9].group) == ("Natural/1", (0.0, 1.0), "Adversarial/Manual")
    write(tmp_path / "Dataset" / "Processed" / "LLMEval^2" / "dataset.json", [row])
    assert [row.request.id for row in load("llmbar-processed", tmp_path)] == ["LLMEval^2/0"]


def vote(judge, winner, a="gpt-4", b="alpaca-13b", turn=2):
    def talk(model):
        return [
            {"role": role, "content": f"{role} {turn} of {model if role == 'assistant' else 'you'}"}
            for turn in (1, 2)
            for role in ("user", "assistant")
        ]

    return {
        "question_id": 81, "model_a": a, "model_b": b, "winner": winner, "judge": judge, "turn": turn,
        "conversation_a": talk(a), "conversation_b": talk(b),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["data/human-00000-of-00001-25f4910818759289.parquet", "human_judgments.json"])
def test_mt_bench_collects_the_experts_votes_on_a_pair_whichever_model_came_first(tmp_path, name):
    votes = [
        vote("expert_1", "model_a"),
        vote("expert_2", "model_b", a="alpaca-13b", b="gpt-4"),
        vote("expert_3", "tie"),
        vote("author_1", "model_b"),
        vote("expert_1", "model_b", turn=1),
        vote("expert_4", "tie (inconsistent)", turn=1),
    ]
    write(tmp_path / name, votes)
    second, first = load("mt-bench", tmp_path)
    assert second.request.id == "81/alpaca-13b/gpt-4/2"
    assert second.columns["votes"] == [1, 1, -1]
    assert first.columns["cluster"] == second.columns["cluster"] == 81
    assert second.human == (0.0, 1.0)
    assert second.request.prompt == "user 1 of you"
    assert second.request.completions[0] == (
        Message(role="assistant", content="assistant 1 of alpaca-13b"),
        Message(role="user", content="user 2 of you"),
        Message(role="assistant", content="assistant 2 of alpaca-13b"),
    )
    assert (first.group, first.human) == ("turn 1", (1.0, 1.0))  # one vote and one tie: nobody has more
    assert first.request.completions == ("assistant 1 of alpaca-13b", "assistant 1 of gpt-4")


def test_pandalm_needs_a_majority_of_known_votes(tmp_path):
    row = {
        "idx": 0, "cmp_key": "a_b", "instruction": "i", "input": "", "response1": "x", "response2": True,
        "annotator1": 1, "annotator2": 0, "annotator3": 1,
    }  # fmt: skip
    write(tmp_path / "testset-v1.json", [row])
    (found,) = load("pandalm", tmp_path)
    assert found.request.prompt == "(Instruction:) i (Input:) "
    assert (found.human, found.request.completions, found.systems) == ((1.0, 0.0), ("x", "true"), ("a", "b"))
    write(tmp_path / "testset-v1.json", [row | {"annotator1": 2}])
    with pytest.raises(SampleError, match=r"votes \[2, 0, 1\] have no majority"):
        load("pandalm", tmp_path)


TEXT = ("auto-j", "judgebench", "judgebench-claude", "judgelm", "llmbar", "llmbar-processed", "mt-bench", "pandalm",
        "rewardbench2", "rm-bench")  # fmt: skip


@pytest.mark.parametrize("name", TEXT)
def test_a_folder_without_the_files_is_one_line_that_says_where_to_get_them(tmp_path, name):
    with pytest.raises(SampleError) as error:
        load(name, tmp_path)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"{tmp_path}: holds no ")
    assert "https://" in str(error.value)


@pytest.mark.parametrize("name", TEXT)
def test_another_publishers_row_is_one_line_that_names_the_field(tmp_path, name):
    benchmark = load_benchmark(name)
    for pattern in benchmark.source.files:
        path = tmp_path / pattern.replace("*", "0")
        write(path, [{"colour": "red"}])
    with pytest.raises(SampleError, match=r"(line|row) 1: no field '[a-z_1 ]+', it has colour; is this"):
        load(name, tmp_path)


@pytest.mark.parametrize(("name", "folder", "count", "groups"), [
    ("pandalm", "pandalm", 999, {"": 999}),
    ("auto-j", "autoj_pairwise", 1392, None),
    ("judgebench", "judgebench", 350, {"knowledge": 154, "reasoning": 98, "math": 56, "coding": 42}),
    ("judgebench-claude", "judgebench", 270, {"knowledge": 154, "reasoning": 51, "math": 34, "coding": 31}),
    ("llmbar", "llmbar", 419, {
        "Natural": 100, "Adversarial/Neighbor": 134, "Adversarial/GPTInst": 92, "Adversarial/GPTOut": 47,
        "Adversarial/Manual": 46,
    }),
    ("llmbar-processed", "llmbar", 200, {"MT-Bench": 200}),
    ("rm-bench", "rm_bench", 9 * (129 + 157), {"chat": 9 * 129, "safety-response": 9 * 157}),
    ("judgelm", "vicuna_reviews", 4 * 80, None),
])  # fmt: skip
def test_the_real_files_hold_as_many_rows_as_published(shared_data, name, folder, count, groups):
    rows = load(name, shared_data / folder)
    assert len({row.request.id for row in rows}) == len(rows) == count
    assert groups is None or Counter(row.group for row in rows) == groups
    assert all(len(row.request.completions) == len(row.human) == 2 for row in rows)


def test_the_names_stand_by_the_alphabet_and_each_loads_what_it_names():
    assert list(BENCHMARKS) == sorted(BENCHMARKS)
    assert all(load_benchmark(name).name == name for name in TEXT)


def test_an_unknown_benchmark_names_the_nearest():
    with pytest.raises(RecipeError, match=r"unknown benchmark 'pandaml', did you mean pandalm"):
        load_benchmark("pandaml")
