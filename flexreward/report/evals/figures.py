"""A run's summary as tables: figures under both protocols, group by group, beside those of other judges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from flexreward.report.evals.published import Published
from flexreward.report.figures import higher_is_better


class Strict(NamedTuple):
    """A figure by the strict protocol with its 95 % interval."""

    value: float | None
    low: float | None
    high: float | None
    n: int | None


class Row(NamedTuple):
    """One figure of this run."""

    name: str
    published: float | None
    strict: Strict | None

    @property
    def difference(self) -> float | None:
        """Strict less published."""
        if self.strict is None or self.strict.value is None or self.published is None:
            return None
        return self.strict.value - self.published

    @property
    def value(self) -> float | None:
        """What others' figures are set beside: by their protocol, else the strict one."""
        return self.published if self.published is not None else self.strict.value if self.strict else None


class Rival(NamedTuple):
    """One line of a ranking."""

    judge: str
    value: float
    source: str
    ours: bool
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """All figures of a run."""

    headline: str
    rows: tuple[Row, ...]
    """Of the whole benchmark, the headline first."""
    groups: Mapping[str, tuple[Row, ...]]
    """By figure: its value in each group, under the group's name."""
    others: Mapping[str, Sequence[Published]]
    """Figures of other judges, by the full name of the figure."""

    @property
    def head(self) -> Row | None:
        return next((row for row in self.rows if row.name == self.headline), None)

    def others_in(self, name: str, group: str) -> Sequence[Published]:
        """Others' figures in a group, however its name is written."""
        return next((found for full, found in self.others.items() if same_name(full, f"{name}/{group}")), ())

    def has_others(self, name: str) -> bool:
        """Whether anybody else's figure is known in some group."""
        return any(full.startswith(f"{name}/") for full in self.others)

    def reach(self, name: str) -> float:
        """The greatest value of a figure in any group, of anybody."""
        values = [row.value for row in self.groups.get(name, ()) if row.value is not None]
        for full, found in self.others.items():
            values += [one.value for one in found if full.startswith(f"{name}/")]
        return max(values, default=0.0)

    def ranking(self, name: str, ours: Row) -> tuple[Rival, ...]:
        """This judge among the others by one figure, best first; empty where nobody else is known."""
        others = self.others.get(name, ())
        if not others or ours.value is None:
            return ()
        found = [Rival(one.judge, one.value, one.source, False) for one in others]
        spread = ours.strict[1:3] if ours.strict and ours.published is None else (None, None)
        found.append(Rival("this judge", ours.value, "this run", True, *spread))
        return tuple(sorted(found, key=lambda one: one.value, reverse=higher_is_better(name)))


def same_name(one: str, other: str) -> bool:
    """``accuracy/C.C.`` and ``accuracy/cc`` are the same; so are ``MM-Vet`` and ``mmvet``."""
    (name, _, group), (other_name, _, other_group) = one.partition("/"), other.partition("/")
    return name == other_name and _letters(group) == _letters(other_group)


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name.casefold()))


def figures_of(summary: Mapping[str, Any], others: Mapping[str, Sequence[Published]]) -> Figures:
    """The figures of a complete run, as its summary holds them."""
    published, strict = summary.get("published") or {}, summary.get("strict") or {}
    headline = str(summary.get("headline") or "")
    rows: dict[str, list[Row]] = {"": []}
    for name in dict.fromkeys([headline, *published, *strict]):
        if name not in published and name not in strict:
            continue
        found = Row(name, published.get(name), _strict(strict.get(name)))
        base, slash, group = name.partition("/")
        rows.setdefault(base if slash else "", []).append(found._replace(name=group) if slash else found)
    whole = rows.pop("")
    return Figures(
        headline=headline,
        rows=tuple(whole),
        groups={name: tuple(found) for name, found in rows.items()},
        others=others,
    )


def _strict(found: Mapping[str, Any] | None) -> Strict | None:
    return None if found is None else Strict(*(found.get(name) for name in Strict._fields))
