"""Two judges over the same rows: their figures side by side, and a browser of the rows on which they differ."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from flexreward.errors import OutputError
from flexreward.files.whole import replaced
from flexreward.report.evals.browser import PAIRS, RATINGS, Browser, Words, browser
from flexreward.report.evals.plots import waits_plot
from flexreward.report.evals.rows import Fact, read_facts
from flexreward.report.evals.verdict import Json, judged, question
from flexreward.report.figures import difference_text, figure_text, in_plain, is_share, spread_text
from flexreward.report.folder import fetch
from flexreward.report.page import Count
from flexreward.report.plots import At, Plot, Series, line_plot
from flexreward.report.render import render_page
from flexreward.report.text import visible
from flexreward.report.words import percent, plural

SURE = 0.05
"""Below this p-value a difference is told as one."""


class Names(NamedTuple):
    """What the two judges are called: their folders' names, or whole paths where those are the same."""

    a: str
    b: str


class Beside(NamedTuple):
    """One figure of both, formatted."""

    name: str
    a: str
    b: str
    difference: str
    spread: str
    p: str
    n: str
    sure: bool
    length: str = ""
    """Characters of a reply in each, the mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparePage:
    """Everything on the page of two runs."""

    title: str
    headline: str
    lead: tuple[str, ...]
    names: Names
    figures: tuple[Beside, ...]
    groups: tuple[Beside, ...]
    group_figure: str
    changed: tuple[tuple[str, str, str], ...]
    """What tells the two judges apart: name, and its value in each."""
    choices: tuple[Count, ...]
    plots: tuple[Plot, ...]
    browser: Browser
    facts: tuple[tuple[str, str], ...]


def write_compare(a: Path, b: Path, out: Path) -> Path:
    """Write ``out/compare.html`` from ``out/compare.json`` and the two run folders, and say where it is.

    Raises:
        OutputError: A file is missing or broken, or the page cannot be written.
    """
    page = compare_page(a, b, out)
    path = out / "compare.html"
    html = render_page("compare.html.j2", verdicts=True, page=page)
    with replaced(path) as file:
        file.write(html.encode())
    return path


def compare_page(a: Path, b: Path, out: Path) -> ComparePage:
    """Everything that the page shows; shards are written beside it."""
    found = _read(out / "compare.json")
    names = names_of(a, b)
    figures = [_beside(name, name, one) for name, one in found["figures"].items()]
    main = next(iter(found["figures"]), "")
    waits = waits_plot({"waits": found.get("waits")}, rating=found.get("task") == "rating")
    return ComparePage(
        title=f"flexreward: {names.a} and {names.b} on {found['title']}",
        headline=_headline(found, names, main),
        lead=tuple(_lead(found, names, main)),
        names=names,
        figures=tuple(figures),
        groups=tuple(_beside(main, name, one) for name, one in (found.get("groups") or {}).items()),
        group_figure=in_plain(main),
        changed=tuple(
            (in_plain(name), str(was), str(now)) for name, (was, now) in (found.get("changed") or {}).items()
        ),
        choices=tuple(_choices(found.get("choices") or {}, names)),
        plots=tuple(plot for plot in (_gain_plot(found, names, main), waits) if plot),
        browser=_browser(found, a, b, out, names),
        facts=(("benchmark", found["benchmark"]), (names.a, str(a)), (names.b, str(b))),
    )


def names_of(a: Path, b: Path) -> Names:
    """Folders' names where those differ, else their paths."""
    one, other = (visible(path.resolve().name) for path in (a, b))
    return Names(one, other) if one != other else Names(visible(str(a)), visible(str(b)))


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise OutputError(f"{path}: missing; `flexreward compare A B --out {path.parent}` makes it") from error
    except ValueError as error:
        raise OutputError(f"{path}: broken JSON ({error}); run `flexreward compare` again") from error
    if not isinstance(found, dict) or "figures" not in found:
        raise OutputError(f"{path}: is no comparison; `flexreward compare A B --out {path.parent}` makes one")
    return found


def _beside(figure: str, name: str, one: Mapping[str, Any]) -> Beside:
    p, n = one.get("p"), one.get("n")
    return Beside(
        name=in_plain(name),
        a=figure_text(one.get("a"), figure),
        b=figure_text(one.get("b"), figure),
        difference=difference_text(one.get("difference"), figure),
        spread=_spread(one, figure),
        p="–" if p is None else f"{p:.3f}" if p >= 0.001 else "< 0.001",
        n="–" if n is None else f"{n:,}",
        sure=p is not None and p < SURE,
        length=_length(one.get("characters") or {}),
    )


def _length(characters: Mapping[str, Any]) -> str:
    lengths = [characters.get(name) for name in ("a", "b")]
    return " → ".join("–" if one is None else f"{one:,.0f}" for one in lengths) if any(lengths) else ""


