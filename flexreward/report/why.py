"""One sentence for a newcomer on why a completion was picked, or what became of a comparison."""

from __future__ import annotations

from collections.abc import Sequence

from flexreward.report.page import CompletionView, OrderView
from flexreward.report.words import in_words, listed, number, sentence


def why_picked(views: Sequence[CompletionView]) -> str:
    """Of several completions judged one at a time."""
    picked = [view for view in views if view.picked]
    if not picked:
        return "Nothing was picked: no completion got a score."
    score = number(picked[0].score)
    if len(picked) == 1:
        told = f"{picked[0].label} is picked: its score, {score}, is the highest."
    else:
        names = listed([view.label for view in picked])
        told = f"{names} share the highest score, {score}: one of them is drawn at random."
    wrong = [view.label for view in picked if view.right is False]
    if not wrong:
        return told
    if not any(view.right for view in views):
        return f"{told} A wrong pick, but no completion is right."
    if len(wrong) < len(picked):
        return f"{told} {listed(wrong)} {'is' if len(wrong) == 1 else 'are'} wrong: the judge took it for right."
    return f"{told} A wrong pick: no right completion got a score as high."


def why_kept(status: str, reason: str, orders: Sequence[OrderView], views: Sequence[CompletionView]) -> str:
    """Of completions judged against each other."""
    if disagreement([order.prefers for order in orders if order.scores]):
        told = "the judge contradicts itself"
        told = f"Dropped: {told}" if status == "dropped" else told
        said = sentence(listed([f"with {order.shown[0]} shown first it {_said(order)}" for order in orders]))
        return f"{sentence(told)} {said} Such a verdict follows the place, not the completion, and would teach noise."
    if status == "tied" or reason == "tied":
        return (
            "Tied: both get the same score. That is a real verdict, but there is nothing to prefer, so no pair is made."
        )
    if unread := [f"with {o.shown[0]} shown first" for o in orders if o.scores is None and o.shown]:
        told = f"{listed(unread)} no score could be read"
        told = f"Dropped: {told}" if status == "dropped" else told
        return f"{sentence(told)} Half an answer never stands in for a whole one."
    if status in ("dropped", "unscored"):
        return sentence(f"{status}: {in_words(reason)}")
    return _agreed(status, orders, views)


def disagreement(winners: Sequence[object | None]) -> str:
    """``flipped``: the orders name different winners. ``half_tied``: one of them sees a tie. Else empty."""
    named = set(winners)
    return "" if len(named) < 2 else "half_tied" if len(named - {None}) < 2 else "flipped"


def _agreed(status: str, orders: Sequence[OrderView], views: Sequence[CompletionView]) -> str:
    winner = next((order.prefers for order in orders if order.prefers), None)
    if winner is None:
        return "A tie: the best score is shared."
    told = f"the judge prefers {winner}"
    if len(orders) > 1:
        told = f"both orders prefer {winner}, so the verdict does not hang on the place"
    told = sentence(f"Kept: {told}" if status == "kept" else told)
    match next((view.right for view in views if view.label == winner), None):
        case None:
            return told
        case True:
            return f"{told} {winner} is right."
    if any(view.right for view in views):
        return f"{told} But {winner} is wrong: the judge is sure and mistaken."
    return f"{told} Neither is right, so the pair teaches little."


def _said(order: OrderView) -> str:
    if order.scores is None:
        return "cannot be read"
    return f"prefers {order.prefers}" if order.prefers else "sees a tie"
