import math
from dataclasses import replace

import numpy as np
import pytest

from flexreward.evals.base import Drawn
from flexreward.evals.drawn import as_drawn
from flexreward.evals.table import Table, table_of
from flexreward.order import drawn as drawn_order

NAN = math.nan


def table(num_rows: int = 4, *, orders: int = 2, votes: int = 1, unread: tuple[int, ...] = ()) -> Table:
    """Each vote's scores say where they come from: 100 a row, 10 an order, 1 a vote; the rival has half a point."""
    lines = []
    for n in range(num_rows):
        asked = []
        for o in range(orders):
            cast = [
                {"scores": None if n in unread else [100.0 * n + 10 * o + k, 0.5], "reason": None, "reply": "xx"}
                for k in range(votes)
            ]
            asked.append({"order": [0, 1][:: -1 if o else 1], "votes": cast})
        lines.append(
            {
                **{"id": f"r{n}", "human": [1, 0], "group": "", "systems": [], "words": [1, 1], "columns": {}},
                **{"orders": asked, "reason": "no_answer" if n in unread else None, "tokens": {"completion": 1}},
                "scores": None if n in unread else [1.0, 0.5],
            }
        )
    return table_of(lines)


def test_what_was_drawn_alike_is_used_whole():
    for orders, count in (("both", 2), ("given", 1), ("random", 1)):
        rows = table(orders=count)
        used = as_drawn(rows, Drawn(orders=orders), orders=orders, aggregate="mean", seed=0)
        assert used.table is rows
        assert used.says == "every reply of this run"


def test_of_both_orders_the_order_of_the_file_is_used_where_the_source_shows_no_other():
    used = as_drawn(table(votes=2), Drawn(orders="given", samples=2), orders="both", aggregate="mean", seed=0)
    assert used.table.votes_NOKC.shape == (4, 1, 2, 2)
    assert used.table.votes_NOKC[3, 0, :, 0].tolist() == [300, 301]
    assert used.table.first_NO.tolist() == [[0]] * 4
    assert used.table.scores_NC[:, 0].tolist() == [0.5, 100.5, 200.5, 300.5]
    assert used.says == "the order of the file"


def test_of_both_orders_one_is_drawn_a_row_as_a_judge_would_draw_it():
    rows = table(200)
    used = as_drawn(rows, Drawn(orders="random"), orders="both", aggregate="mean", seed=7).table
    firsts = [drawn_order(2, id=f"r{n}", seed=7)[0] for n in range(200)]
    assert used.first_NO[:, 0].tolist() == firsts
    assert 60 < sum(firsts) < 140
    assert (used.votes_NOKC[:, 0, 0, 0] % 100).tolist() == [10 * first for first in firsts]
    other = as_drawn(rows, Drawn(orders="random"), orders="both", aggregate="mean", seed=8).table
    assert other.first_NO.tolist() != used.first_NO.tolist()


def test_of_more_votes_the_first_are_used():
    used = as_drawn(table(votes=5), Drawn(orders="both", samples=3), orders="both", aggregate="median", seed=0)
    assert used.table.votes_NOKC.shape == (4, 2, 3, 2)
    assert used.table.scores_NC[0].tolist() == [6, 0.5]  # the mean of the orders' medians, 1 and 11
    assert used.says == "both orders, the first 3 of 5 votes"


@pytest.mark.parametrize(
    ("drawn", "orders", "says"),
    [
        (
            Drawn(orders="both"),
            "given",
            "every reply of this run; its source shows both orders, this run the order of the file",
        ),
        (
            Drawn(orders="random"),
            "given",
            "every reply of this run; its source shows one drawn order a row, this run the order of the file",
        ),
        (
            Drawn(orders="both", samples=7),
            "both",
            "every reply of this run; its source draws 7 replies a prompt, this run 1",
        ),
        (Drawn(samples=7), "both", "the order of the file; its source draws 7 replies a prompt, this run 1"),
    ],
)
def test_what_a_run_lacks_is_said(drawn, orders, says):
    rows = table(orders=2 if orders == "both" else 1)
    assert as_drawn(rows, drawn, orders=orders, aggregate="mean", seed=0).says == says


def test_what_was_unread_stays_so_with_its_reason():
    used = as_drawn(table(unread=(2,)), Drawn(), orders="both", aggregate="mean", seed=0).table
    assert used.reasons == ("", "", "no_answer", "")
    assert np.isnan(used.scores_NC[2]).all()


def test_a_row_that_only_the_other_order_lost_is_scored():
    rows = table(1)
    votes_NOKC = rows.votes_NOKC.copy()
    votes_NOKC[0, 1] = NAN
    lost = replace(rows, votes_NOKC=votes_NOKC, scores_NC=np.full((1, 2), NAN), reasons=("quorum",))
    used = as_drawn(lost, Drawn(), orders="both", aggregate="mean", seed=0).table
    assert used.reasons == ("",)
    assert used.scores_NC[0].tolist() == [0, 0.5]


def test_ratings_have_no_order():
    lines = [
        {
            **{"id": "a", "human": [3.0], "group": "", "systems": [], "words": [1], "columns": {}, "scores": [3.0]},
            **{"reason": None, "tokens": {"completion": 1}},
            "orders": [{"order": [0], "votes": [{"scores": [3.0], "reason": None, "reply": ""}]}],
        }
    ]
    for orders in ("given", "both", "random"):
        used = as_drawn(table_of(lines), Drawn(orders=orders), orders="given", aggregate="mean", seed=0)
        assert used.says == "every reply of this run"
