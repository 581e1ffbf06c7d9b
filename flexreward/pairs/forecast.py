"""What a run of pairs will come to, from a few of its prompts judged for real: how many pairs are likely kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from flexreward.files.samples import Sample
from flexreward.pairs.balance import Balance
from flexreward.pairs.build import Plan, sorted_out_by
from flexreward.pairs.study import KEPT, share


class Range(NamedTuple):
    """A likely number, and between which it lies in 95 of 100 draws like this one."""

    value: int
    low: int
    high: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Yield:
    """Pairs that are likely kept of all prompts."""

    kept: Range
    by_outcome: Mapping[str, int]
    """Of the pairs that were judged."""
    num_prompts: int
    """Measured."""
    total: int
    """Prompts."""

    def line(self) -> str:
        """For a person."""
        judged = sum(self.by_outcome.values())
        told = f"about {self.kept.value} pairs kept ({self.kept.low} to {self.kept.high}) of {self.total} prompts"
        dropped = [f"{count} {name}" for name, count in self.by_outcome.items() if name != KEPT]
        reasons = f" ({', '.join(dropped)})" if dropped else ""
        return f"{told}: {self.by_outcome.get(KEPT, 0)} of {judged} pairs were, of {self.num_prompts} prompts{reasons}"

    def as_json(self) -> dict[str, Any]:
        return {
            "kept": self.kept._asdict(),
            "by_outcome": dict(self.by_outcome),
            "prompts": {"measured": self.num_prompts, "total": self.total},
        }


def likely(samples: Iterable[Sample], rows: Iterable[Mapping[str, Any]], plan: Plan, *, num: int, total: int) -> Yield:
    """From prompts drawn evenly to all ``total``.

    Pairs of one prompt go together, so prompts are what is drawn again for the interval; where a prompt gives one pair
    at most, or all give the same, it is Wilson's.

    Args:
        samples: Those that have completions, in order.
        rows: The outcomes of their pairs.
        num: Prompts that were drawn, those without completions included.
    """
    sorted_out = list(sorted_out_by(samples, iter(rows), plan))
    balance = Balance(plan.balance, seed=plan.seed)
    for one in sorted_out:
        for pair, reason in one.pairs:
            if reason is None:
                balance.show(pair)
    counts: Counter[str] = Counter()
    kept = []
    for one in sorted_out:
        reasons = [reason or balance.reason(pair) for pair, reason in one.pairs]
        counts.update(reason or KEPT for reason in reasons)
        kept.append(reasons.count(None))
    kept += [0] * (num - len(kept))
    by_outcome = dict(sorted(counts.items(), key=lambda item: (item[0] != KEPT, -item[1], item[0])))
    return Yield(kept=_range(kept, counts, total), by_outcome=by_outcome, num_prompts=num, total=total)


def _range(kept: list[int], counts: Counter[str], total: int) -> Range:
    """Of all prompts, from the number kept of each that was measured."""
    if not kept:
        return Range(0, 0, 0)
    if len(set(kept)) > 1 and max(kept) > 1:
        from flexreward.pairs.best_of_n import estimate

        return Range(*(round(total * value) for value in estimate(kept)))
    # Prompts with a pair, or pairs: each is kept or is not.
    most = max(counts.total(), len(kept)) if max(kept) > 1 else len(kept)
    found = share(sum(kept), most)
    scale = total * most / len(kept)
    return Range(*(round(scale * found[name]) for name in ("value", "low", "high")))
