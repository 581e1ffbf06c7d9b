"""How sure a judge was of one request: one number from its votes and its orders. Pure.

The share of the replies that say what the judgment says, each order counting alike:

    orders        votes                 judgment    confidence
    (0, 1)        0 0 0 0                  0
    (1, 0)        0 0 0 1                  0        (1 + 3/4) / 2 = 0.875
    (0, 1)        0 0 0 0                  tie
    (1, 0)        1 1 1 1                  tie      0: it follows the place, and no reply called it a tie

- What a reply says is whom it prefers, a tie being a choice like any other. Replies that cannot be read say nothing.
- One completion alone has nobody to be preferred: there it is how near the scores lie to each other, 1 less their
  standard deviation over the most that the scale allows, half of its width.
- ``None`` where there is no verdict, and where one reply is all there is: it agrees with itself, whatever it says.

A vote that ended early counts by the replies that were read, which agree more than all of them would: compare such
judgments with each other alone. It is no probability of being right; ``flexreward eval`` tells how far it is to be
believed, and ``--calibrate`` makes a probability of scores.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flexreward.types import OrderOutcome, Outcome, Scale


def confidence(outcome: Outcome, orders: Sequence[OrderOutcome]) -> float | None:
    """From 0 to 1; the same whichever completion comes first in the request.

    Args:
        outcome: All orders together.
        orders: What each of them is made of, scores in the order of the request.
    """
    from flexreward.types import Unscored, Verdict

    if isinstance(outcome, Unscored):
        return None
    read = [[vote.outcome for vote in one.votes if isinstance(vote.outcome, Verdict)] for one in orders]
    if sum(map(len, read)) < 2 or not all(read):
        return None
    if len(outcome.scores) == 1:
        return statistics.fmean(_nearness([one.scores[0] for one in said], outcome.scale) for said in read)
    return statistics.fmean(sum(one.preferred == outcome.preferred for one in said) / len(said) for said in read)


def _nearness(scores: Sequence[float], scale: Scale) -> float:
    return max(1 - 2 * statistics.pstdev(scores) / (scale.high - scale.low), 0.0)
