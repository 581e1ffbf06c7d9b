"""What a server has done: counts that add up over its processes, a short history, and the last verdicts to read.

    Tally (each ingress copy, as it judges) -> Delta (now and then) -> Board (their one owner) -> the page, /metrics

The names of the counts are those that Prometheus reads; ``COUNTS`` says what each means.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf
from time import time
from typing import Any, NamedTuple

from flexreward.reward import rewards
from flexreward.types import JudgeRequest, Judgment, Media, Text, Unscored, Verdict

COUNTS = {
    "flexreward_judgments_total": "Judgments that ended, by status: scored or unscored.",
    "flexreward_unscored_total": "Judgments without a verdict, by reason.",
    "flexreward_kept_total": "Judgments whose replies were all found in the store.",
    "flexreward_replies_total": "Replies of the judge, by whether a verdict could be read from them.",
    "flexreward_orders_total": "Judgments read in both orders, by whether the winner changed with the order.",
    "flexreward_completion_tokens_total": "Tokens that the judge wrote, those found in the store left out.",
    "flexreward_refused_total": "Calls that were refused because they could not be answered in time.",
    "flexreward_judgment_seconds": "Seconds from request to judgment, as a histogram.",
    "flexreward_rewards": "Rewards, as a histogram: where they all lie in one bucket, there is nothing to learn.",
}
"""What is counted for each judge, by Prometheus's name."""
GAUGES = {
    "flexreward_waiting": "Judgments accepted and not yet answered.",
    "flexreward_awake": "1 for a judge that is awake, 0 for one that sleeps, falls asleep or wakes.",
    "flexreward_ingress_copies": "Ingress copies that were heard of in the last seconds.",
}
SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 300.0, inf)
REWARDS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, inf)
"""Upper ends of the buckets."""
BIN_S = 5
"""Seconds that a point of the history stands for."""
NUM_BINS = 120
NUM_VERDICTS = 20
FRESH_S = 15.0
"""Without a word from it for so long, an ingress copy is no longer counted."""
LONGEST = 2_000
"""Characters of a text on the page."""


class Count(NamedTuple):
    """What one number counts."""

    name: str
    labels: tuple[tuple[str, str], ...]


class Read(NamedTuple):
    """A verdict to be read by a person."""

    at_s: float
    """Unix time."""
    judge: str
    prompt: str
    completions: tuple[str, ...]
    rewards: tuple[float | None, ...]
    reason: str
    """Why it is unscored; empty where it is scored."""
    reasoning: str
    """A reply of the judge."""
    seconds: float


