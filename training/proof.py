"""Proofs: a measured figure with its date, commit, machine and command, and READMEs that may state no other.

A proof is a program behind ``make proof-NAME``. It keeps its finished parts, so that a killed one goes on, and ends in
``record``: one JSON file beside the recipe and one line on the terminal.

A README states a measured figure as ``97.3 % <!-- proof: NAME.FIGURE -->``. With ``%`` the proof holds the fraction
(0.973), else the number itself; the proof's value, rounded to the decimals printed, must be the number printed. In a
section whose heading holds the word "Measured" no number that looks measured may stand without such a mark.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

from training.provenance import commit, hardware

Figures = Mapping[str, Any]
"""Numbers by name; a nested mapping is named with dots."""

NUMBER = r"[-−+]?\d[\d,]*(?:\.\d+)?"
UNIT = r"%|points?\b|tok(?:ens)?/s|/s\b|µs\b|us\b|ms\b|s\b|min\b|minutes?\b|h\b|hours?\b|[KMG]i?B\b|times\b|x\b"
MARK = re.compile(rf"(?P<number>{NUMBER})\s*(?P<unit>(?:{UNIT})?)[^\S\n]*<!--\s*proof:\s*(?P<name>[\w.-]+)\s*-->")
MEASURED = re.compile(rf"(?<![\w.,-])(?P<number>{NUMBER})\s?(?:{UNIT})")
CELL = re.compile(rf"(?<!^)\|[^\S\n]*(?P<number>{NUMBER})[^\S\n]*(?=\|)", re.MULTILINE)
"""A table cell that is a number and nothing else. A row's first cell is its name and may be one."""
HEADING = re.compile(r"^#{1,6} .*$", re.MULTILINE)
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


class Parts:
    """Finished parts of one proof, each in its own file, so that a killed proof buys none of them again.

    Args:
        name: The proof's name.
        basis: What every part depends on (a weights digest, a setting): parts of another basis are not reused.
    """

    def __init__(self, name: str, *, basis: str, root: Path = Path("runs/proofs")) -> None:
        self._folder = root / name
        self._basis = basis
        self.seconds = 0.0
        """Time that the parts took, those of earlier runs included."""

    def get(self, key: str, compute: Callable[[], Any]) -> Any:
        """The part's value as JSON gives it back: from its file, or computed now and kept."""
        path = self._folder / f"{key}.json"
        kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        if kept is None or kept["basis"] != self._basis:
            start = time.monotonic()
            value = compute()
            kept = {"basis": self._basis, "value": value, "seconds": time.monotonic() - start}
            write_whole(path, json.dumps(kept))
        self.seconds += kept["seconds"]
        return json.loads(json.dumps(kept["value"]))


def record(name: str, figures: Figures, out: Path, *, seconds: float, command: str | None = None) -> dict[str, Any]:
    """Write ``out/NAME.json`` and print the proof as the one line it ends in."""
    proof = {
        "name": name,
        "date": datetime.now(UTC).date().isoformat(),
        **commit(),
        "hardware": hardware(),
        "command": command or f"make proof-{name}",
        "figures": dict(figures),
        "seconds": round(seconds, 1),
    }
    write_whole(out / f"{name}.json", json.dumps(proof, indent=2, allow_nan=False) + "\n")
    print(json.dumps(proof, allow_nan=False))
    sys.stdout.flush()
    return proof


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.part")
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(path)


def read_figures(folder: Path) -> dict[str, float]:
    """All figures of a folder of proofs, named ``PROOF.FIGURE``."""
    figures: dict[str, float] = {}
    for path in sorted(folder.glob("*.json")):
        proof = json.loads(path.read_text(encoding="utf-8"))
        figures.update(_flat(proof["name"], proof["figures"]))
    return figures


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{prefix}.{key}", inner)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield prefix, value


def check_readme(text: str, figures: Mapping[str, float]) -> list[str]:
    """What is wrong with the figures of a README, a line each; empty when all of them are proven."""
    text = CODE.sub(lambda code: "`" * (code.end() - code.start()), text)
    wrong = [found for mark in MARK.finditer(text) if (found := _against(mark, figures))]
    proven = {mark.start("number") for mark in MARK.finditer(text)}
    for start, end in _measured_sections(text):
        bare = {m.start("number") for pattern in (MEASURED, CELL) for m in pattern.finditer(text, start, end)}
        wrong += [f"line {_line(text, at)}: {_words(text, at)!r} has no proof" for at in sorted(bare - proven)]
    return wrong


def _against(mark: re.Match[str], figures: Mapping[str, float]) -> str | None:
    where = f"line {_line(mark.string, mark.start())}"
    name, printed = mark["name"], Decimal(mark["number"].replace(",", "").replace("−", "-"))
    if name not in figures:
        return f"{where}: no proof holds {name!r}"
    value = Decimal(str(figures[name])) * (100 if mark["unit"] == "%" else 1)
    step = Decimal(1).scaleb(int(printed.as_tuple().exponent))
    # Both ways of rounding a half are honest.
    if printed in (value.quantize(step, ROUND_HALF_UP), value.quantize(step, ROUND_HALF_EVEN)):
        return None
    return f"{where}: {mark['number']}{mark['unit']} is printed, {name} is {figures[name]}"


def _measured_sections(text: str) -> Iterator[tuple[int, int]]:
    """From a heading with the word to the next heading of its level or above."""
    headings = list(HEADING.finditer(text))
    for i, heading in enumerate(headings):
        if "measured" not in heading[0].lower():
            continue
        level = len(heading[0]) - len(heading[0].lstrip("#"))
        later = (h.start() for h in headings[i + 1 :] if len(h[0]) - len(h[0].lstrip("#")) <= level)
        yield heading.end(), next(later, len(text))


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _words(text: str, at: int) -> str:
    return text[at : at + 24].splitlines()[0].strip()
