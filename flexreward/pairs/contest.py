"""Which completion of a prompt is best: whom to show to the judge next, and what follows from what it said. Pure.

    pointwise       each alone; the best score
    knockout        two by two, the better goes on (flexreward.pairs.bracket)
    round-robin     every two; the highest share of games won (flexreward.pairs.league)
    bradley-terry   the same judgments; the greatest strength, which counts by how much, and against whom, one won
    listwise        all in one list; lists of more than ``list_size`` are a knockout of lists

``asks`` says what is to be judged, from what is known already: nothing more when the contest is over. The same code so
plays it in a file that is gone on with, in one coroutine, and behind a server.

What cannot be read is left out of every mean; a completion of which nothing could be read has no score and ranks below
every other. Where nothing at all could be read there is no choice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from math import inf
from typing import Literal, TypeAlias, cast, get_args

from flexreward.errors import RecipeError
from flexreward.pairs import bracket, league
from flexreward.pairs.best_of_n import Draws, chances, choice
from flexreward.pairs.bracket import Bracket, Known, Members

Method: TypeAlias = Literal["pointwise", "knockout", "round-robin", "bradley-terry", "listwise"]
METHODS: tuple[str, ...] = get_args(Method)
Ties: TypeAlias = Literal["draws", "expected"]
LIST_SIZE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How the best is found.

    Raises:
        RecipeError: One line that names the field.
    """

    method: Method = "pointwise"
    list_size: int = LIST_SIZE
    """Most completions in one listwise prompt."""
    seed: int = 0
    """Of the bracket, and of what is drawn."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise RecipeError(f"method: {self.method!r} is unknown, expected one of {', '.join(METHODS)}")
        if self.list_size < 3:
            raise RecipeError(f"list_size: {self.list_size} is too few, expected 3 or more; knockout takes two")

    @property
    def shown_at_once(self) -> int | None:
        """Completions in one judgment; ``None`` is any number from two."""
        return {"pointwise": 1, "listwise": None}.get(self.method, 2)

    @property
    def compares(self) -> bool:
        """Whether a judgment holds completions against each other, which takes both orders."""
        return self.method != "pointwise"

    @property
    def has_rounds(self) -> bool:
        """Whether what is judged depends on what was said before."""
        return self.method in ("knockout", "listwise")

    @property
    def _size(self) -> int:
        return self.list_size if self.method == "listwise" else 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What became of the judgments."""

    judgments: int = 0
    unscored: int = 0
    flipped: int = 0
    """Whose orders name different winners: their averaged scores count."""
    drawn: int = 0
    """Lists of a knockout that tied, and were decided by a seeded draw."""
    unread: int = 0
    """Lists of a knockout without a verdict."""

    def __add__(self, other: Counts) -> Counts:
        more = other.as_json()
        return Counts(**{name: count + more[name] for name, count in self.as_json().items()})

    def as_json(self) -> dict[str, int]:
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a contest came to, everything by the index of the completion."""

    scores: tuple[float | None, ...]
    """Pointwise, and listwise in one list: on the template's scale. Otherwise from 0 to 1: the share of games won, or
    of the rounds that it stayed in. ``None`` where nothing could be read of it, or nothing was judged."""
    places: tuple[float | None, ...]
    """Scores with the ties broken that could be: higher is better, equal is a tie."""
    best: tuple[int, ...]
    """Those that share the best place; empty where nothing could be read."""
    order: tuple[int, ...]
    """The best first, equal ones in the order asked, those without a score last."""
    given: tuple[float | None, ...]
    """The mean of the scores that the judge gave it, as a share of the scale."""
    num_unscored: int
    """Completions that were shown and of which nothing could be read."""
    counts: Counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """The completions of one prompt."""

    plan: Plan
    id: str
    same: tuple[int, ...]
    """For each completion the first that is equal to it."""

    def asks(self, known: Known) -> list[Members]:
        """What is to be judged next, all of it at once; nothing when the contest is over."""
        if self.plan.method == "pointwise":
            wanted: Sequence[Members] = [(i,) for i in sorted(set(self.same))]
        elif self.plan.has_rounds:
            wanted = self._bracket(known).open
        else:
            wanted = list(combinations(sorted(set(self.same)), 2))
        return [members for members in wanted if members not in known]

    def standing(self, known: Known) -> Standing:
        """What it came to, once ``asks`` wants nothing more."""
        played = self._bracket(known) if self.plan.has_rounds else None
        scores, expected = self._scores(known, played)
        places = ranks([None if score is None else (score, expected[i]) for i, score in enumerate(scores)])
        order = sorted(range(len(scores)), key=lambda i: -inf if (place := places[i]) is None else place, reverse=True)
        best = choice(places) if known else tuple(order)  # without a judgment all are equal, or there is one
        given = self._given(known)
        shown = {member for members in known for member in members}
        hows = Counter(match.how for matches in (played.rounds if played else ()) for match in matches)
        one_list = played is not None and self.plan.method == "listwise" and len(played.rounds) == 1
        return Standing(
            scores=scores,
            places=tuple(places),
            best=best,
            order=tuple(order),
            given=given,
            num_unscored=sum(given[i] is None and self.same[i] in shown for i in range(len(scores))),
            counts=Counts(
                judgments=len(known),
                unscored=sum(found.scores is None for found in known.values()),
                flipped=sum(found.flipped for found in known.values()),
                drawn=0 if one_list else hows["drawn"],  # one list's ties are averaged
                unread=hows["unread"],
            ),
        )

    def draws(self, known: Known, n: int) -> Draws:
        """A choice among ``n``, drawn from all, by what was judged already.

        Pointwise exact, over all subsets. Listwise exact within the lists of the first round, by the scores given
        there. Round robin and Bradley-Terry from the games of each subset's members, over all subsets or some drawn.
        Beyond a list, a knockout's winners of its own parts of ``n``: the order of a bracket is drawn, so each part is
        a draw of ``n``.
        """
        count = len(self.same)
        assert 1 <= n <= count
        if n == 1:
            return Draws((1 / count,) * count, [range(count)])
        method = self.plan.method
        if method in ("round-robin", "bradley-terry"):
            games = league.table(self.same, known)
            return league.draws(games, method, n, seed=f"{self.plan.seed} {self.id}")
        if method == "pointwise":
            return Draws(tuple(chances(self.standing(known).places, n)), [range(count)])
        played = self._bracket(known)
        lists = [match for match in played.rounds[0] if len(match.entrants) >= n]
        chance = [0.0] * count
        if lists:
            for match in lists:
                for i, share in zip(match.entrants, _within(match, known, self.same, n), strict=True):
                    chance[i] += share / len(lists)
            return Draws(tuple(chance), [match.entrants for match in lists])
        # A bye is the same part once more.
        parts = {match.leaves: match.winner for matches in played.rounds for match in matches if len(match.leaves) == n}
        for winner in parts.values():
            chance[winner] += 1 / len(parts)
        return Draws(tuple(chance), list(parts))

    def sizes(self) -> frozenset[int]:
        """The N that ``draws`` knows."""
        if self.plan.has_rounds:
            return bracket.sizes(len(self.same), size=self.plan._size)
        return frozenset(range(1, len(self.same) + 1))

    def most_judgments(self) -> int:
        """How many it takes at most."""
        count, distinct = len(self.same), len(set(self.same))
        if self.plan.method == "pointwise":
            return distinct
        if self.plan.has_rounds:
            total, left = 0, count if distinct > 1 else 1
            while left > 1:
                parts = bracket.split(tuple(range(left)), self.plan._size)
                total += sum(len(part) > 1 for part in parts)
                left = len(parts)
            return total
        return distinct * (distinct - 1) // 2

    def _bracket(self, known: Known) -> Bracket:
        plan = self.plan
        return bracket.play(len(self.same), size=plan._size, same=self.same, known=known, id=self.id, seed=plan.seed)

    def _given(self, known: Known) -> tuple[float | None, ...]:
        shares: dict[int, list[float]] = {}
        for members, found in known.items():
            for member, share in zip(members, found.shares or (), strict=found.scores is not None):
                shares.setdefault(member, []).append(share)
        texts = [shares.get(text) for text in self.same]
        return tuple(sum(text) / len(text) if text else None for text in texts)

    def _scores(self, known: Known, played: Bracket | None) -> tuple[tuple[float | None, ...], list[float]]:
        """Each one's score, and what breaks a tie: zero where nothing does."""
        count = len(self.same)
        nothing = [0.0] * count
        if self.plan.method == "pointwise":
            alone = [known[text,] for text in self.same]
            scores = tuple(found.scores[0] if found.scores else None for found in alone)
            if any(found.scores and not found.expected for found in alone):
                return scores, nothing
            return scores, [found.expected[0] if found.expected else 0.0 for found in alone]
        if played is None:
            return self._ratings(known)
        if self.plan.method == "listwise" and len(played.rounds) == 1:
            members = played.rounds[0][0].shown
            listed = known.get(members)
            if listed is None or listed.scores is None:
                return (None,) * count, nothing
            place = {member: at for at, member in enumerate(members)}
            weighed = listed.expected or (0.0,) * len(members)
            return tuple(listed.scores[place[text]] for text in self.same), [weighed[place[text]] for text in self.same]
        level = [0] * count
        for number, matches in enumerate(played.rounds, 1):
            for match in matches:
                level[match.winner] = number
        read = {self.same[i] for i in played.read}
        stayed = {text: max(level[i] for i in range(count) if self.same[i] == text) for text in read}
        num_rounds = len(played.rounds)
        return tuple(stayed[text] / num_rounds if text in stayed else None for text in self.same), nothing

    def _ratings(self, known: Known) -> tuple[tuple[float | None, ...], list[float]]:
        import numpy as np

        games = league.table(self.same, known)
        everyone_1K = np.arange(len(self.same))[None]
        rated = league.ratings(games, cast(league.Rating, self.plan.method), everyone_1K)[0].tolist()
        expected = league.expectations(games, everyone_1K)[0].tolist()
        scores = tuple(None if rating != rating else rating for rating in rated)  # NaN alone differs from itself
        if any(score is not None and weight != weight for score, weight in zip(scores, expected, strict=True)):
            return scores, [0.0] * len(scores)
        return scores, [0.0 if weight != weight else weight for weight in expected]


def ranks(keys: Sequence[tuple[float, float] | None]) -> list[float | None]:
    """Places of keys, higher for greater, equal ones alike."""
    places = {key: float(place) for place, key in enumerate(sorted({key for key in keys if key is not None}))}
    return [None if key is None else places[key] for key in keys]


def _within(match: bracket.Match, known: Known, same: Sequence[int], n: int) -> list[float]:
    """Chances of a list's entrants among ``n`` of them."""
    found = known.get(match.shown)
    if found is None or found.scores is None:
        return [1 / len(match.entrants)] * len(match.entrants)
    weighed = found.expected or (0.0,) * len(match.shown)
    keys = dict(zip(match.shown, zip(found.scores, weighed, strict=True), strict=True))
    return chances(ranks([keys[same[i]] for i in match.entrants]), n)
