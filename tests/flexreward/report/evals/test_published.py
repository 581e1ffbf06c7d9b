"""The file of other judges' figures fits the benchmarks that are there."""

from __future__ import annotations

from typing import Any

import pytest

from flexreward.evals import BENCHMARKS, load_benchmark
from flexreward.evals.table import Table, table_of
from flexreward.report.evals.figures import same_name
from flexreward.report.evals.published import entries, published
from flexreward.report.figures import figure_text, higher_is_better, is_share

NAMED = sorted({entry["benchmark"] for entry in entries()})


def made_up(task: str) -> Table:
    """Six rows that any benchmark's figures can be computed of."""
    num = {"rating": 1, "pair": 2}.get(task, 4)
    rows: list[dict[str, Any]] = []
    for i in range(6):
        human = [1.0 + i % 4] if num == 1 else [float((i + j) % num == 0) for j in range(num)]
        scores = [1.0 + (3 * i + j) % 5 for j in range(num)]
        vote = {"scores": scores, "reason": None, "reply": "x"}
        orders = [
            {"order": order, "scores": scores, "votes": [vote] * 3} for order in ([*range(num)], [*range(num)][::-1])
        ]
        rows.append(
            {
                "id": str(i),
                "group": f"group {i % 2}",
                "systems": [f"system {i % 3}"] * num,
                "human": human,
                "words": [3] * num,
                "columns": {"ranking": "ABCD", "votes": [0, 1], "system_score": 3.0 + i % 3},
                "reason": None,
                "scores": scores,
                "orders": orders,
                "tokens": {"completion": 3},
            }
        )
    return table_of(rows)


@pytest.mark.parametrize("name", NAMED)
def test_every_figure_of_the_file_is_one_that_the_benchmark_computes(name: str):
    assert name in BENCHMARKS
    benchmark = load_benchmark(name)
    computed = {figure.partition("/")[0] for figure in benchmark.published(made_up(benchmark.task))}
    assert {figure.partition("/")[0] for figure in published(name)} <= computed
    for figure, others in published(name).items():
        assert len({other.judge for other in others}) == len(others), figure
        assert all(other.source for other in others)
        assert all(-1 <= other.value <= 1 for other in others)


def test_figures_are_shown_as_papers_print_them():
    assert figure_text(0.7828, "accuracy/maths") == "78.28\u00a0%"
    assert figure_text(0.424, "pearson_over_groups") == "0.424"
    assert is_share("tie_calibrated_accuracy")
    assert not is_share("tie_calibrated_epsilon")
    assert not higher_is_better("levenshtein/coco")
    assert higher_is_better("system_spearman")


def test_a_group_is_known_by_its_letters():
    assert same_name("accuracy/MM-Vet", "accuracy/mmvet")
    assert not same_name("accuracy/coco", "accuracy_without_ties/coco")
    assert not same_name("accuracy/coco", "accuracy/cc-3m")
