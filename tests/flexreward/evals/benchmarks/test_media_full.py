"""MLLM-as-a-Judge and VL-RewardBench at their full numbers of rows, judged by the scripted engine, traps included."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

import pytest

from flexreward.engines.scripted import ScriptedEngine
from flexreward.engines.scripts import SCRIPTS
from flexreward.evals import load_benchmark
from flexreward.evals.drawn import as_drawn
from flexreward.evals.rows import item_of
from flexreward.evals.source import open_folder
from flexreward.evals.strict import strict
from flexreward.evals.table import table_of
from flexreward.files.outcomes import read_outcomes
from flexreward.jobs.run import judge_to_file
from flexreward.judge import Judge
from flexreward.ledger import Ledger
from flexreward.ledger.store import Store
from flexreward.templates import load_template

NUM_PAIRS = 4_414
"""Images with an instruction in MLLM-as-a-Judge; how many rows its three files make of them is stated nowhere."""


def judged(name, folder, out, script, **options):
    """The table of all rows, over a real outcome file."""
    benchmark = load_benchmark(name)
    judge = Judge(ScriptedEngine(SCRIPTS[script]), load_template(benchmark.template), **options)
    items = map(item_of, benchmark.rows(open_folder(benchmark.source, folder)))
    asyncio.run(judge_to_file(judge, items, out))
    return benchmark, table_of(read_outcomes(out))


@pytest.mark.slow
def test_mllm_judge_runs_through_at_its_full_size(publish, tmp_path):
    publish.mllm_judge(NUM_PAIRS)
    shown = {}
    for task in ("score", "pair", "batch"):
        options = {"both_orders": False, "votes": 3}
        benchmark, table = judged(f"mllm-judge-{task}", publish.folder, tmp_path / f"{task}.jsonl", "longer", **options)
        assert len(table) == NUM_PAIRS
        assert table.scored_N.all()
        shown[task] = benchmark.published(table)
        assert len(table.group_names) == 14
        assert len(shown[task]) == (15 if task != "pair" else 30)
    # Longer is better, and in these rows people think so of scores: each star is four characters.
    assert shown["score"]["pearson_over_groups"] > 0.99
    assert 0 < shown["batch"]["levenshtein_over_groups"] < 1


@pytest.fixture
def vl_rewardbench(publish, shared_data):
    """The 1,250 real rows with a tiny image for each name."""
    source = (shared_data / "vl_rewardbench" / "vl_rewardbench_text.json").read_bytes()
    publish.put("data.json", source)
    rows = json.loads(source)
    for row in rows:
        publish.put(row["image"])
    return publish.folder, rows


def test_vl_rewardbenchs_real_rows_and_what_is_odd_about_them(vl_rewardbench):
    folder, raw = vl_rewardbench
    benchmark = load_benchmark("vl-rewardbench")
    rows = list(benchmark.rows(open_folder(benchmark.source, folder)))
    assert Counter(row.group for row in rows) == {"hallucination": 749, "reasoning": 318, "general": 183}
    assert Counter(row.human for row in rows) == {(1.0, 0.0): 1245, (0.0, 1.0): 5}
    assert len({row["id"] for row in raw}) == 1225
    assert len({row.request.id for row in rows}) == len(rows) == benchmark.source.num_rows == 1250
    assert sum(row.request.id.endswith("#2") for row in rows) == 25


@pytest.mark.slow
def test_a_judge_that_always_says_first_gains_nothing_on_vl_rewardbench(vl_rewardbench, tmp_path):
    folder, _ = vl_rewardbench
    benchmark, table = judged("vl-rewardbench", folder, tmp_path / "both.jsonl", "first")
    assert len(table) == 1250
    assert table.scored_N.all()
    assert strict(benchmark, table)["accuracy"].value == 0  # both orders: it ties everywhere, and no row is a tie
    used = as_drawn(table, benchmark.drawn, orders="both", aggregate="mean", seed=0)
    drawn = benchmark.published(used.table)
    assert 0.45 < drawn["accuracy"] < 0.55
    assert 0.45 < drawn["accuracy_unscored_wrong"] < 0.55
    _, given = judged("vl-rewardbench", folder, tmp_path / "given.jsonl", "first", both_orders=False)
    assert benchmark.published(given)["accuracy"] == 1245 / 1250  # the trap: one order, as the file has it
    _, seeded = judged("vl-rewardbench", folder, tmp_path / "seeded.jsonl", "first", order_seed=0)
    assert 0.45 < strict(benchmark, seeded)["accuracy"].value < 0.55


@pytest.mark.slow
def test_two_runs_over_images_share_their_verdicts(vl_rewardbench, tmp_path):
    folder, _ = vl_rewardbench
    with Store(tmp_path / "store.db") as store:
        judged("vl-rewardbench", folder, tmp_path / "one.jsonl", "longer", ledger=Ledger(store))
        num_bought = len(store)
        engine = ScriptedEngine(SCRIPTS["mute"], name="scripted")  # would leave every row unscored
        benchmark = load_benchmark("vl-rewardbench")
        judge = Judge(engine, load_template(benchmark.template), ledger=Ledger(store))
        items = map(item_of, benchmark.rows(open_folder(benchmark.source, folder)))
        asyncio.run(judge_to_file(judge, items, tmp_path / "two.jsonl"))
    assert (engine.num_calls, num_bought) == (0, 2 * 1250)
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()
