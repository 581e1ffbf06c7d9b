"""Which of a run's replies the published figures are computed from: those that its source would have drawn.

The strict figures use every reply. Where a run has more than the source drew (both orders, more votes) the published
ones use a part of them, and where it has other ones they use what there is; either way a sentence says so.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from flexreward.evals.base import Drawn, Orders
from flexreward.evals.recount import outcomes, read
from flexreward.evals.table import Table
from flexreward.order import drawn as drawn_order
from flexreward.types import Reason

ORDERS: dict[Orders, str] = {"given": "the order of the file", "both": "both orders", "random": "one drawn order a row"}


class AsDrawn(NamedTuple):
    """Rows as the source would have them."""

    table: Table
    says: str
    """Which replies these are, for a person."""


def as_drawn(
    table: Table,
    drawn: Drawn,
    *,
    orders: Orders,
    aggregate: str,
    seed: int,
    image_size: tuple[int, int] | None = None,
) -> AsDrawn:
    """The table with the replies that ``drawn`` speaks of, as far as it has them.

    Args:
        orders: How the run showed its completions.
        seed: Of the order that is chosen for each row, where the run has both and the source draws one.
        image_size: What the run brought its images to.
    """
    other = [] if image_size == drawn.image_size else [_sizes(drawn.image_size, image_size)]
    num_votes = table.votes_NOKC.shape[2]
    several = bool((table.count_N > 1).any())
    used = table
    wanted = drawn.orders if several else orders
    if orders == "both" and wanted != "both":
        used = _one_order(used, _chosen(table, wanted, seed))
    if num_votes > drawn.samples:
        used = replace(
            used,
            votes_NOKC=used.votes_NOKC[:, :, : drawn.samples],
            reasoning_NOK=used.reasoning_NOK[:, :, : drawn.samples],
        )
    if used is table:
        return AsDrawn(table, _says("every reply of this run", drawn, wanted, orders, num_votes, several, other))
    part = ORDERS[wanted] if several else "each row"
    votes = f", the first {drawn.samples} of {num_votes} votes" if num_votes > drawn.samples else ""
    says = _says(part + votes, drawn, wanted, orders, num_votes, several, other)
    return AsDrawn(_settled(used, table, aggregate), says)


def _sizes(theirs: tuple[int, int] | None, ours: tuple[int, int] | None) -> str:
    named = [f"at {size[0]} x {size[1]} pixels" if size else "as they are" for size in (theirs, ours)]
    return f"its source shows images {named[0]}, this run {named[1]}"


def _says(
    used: str, drawn: Drawn, wanted: Orders, orders: Orders, num_votes: int, several: bool, other: list[str]
) -> str:
    if several and wanted != orders and orders != "both":
        other.append(f"its source shows {ORDERS[wanted]}, this run {ORDERS[orders]}")
    if num_votes < drawn.samples:
        other.append(f"its source draws {drawn.samples} replies a prompt, this run {num_votes}")
    return "; ".join([used, *other])


def _chosen(table: Table, wanted: Orders, seed: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """(N,) Which of a row's orders: the given one, or one drawn as a judge would draw it."""
    if wanted == "given":
        return np.zeros(len(table), dtype=np.int64)
    flips = [
        drawn_order(2, id=name, seed=seed)[0] if count > 1 else 0
        for name, count in zip(table.ids, table.count_N.tolist(), strict=True)
    ]
    return np.array(flips, dtype=np.int64)


def _one_order(table: Table, chosen_N: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Table:
    # A row that was asked in one order has nothing to choose from.
    chosen_N = np.minimum(chosen_N, np.maximum((table.first_NO >= 0).sum(axis=1) - 1, 0))
    rows = np.arange(len(table))
    return replace(
        table,
        votes_NOKC=table.votes_NOKC[rows, chosen_N][:, None],
        first_NO=table.first_NO[rows, chosen_N][:, None],
        reasoning_NOK=table.reasoning_NOK[rows, chosen_N][:, None],
    )


def _settled(used: Table, whole: Table, aggregate: str) -> Table:
    """The outcomes of the replies that are left."""
    scores_NC = outcomes(used.votes_NOKC, used.first_NO >= 0, aggregate)
    reasons = tuple(
        "" if scored else reason or Reason.QUORUM.value
        for scored, reason in zip((~np.isnan(scores_NC[:, 0])).tolist(), whole.reasons, strict=True)
    )
    unread = int((~read(used.votes_NOKC) & (used.first_NO >= 0)[..., None]).sum())
    # Which of the reasons belongs to which reply is not known here; where all replies are used they are all told.
    reply_reasons = whole.reply_reasons if len(whole.reply_reasons) == unread else ()
    return replace(used, scores_NC=scores_NC, reasons=reasons, reply_reasons=reply_reasons)
