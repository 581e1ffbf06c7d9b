"""Scores as choices: who wins a row, a tie, or nothing to read. What most published figures are made of.

Letters of the shapes: see ``flexreward.evals.table``.
"""

from __future__ import annotations

import numpy as np

from flexreward.evals.base import Figures
from flexreward.evals.table import Floats, Ints, Table

TIE = -1
UNREAD = -2


def winners(scores_NC: Floats) -> Ints:
    """(N,) the index of the best completion, TIE where the best score is shared, UNREAD where nothing was read."""
    read_N = ~np.isnan(scores_NC[:, 0])
    filled_NC = np.where(np.isnan(scores_NC), -np.inf, scores_NC)
    shared_N = (filled_NC == filled_NC.max(axis=1, keepdims=True)).sum(axis=1) > 1
    choice_N = np.where(shared_N, TIE, filled_NC.argmax(axis=1))
    return np.where(read_N, choice_N, UNREAD).astype(np.int64)


def said(table: Table) -> Ints:
    """(N,) whom people prefer: an index, or TIE. Two bad completions are a tie too."""
    return winners(table.human_NC)


def in_slot_one(table: Table, index: int, *, vote: int = 0) -> Floats:
    """(N, C) scores of the reply that saw completion ``index`` first; NaN where there is none, or it was unread."""
    scores_NC = np.full(table.human_NC.shape, np.nan)
    for o in range(table.first_NO.shape[1]):
        here_N = table.first_NO[:, o] == index
        scores_NC[here_N] = table.votes_NOKC[here_N, o, vote]
    return scores_NC


def three_way(said_N: Ints, chosen_N: Ints) -> Figures:
    """Accuracy and macro precision, recall and F1 over first, second and tie; a class that is never chosen has 0.

    Args:
        chosen_N: No UNREAD: each source has its own idea of what becomes of those.
    """
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support

    if not len(said_N):
        return dict.fromkeys(("accuracy", "macro_precision", "macro_recall", "macro_f1"), float("nan"))
    precision, recall, f1, _ = precision_recall_fscore_support(
        said_N, chosen_N, labels=[0, 1, TIE], average="macro", zero_division=0
    )
    return {
        "accuracy": float(accuracy_score(said_N, chosen_N)),
        "macro_precision": float(precision),
        "macro_recall": float(recall),
        "macro_f1": float(f1),
    }


def unread_as(choice: int, chosen_N: Ints) -> Ints:
    """``chosen_N`` with ``choice`` in the place of UNREAD."""
    return np.where(chosen_N == UNREAD, choice, chosen_N)


def share_right(table: Table) -> Floats:
    """(N,) in what share of the orders shown the first reply names what people prefer; unread is not right.

    The expected accuracy of a protocol that shows each row in one order drawn at random.
    """
    shown_NO = table.first_NO >= 0
    right_NO = np.stack(
        [winners(table.votes_NOKC[:, o, 0]) == said(table) for o in range(table.first_NO.shape[1])], axis=1
    )
    return np.asarray((right_NO & shown_NO).sum(axis=1) / np.maximum(shown_NO.sum(axis=1), 1), dtype=np.float64)