def _gain_plot(found: Mapping[str, Any], names: Names, main: str) -> Plot | None:
    """The difference of each group by the length of the second judge's replies: what longer thought gains."""
    points = [
        At(one["characters"]["b"], one["difference"], words=f"{visible(name)}, {plural(one['n'], 'row')}")
        for name, one in (found.get("groups") or {}).items()
        if one.get("difference") is not None and (one.get("characters") or {}).get("b")
    ]
    points.sort()
    rho = (found.get("length") or {}).get("groups")
    told = f" Spearman’s correlation over groups: {rho:+.2f}." if rho is not None else ""
    lengths = [at.x for at in points]
    return line_plot(
        "gain",
        "Where is the difference won?",
        f"A point is a group: how much better {names.b} is than {names.a}, by the length of its replies.{told}",
        [Series("groups", "dots", points)],
        axis=f"characters of a reply of {names.b}",
        ticks_x=[(at, f"{at:,.0f}") for at in (min(lengths), max(lengths))] if lengths else [],
        share=is_share(main),
        signed=True,
    )


def _spread(one: Mapping[str, Any], figure: str) -> str:
    low, high = one.get("low"), one.get("high")
    if low is None or high is None:
        return spread_text(None, None, figure)
    return f"{difference_text(low, figure)} to {difference_text(high, figure)}"


def _headline(found: Mapping[str, Any], names: Names, main: str) -> str:
    one = found["figures"].get(main) or {}
    difference, p = one.get("difference"), one.get("p")
    if difference is None or p is None:
        return f"{found['title']}: {names.a} and {names.b}"
    if p >= SURE:
        return f"{found['title']}: no sure difference between {names.a} and {names.b}"
    told = f"{difference_text(difference, main)}{' points' if figure_text(0.0, main).endswith('%') else ''}"
    return f"{found['title']}: {in_plain(main)} of {names.b} is {told} beside {names.a}"


def _lead(found: Mapping[str, Any], names: Names, main: str) -> Iterator[str]:
    one = found["figures"].get(main) or {}
    rows = plural(int(one.get("n") or 0), "row")
    yield (
        f"{in_plain(main).capitalize()} is {figure_text(one.get('a'), main)} for {names.a} and "
        f"{figure_text(one.get('b'), main)} for {names.b}, over {rows} that both scored. "
        f"The 95 % interval of the difference is {_spread(one, main)}; rows are paired."
    )
    alike = (found.get("choices") or {}).get("alike")
    if alike is not None:
        yield f"Whoever is right, they choose alike in {percent(alike)} of the rows."


def _choices(choices: Mapping[str, Any], names: Names) -> Iterator[Count]:
    for key, name, tone in (
        ("both_right", "both right", "good"),
        ("only_a", f"only {names.a} right", "plain"),
        ("only_b", f"only {names.b} right", "plain"),
        ("neither", "neither right", "bad"),
    ):
        if key in choices:
            yield Count(name, int(choices[key]), "", tone)


def _browser(found: Mapping[str, Any], a: Path, b: Path, out: Path, names: Names) -> Browser:
    differ = [str(row["id"]) for row in found.get("differ") or ()]
    ones, others = ({fact.id: fact for fact in _facts(path)} for path in (a, b))
    pairs = [(ones[name], others[name]) for name in map(visible, differ) if name in ones and name in others]
    other_of = {one.id: other for one, other in pairs}
    facts = [_merged(one, other, names) for one, other in pairs]
    words = Words(
        results={
            "only_b": f"only {names.b} right",
            "only_a": f"only {names.a} right",
            "both": "both right",
            "neither": "neither right",
            "unscored": "one unscored",
        },
        told=f"The rows on which {names.a} and {names.b} choose differently, the furthest apart first.",
        by="",
        each=(RATINGS if found.get("task") == "rating" else PAIRS).results,
    )
    return browser(facts, _teller(a, b, out, names, ones, other_of), out / "compare.shards", words)


def _facts(folder: Path) -> list[Fact]:
    return read_facts(folder / "outcomes.jsonl", folder / "samples.jsonl")


def _merged(one: Fact, other: Fact, names: Names) -> Fact:
    """One line of the list for both."""
    right = (one.result == "right", other.result == "right")
    result = {(True, True): "both", (True, False): "only_a", (False, True): "only_b", (False, False): "neither"}[right]
    if "unscored" in (one.result, other.result):
        result = "unscored"
    return replace(
        one,
        result=result,
        reason=one.reason or other.reason,
        orders="flipped" if "flipped" in (one.orders, other.orders) else one.orders or other.orders,
        judge=f"{names.a} {one.judge or '–'}, {names.b} {other.judge or '–'}",
    )


def _teller(
    a: Path, b: Path, out: Path, names: Names, ones: Mapping[str, Fact], others: Mapping[str, Fact]
) -> Callable[[Fact, bool], Json]:
    prefix = quote(os.path.relpath(a, out).replace(os.sep, "/")) + "/"

    def tell(fact: Fact, inline: bool) -> Json:
        lines = [
            fetch(folder / "outcomes.jsonl", [one.place.outcome])[0]
            for folder, one in ((a, ones[fact.id]), (b, others[fact.id]))
        ]
        place = fact.place.sample
        sample = None if place is None else fetch(a / "samples.jsonl", [place])[0]
        judges: Sequence[Json] = [
            judged(line, one) | {"name": name}
            for name, line, one in zip(names, lines, (ones[fact.id], others[fact.id]), strict=True)
        ]
        return question(lines[0], sample, a, inline=inline, prefix=prefix) | {"id": fact.id, "judges": judges}

    return tell
