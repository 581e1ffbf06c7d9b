import math
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from flexreward.evals import strict as module
from flexreward.evals.strict import MAIN, strict
from flexreward.evals.table import Table, table_of
from flexreward.evals.winners import TIE, said, three_way, winners

FIRST, SECOND, TIED = [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]


def line(scores: list[float] | None, human: list[float], **other: Any) -> dict[str, Any]:
    """A row that was shown once, or with ``orders`` as often as there are scores in it, forward and reversed."""
    orders = other.pop("orders", [scores])
    votes = [{"scores": one, "reason": None if one else "no_answer", "reply": ""} for one in orders]
    places = list(range(len(human)))
    return {
        **{"id": "", "human": human, "group": "", "systems": [], "words": [1] * len(human), "columns": {}},
        **{"scores": scores, "reason": None if scores else "quorum", "tokens": {"prompt": 1, "completion": 1}},
        "orders": [{"order": places[:: -1 if i else 1], "votes": [vote]} for i, vote in enumerate(votes)],
        **other,
    }


def table(*lines: dict[str, Any]) -> Table:
    return table_of(one | {"id": str(number)} for number, one in enumerate(lines))


def values(task: str, rows: Table) -> dict[str, float]:
    return {name: one.value for name, one in strict(SimpleNamespace(task=task), rows).items()}


PAIRS = table(
    line([8, 3], FIRST),
    line([8, 3], FIRST),
    line([5, 5], FIRST),  # a tie where people have none
    line([5, 5], TIED),
    line([8, 3], [0.0, 0.0]),  # two bad completions are a tie too
    line([2, 4], SECOND),
    line(None, SECOND),
    line(None, TIED),
)


def test_pairs_by_hand():
    found = values("pair", PAIRS)
    assert found["accuracy"] == 4 / 6
    assert found["accuracy_without_ties"] == 3 / 4
    assert found["macro_recall"] == pytest.approx((2 / 3 + 1 + 1 / 2) / 3)
    assert found["macro_precision"] == pytest.approx((2 / 3 + 1 + 1 / 2) / 3)
    assert found["base_rate"] == 3 / 6
    assert found["ties"] == 2 / 6
    assert found["kappa"] == pytest.approx((4 / 6 - 14 / 36) / (1 - 14 / 36))
    assert (found["tie_calibrated_accuracy"], found["tie_calibrated_epsilon"]) == (4 / 6, 0)


def test_what_is_unscored_is_counted_apart_and_told_both_ways():
    found = values("pair", PAIRS)
    assert found["unscored"] == 2 / 8
    assert found["accuracy_unscored_wrong"] == 4 / 8
    assert found["accuracy_without_ties_unscored_wrong"] == 3 / 5


def test_both_ways_are_one_where_everything_is_scored():
    found = strict(SimpleNamespace(task="pair"), PAIRS.where(PAIRS.scored_N))
    assert found["accuracy_unscored_wrong"] == found["accuracy"]
    assert found["unscored"].value == 0


def test_an_unread_reply_is_no_tie_though_many_sources_count_it_as_one():
    silent = table(line(None, TIED), line([1, 2], SECOND))
    assert values("pair", silent)["accuracy_unscored_wrong"] == 1 / 2


def test_figures_of_pairs_are_those_of_scikit_learn_over_three_classes():
    rng = np.random.default_rng(0)
    rows = table(*(line(rng.integers(1, 4, 2).tolist(), [FIRST, SECOND, TIED][rng.integers(3)]) for _ in range(200)))
    published, found = three_way(said(rows), winners(rows.scores_NC)), values("pair", rows)
    assert [found[name] for name in ("accuracy", "macro_precision", "macro_recall", "macro_f1")] == pytest.approx(
        list(published.values())
    )


def test_orders_that_disagree_are_inconsistent_and_right_in_both_only_when_each_is():
    rows = table(
        line([8, 3], FIRST, orders=[[8, 3], [8, 3]]),
        line([3, 8], FIRST, orders=[[3, 8], [3, 8]]),  # wrong, but the same both times
        line([5, 5], FIRST, orders=[[8, 3], [2, 7]]),
        line(None, FIRST, orders=[[8, 3], None]),
    )
    found = values("pair", rows)
    assert (found["accuracy_both"], found["consistency"]) == (1 / 3, 2 / 3)
    assert {"accuracy_both", "consistency"}.isdisjoint(values("pair", PAIRS))  # one order tells nothing of two


def test_groups_have_figures_and_their_plain_mean_weighs_none_by_its_rows():
    right, wrong = line([8, 3], FIRST, group="big"), line([3, 8], FIRST, group="big")
    rows = table(*[right] * 3, wrong, line([3, 8], FIRST, group="a/b"))
    found = strict(SimpleNamespace(task="pair"), rows)
    assert (found["accuracy/big"].value, found["accuracy/a/b"].value) == (3 / 4, 0)
    assert (found["accuracy/big"].n, found["accuracy_over_groups"].n) == (4, 5)
    assert found["accuracy"].value == 3 / 5
    assert found["accuracy_over_groups"].value == (3 / 4 + 0) / 2
    assert not any("group" in name or "/" in name for name in strict(SimpleNamespace(task="pair"), PAIRS))


def test_a_group_without_the_figure_is_left_out_of_the_mean():
    ratings = [line([s], [h], group=g) for g, s, h in [("a", 1, 1), ("a", 2, 3), ("a", 4, 4), ("b", 3, 1), ("b", 3, 5)]]
    found = strict(SimpleNamespace(task="rating"), table(*ratings))
    assert math.isnan(found["pearson/b"].value)
    assert found["pearson_over_groups"].value == found["pearson/a"].value
    assert found["mse_over_groups"].value == pytest.approx((1 / 3 + 4) / 2)