class Crowd(NamedTuple):
    """The copies of the ingress."""

    num: int
    busy: Mapping[str, int]
    """How many of them have judgments to do, by judge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """What one process has counted since it last said so."""

    counts: Mapping[Count, float]
    history: Mapping[int, tuple[int, int, float]]
    """By bin of ``BIN_S`` seconds: judgments scored, unscored, and the seconds of all of them."""
    verdicts: tuple[Read, ...]
    waiting: Mapping[str, int]
    """By judge: judgments accepted and not yet answered."""


class Tally:
    """Counts in one process. For one event loop."""

    def __init__(self, *, clock: Callable[[], float] = time) -> None:
        self._clock = clock
        self._fresh()

    def judged(self, judge: str, request: JudgeRequest, judgment: Judgment) -> None:
        """Count one judgment."""
        outcome, scored = judgment.outcome, isinstance(judgment.outcome, Verdict)
        self._add("flexreward_judgments_total", judge, status="scored" if scored else "unscored")
        if isinstance(outcome, Unscored):
            self._add("flexreward_unscored_total", judge, reason=outcome.reason.value)
        if judgment.cached:
            self._add("flexreward_kept_total", judge)
        else:
            self._add("flexreward_completion_tokens_total", judge, judgment.completion_tokens)
        votes = [vote for order in judgment.orders for vote in order.votes]
        for vote in votes:
            self._add("flexreward_replies_total", judge, read=_said(isinstance(vote.outcome, Verdict)))
        if len(judgment.orders) > 1 and judgment.consistent is not None:
            self._add("flexreward_orders_total", judge, flipped=_said(not judgment.consistent))
        self._observe("flexreward_judgment_seconds", judge, judgment.seconds, SECONDS)
        earned = rewards(judgment)
        for reward in earned:
            if reward is not None:
                self._observe("flexreward_rewards", judge, reward, REWARDS)
        now = self._clock()
        good, bad, seconds = self._history.get(int(now // BIN_S), (0, 0, 0.0))
        self._history[int(now // BIN_S)] = (good + scored, bad + (not scored), seconds + judgment.seconds)
        self._verdicts.append(
            Read(
                now,
                judge,
                _short(request.prompt),
                tuple(_short(one) for one in request.completions),
                earned,
                outcome.reason.value if isinstance(outcome, Unscored) else "",
                next((vote.reply.text[:LONGEST] for vote in votes if vote.reply.text), ""),
                judgment.seconds,
            )
        )

    def refused(self, judge: str) -> None:
        """Count a call that was not let in."""
        self._add("flexreward_refused_total", judge)

    def take(self, waiting: Mapping[str, int]) -> Delta:
        """All since the last time."""
        delta = Delta(
            counts=dict(self._counts), history=self._history, verdicts=tuple(self._verdicts), waiting=dict(waiting)
        )
        self._fresh()
        return delta

    def _fresh(self) -> None:
        self._counts: defaultdict[Count, float] = defaultdict(float)
        self._history: dict[int, tuple[int, int, float]] = {}
        self._verdicts: deque[Read] = deque(maxlen=NUM_VERDICTS)

    def _add(self, name: str, judge: str, amount: float = 1, **labels: str) -> None:
        self._counts[Count(name, (("judge", judge), *labels.items()))] += amount

    def _observe(self, name: str, judge: str, value: float, ends: tuple[float, ...]) -> None:
        end = ends[bisect_left(ends, value)]
        self._add(f"{name}_bucket", judge, le=_end(end))
        self._add(f"{name}_sum", judge, value)


@dataclass(kw_only=True)
class Board:
    """All counts of a server since it began. A value that crosses processes."""

    counts: defaultdict[Count, float] = field(default_factory=lambda: defaultdict(float))
    history: dict[int, tuple[int, int, float]] = field(default_factory=dict)
    verdicts: deque[Read] = field(default_factory=lambda: deque(maxlen=NUM_VERDICTS))
    heard: dict[str, tuple[float, Mapping[str, int]]] = field(default_factory=dict)
    """By ingress copy: when it last said something, and what waited there."""
    phases: Mapping[str, str] = field(default_factory=dict)
    """Of judges that ever slept (``flexreward.serving.phases.Phase``)."""

    def add(self, source: str, delta: Delta, *, now: float) -> None:
        """Count what ``source`` has done; ``now`` is Unix time."""
        for count, amount in delta.counts.items():
            self.counts[count] += amount
        for place, (good, bad, seconds) in delta.history.items():
            had = self.history.get(place, (0, 0, 0.0))
            self.history[place] = (had[0] + good, had[1] + bad, had[2] + seconds)
        self.history = {place: one for place, one in self.history.items() if place > now // BIN_S - NUM_BINS}
        self.verdicts.extend(delta.verdicts)
        self.heard[source] = (now, delta.waiting)
        self.heard = {name: one for name, one in self.heard.items() if one[0] > now - FRESH_S}

    def waiting(self) -> dict[str, int]:
        """Judgments accepted and not yet answered, by judge."""
        found: Counter[str] = Counter()
        for _, counts in self.heard.values():
            found.update(counts)
        return dict(found)

    def crowd(self) -> Crowd:
        """Who is heard of."""
        return Crowd(
            len(self.heard), Counter(name for _, counts in self.heard.values() for name, n in counts.items() if n)
        )

    def by(self, name: str, judge: str, label: str) -> dict[str, float]:
        """A count of one judge by the values of one of its labels."""
        mine = {dict(count.labels).get(label, ""): n for count, n in self.counts.items() if _is(count, name, judge)}
        return dict(sorted(mine.items()))

    def total(self, name: str, judge: str) -> float:
        return sum(n for count, n in self.counts.items() if _is(count, name, judge))

    def judges(self) -> list[str]:
        """Those that have judged, or that something waits for."""
        return sorted({dict(count.labels)["judge"] for count in self.counts} | set(self.waiting()))

    def told(self, *, now: float) -> dict[str, Any]:
        """Everything that the page shows, as JSON."""
        last = int(now // BIN_S)
        points = [(place, *self.history.get(place, (0, 0, 0.0))) for place in range(last - NUM_BINS + 1, last + 1)]
        return {
            "ingress_copies": len(self.heard),
            "judges": [self._judge(name) for name in self.judges()],
            "history": [
                {
                    "ago_s": int((last - place) * BIN_S),
                    "scored": good / BIN_S,
                    "unscored": bad / BIN_S,
                    "seconds": seconds / (good + bad) if good + bad else None,
                }
                for place, good, bad, seconds in points
            ],
            "verdicts": [one._asdict() for one in reversed(self.verdicts)],
        }

    def _judge(self, name: str) -> dict[str, Any]:
        status = self.by("flexreward_judgments_total", name, "status")
        read = self.by("flexreward_replies_total", name, "read")
        flips = self.by("flexreward_orders_total", name, "flipped")
        ended = sum(status.values())
        return {
            "name": name,
            "phase": self.phases.get(name, "awake"),
            "waiting": self.waiting().get(name, 0),
            "judgments": ended,
            "unscored": status.get("unscored", 0.0),
            "reasons": self.by("flexreward_unscored_total", name, "reason"),
            "kept_share": _share(self.total("flexreward_kept_total", name), ended),
            "read_share": _share(read.get("yes", 0.0), sum(read.values())),
            "flip_share": _share(flips.get("yes", 0.0), sum(flips.values())),
            "mean_seconds": _share(self.total("flexreward_judgment_seconds_sum", name), ended),
            "tokens": self.total("flexreward_completion_tokens_total", name),
            "refused": self.total("flexreward_refused_total", name),
            "rewards": [self.by("flexreward_rewards_bucket", name, "le").get(_end(end), 0.0) for end in REWARDS[:-1]],
        }


def exposition(board: Board) -> bytes:
    """The counts in Prometheus's text format."""
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

    def collected() -> list[Metric]:
        found: list[Metric] = []
        for name, meaning in COUNTS.items():
            if name.endswith("_total"):
                mine = {count.labels: n for count, n in board.counts.items() if count.name == name}
                keys = [key for key, _ in next(iter(mine), ())]
                counter = CounterMetricFamily(name, meaning, labels=keys)
                for labels, n in sorted(mine.items()):
                    counter.add_metric([value for _, value in labels], n)
                found.append(counter)
                continue
            histogram = HistogramMetricFamily(name, meaning, labels=["judge"])
            for judge in board.judges():
                counts, sum_so_far, buckets = board.by(f"{name}_bucket", judge, "le"), 0.0, []
                for end in SECONDS if name.endswith("seconds") else REWARDS:
                    sum_so_far += counts.get(_end(end), 0.0)
                    buckets.append((_end(end), sum_so_far))
                histogram.add_metric([judge], buckets, sum_value=board.total(f"{name}_sum", judge))
            found.append(histogram)
        waiting = GaugeMetricFamily("flexreward_waiting", GAUGES["flexreward_waiting"], labels=["judge"])
        for judge, count in sorted(board.waiting().items()):
            waiting.add_metric([judge], count)
        awake = GaugeMetricFamily("flexreward_awake", GAUGES["flexreward_awake"], labels=["judge"])
        for judge in board.judges():
            awake.add_metric([judge], float(board.phases.get(judge, "awake") == "awake"))
        copies = "flexreward_ingress_copies"
        return [*found, waiting, awake, GaugeMetricFamily(copies, GAUGES[copies], value=len(board.heard))]

    class Collector:
        def collect(self) -> list[Metric]:
            return collected()

    registry = CollectorRegistry()
    registry.register(Collector())
    return bytes(generate_latest(registry))


def _is(count: Count, name: str, judge: str) -> bool:
    return count.name == name and dict(count.labels).get("judge") == judge


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _said(whether: bool) -> str:
    return "yes" if whether else "no"


def _end(end: float) -> str:
    return "+Inf" if end == inf else f"{end:g}"


def _short(text: Text | Media) -> str:
    """A text for the page; a conversation is its last turn."""
    if isinstance(text, Media):
        return f"[{text.kind}]"
    if not isinstance(text, str):
        content = text[-1].content if text else ""
        text = (
            content
            if isinstance(content, str)
            else " ".join(part if isinstance(part, str) else f"[{part.kind}]" for part in content)
        )
    return text if len(text) <= LONGEST else text[:LONGEST] + " ..."
