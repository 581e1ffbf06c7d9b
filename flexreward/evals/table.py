"""Outcomes of a benchmark as arrays: what every figure is computed from.

Letters of the shapes: N rows, O orders, K votes, C completions. Rows with fewer completions, orders or votes than the
most are padded with NaN, and so is everything that could not be read: NaN is never a score.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Bools: TypeAlias = NDArray[np.bool_]
Ints: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Table:
    """What people said and what the judge said, row by row."""

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    systems: tuple[tuple[str, ...], ...]
    human_NC: Floats
    votes_NOKC: Floats
    """Each vote's scores in the order of the request, whatever order the judge saw."""
    first_NO: Ints
    """Which completion stood in slot 1; -1 where there was no such order."""
    scores_NC: Floats
    """The outcome: votes and orders together; NaN where it is unscored."""
    reasons: tuple[str, ...]
    """Why a row is unscored, empty where it is scored."""
    reply_reasons: tuple[str, ...]
    """The same for each reply, in no order of use but for counting."""
    words_NC: Floats
    """Length of each completion in words; NaN where it is no text."""
    reasoning_NOK: Floats
    """Length of each reply in characters."""
    tokens_N: Floats
    """Tokens that the judge wrote."""
    columns: tuple[Mapping[str, Any], ...]

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def count_N(self) -> Ints:
        """Completions of each row."""
        return (~np.isnan(self.human_NC)).sum(axis=1).astype(np.int64)  # type: ignore[no-any-return]

    @cached_property
    def scored_N(self) -> Bools:
        return ~np.isnan(self.scores_NC[:, 0])

    @cached_property
    def group_names(self) -> tuple[str, ...]:
        """In the order of their first row."""
        return tuple(dict.fromkeys(self.groups))

    def where(self, keep_N: Bools) -> Table:
        """The rows where ``keep_N`` is true, in their order."""
        places = np.flatnonzero(keep_N)

        def of(values: Sequence[Any]) -> tuple[Any, ...]:
            return tuple(values[i] for i in places.tolist())

        return Table(
            ids=of(self.ids),
            groups=of(self.groups),
            systems=of(self.systems),
            human_NC=self.human_NC[places],
            votes_NOKC=self.votes_NOKC[places],
            first_NO=self.first_NO[places],
            scores_NC=self.scores_NC[places],
            reasons=of(self.reasons),
            reply_reasons=(),
            words_NC=self.words_NC[places],
            reasoning_NOK=self.reasoning_NOK[places],
            tokens_N=self.tokens_N[places],
            columns=of(self.columns),
        )

    def by_group(self) -> dict[str, Table]:
        """A table a group, in the order of ``group_names``."""
        groups = np.array(self.groups, dtype=object)
        return {name: self.where(groups == name) for name in self.group_names}


def table_of(outcomes: Iterable[Mapping[str, Any]]) -> Table:
    """The lines of an eval's outcome file (see ``flexreward.files.outcomes``), in its order.

    Each line carries ``human``, ``group``, ``systems``, ``words`` and ``columns`` beside what every outcome has.
    """
    rows = list(outcomes)
    num_c = max((len(row["human"]) for row in rows), default=1)
    num_o = max((len(row["orders"]) for row in rows), default=1)
    num_k = max((len(order["votes"]) for row in rows for order in row["orders"]), default=1) or 1
    human_NC = np.full((len(rows), num_c), np.nan)
    scores_NC, words_NC = human_NC.copy(), human_NC.copy()
    votes_NOKC = np.full((len(rows), num_o, num_k, num_c), np.nan)
    reasoning_NOK = np.full((len(rows), num_o, num_k), np.nan)
    first_NO = np.full((len(rows), num_o), -1, dtype=np.int64)
    reply_reasons = []
    for n, row in enumerate(rows):
        human_NC[n, : len(row["human"])] = row["human"]
        words_NC[n, : len(row["words"])] = [np.nan if words is None else words for words in row["words"]]
        if row["scores"] is not None:
            scores_NC[n, : len(row["scores"])] = row["scores"]
        for o, order in enumerate(row["orders"]):
            first_NO[n, o] = order["order"][0]
            for k, vote in enumerate(order["votes"]):
                reasoning_NOK[n, o, k] = len(vote["reply"])
                if vote["scores"] is None:
                    reply_reasons.append(str(vote["reason"]))
                else:
                    votes_NOKC[n, o, k, : len(vote["scores"])] = vote["scores"]
    return Table(
        ids=tuple(str(row["id"]) for row in rows),
        groups=tuple(str(row["group"]) for row in rows),
        systems=tuple(tuple(row["systems"]) for row in rows),
        human_NC=human_NC,
        votes_NOKC=votes_NOKC,
        first_NO=first_NO,
        scores_NC=scores_NC,
        reasons=tuple(str(row["reason"] or "") for row in rows),
        reply_reasons=tuple(reply_reasons),
        words_NC=words_NC,
        reasoning_NOK=reasoning_NOK,
        tokens_N=np.array([row["tokens"]["completion"] for row in rows], dtype=np.float64),
        columns=tuple(row["columns"] for row in rows),
    )