def test_ratings_by_hand():
    rows = table(line([2.0], [1.0]), line([3.0], [4.0]), line([4.0], [5.0]), line(None, [2.0]), line(None, [4.0]))
    found = values("rating", rows)
    assert found["mse"] == 1
    assert found["rmse"] == 1
    assert found["spearman"] == found["kendall"] == pytest.approx(1)
    assert found["pearson"] == pytest.approx(np.corrcoef([2, 3, 4], [1, 4, 5])[0, 1])
    # People's ratings go from 1 to 5: from 2 the other end is 5, from 4 it is 1.
    assert found["mse_unscored_wrong"] == pytest.approx((1 + 1 + 1 + 9 + 9) / 5)
    assert found["pearson_unscored_wrong"] == pytest.approx(np.corrcoef([2, 3, 4, 5, 1], [1, 4, 5, 2, 4])[0, 1])
    assert "system_pearson" not in found
    assert "auroc" not in found


def test_ratings_of_systems_are_those_of_their_means():
    rows = [("a", 1, 1), ("a", 3, 2), ("b", 4, 5), ("b", 2, 3), ("c", 5, 4), ("c", 5, 5)]
    found = strict(
        SimpleNamespace(task="rating"), table(*(line([s], [h], systems=[name]) for name, s, h in rows), line(None, [1]))
    )
    assert "system_mse" in found  # the row without a verdict has no system, and is left out
    judge, human = [2, 3, 5], [1.5, 4, 4.5]
    assert found["system_mse"].value == pytest.approx(np.mean((np.array(judge) - human) ** 2))
    assert found["system_pearson"].value == pytest.approx(np.corrcoef(judge, human)[0, 1])
    assert (found["system_kendall"].value, found["system_mse"].n) == (pytest.approx(1), 3)


def test_ratings_of_which_people_know_two_have_an_auroc():
    rows = table(line([9.0], [1]), line([4.0], [0]), line([4.0], [1]), line([2.0], [0]))
    assert values("rating", rows)["auroc"] == 3.5 / 4


def test_rankings_by_hand():
    human = [3.0, 2.0, 1.0, 0.0]
    rows = table(line([9, 7, 5, 1], human), line([7, 7, 5, 1], human), line([5, 5, 5, 5], human), line(None, human))
    found = values("ranking", rows)
    alike = 0.65625  # the mean distance of the 24 orders of four from one of them, 2.625 edits
    assert found["levenshtein"] == pytest.approx((0 + 1 / 4 + alike) / 3)
    assert found["levenshtein_unscored_wrong"] == pytest.approx((0 + 1 / 4 + alike + 1) / 4)
    assert found["concordance"] == pytest.approx((1 + 5.5 / 6 + 1 / 2) / 3)
    assert found["kendall"] == pytest.approx((1 + 5 / math.sqrt(5 * 6) + 0) / 3)
    assert found["ties"] == 2 / 3


def test_one_right_among_several_by_hand():
    rows = table(line([9, 1, 1], [1, 0, 0]), line([5, 5, 1], [1, 0, 0]), line([1, 9, 1], [1, 0, 0]), line(None, [1, 0]))
    found = values("best", rows)
    assert found["accuracy"] == (1 + 1 / 2 + 0) / 3
    assert found["accuracy_unscored_wrong"] == (1 + 1 / 2 + 0 + 0) / 4
    assert found["ties"] == 1 / 3


def test_rows_of_one_cluster_widen_the_interval():
    rng = np.random.default_rng(0)
    right = rng.random(100) < 0.7
    lines = [line([8, 3] if one else [3, 8], FIRST, columns={"cluster": i}) for i, one in enumerate(right)] * 4
    apart = strict(SimpleNamespace(task="pair"), table(*(one | {"columns": {}} for one in lines)))["accuracy"]
    together = strict(SimpleNamespace(task="pair"), table(*lines))["accuracy"]
    assert together.value == apart.value
    assert (together.high - together.low) / (apart.high - apart.low) == pytest.approx(2, rel=0.2)


@pytest.mark.parametrize("task", MAIN)
def test_a_run_of_which_nothing_is_scored_has_no_figure_but_that(task):
    found = strict(SimpleNamespace(task=task), table(*[line(None, [1.0] if task == "rating" else FIRST)] * 3))
    assert found["unscored"].value == 1
    left = [one for name, one in found.items() if not name.endswith(("unscored", "unscored_wrong"))]
    assert left
    assert all(math.isnan(one.value) and one.n == 0 for one in left)


@pytest.mark.parametrize("task", MAIN)
def test_every_figure_is_named_in_the_docstring_and_has_an_interval_around_it(task):
    rng = np.random.default_rng(0)
    count = {"rating": 1, "pair": 2, "ranking": 4, "best": 4}[task]
    lines = []
    for number in range(120):
        human = rng.permutation(count).astype(float).tolist() if count > 1 else [float(rng.integers(1, 6))]
        human = [float(one == max(human)) for one in human] if task in ("pair", "best") else human
        scores = [float(np.clip(round(one + rng.normal(3, 1)), 1, 9)) for one in human]
        other = {"group": "ab"[number % 2], "systems": [f"s{number % 20}"] * count, "orders": [scores, scores]}
        lines.append(line(scores if number % 9 else None, human, **other))
    named = set(re.findall(r"``(\w+)``", module.__doc__))
    for name, one in strict(SimpleNamespace(task=task), table(*lines)).items():
        assert one.low <= one.value <= one.high, name
        base = name.partition("/")[0].removesuffix("_over_groups").removesuffix("_unscored_wrong")
        assert base in named, name


def test_ties_are_where_the_best_score_is_shared():
    assert winners(np.array([[5.0, 5, 1], [5, 4, 4]])).tolist() == [TIE, 0]
