"""Verdicts as files: some in the page, the rest in scripts beside it, and a list of them all.

    facts -> drawn by strata -> blocks of JSON in the page | report.shards/000.js, 001.js, ...

A shard is one call with one string, the JSON of its verdicts: whatever a model wrote, the script engine sees a string
of ASCII letters in which neither a quote nor a ``<`` of the model's is left, and the page parses it as JSON.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from flexreward.files.whole import replaced
from flexreward.report.evals.rows import Fact
from flexreward.report.evals.verdict import Json

PAGE_VERDICTS, PAGE_BYTES = 2_000, 30_000_000
"""What a page holds at most."""
OTHER_BYTES = 1_000_000
"""Kept free for style, script, figures and plots."""
MEDIA_BYTES = 8_000_000
"""Of pictures and sounds that go into the page; those of further verdicts stay beside it."""
BLOCK_CHARS, SHARD_CHARS = 400_000, 900_000
MOST_A_FILE = 512
LIST_ROWS = 4_000
"""Rows of the list that are parsed at one go."""
EXCERPTS_BYTES = 4_000_000
"""For the beginnings of prompts in the list; with very many rows, those in shards have shorter ones, or none."""
NAME = re.compile(r"\d{3,}\.js")


class Block(NamedTuple):
    """Verdicts that are parsed together, as rows of the list."""

    rows: tuple[int, ...]
    json: str


class Layout(NamedTuple):
    """Where every verdict is."""

    listed: tuple[Markup, ...]
    """The list of all rows in parts, as JSON."""
    blocks: tuple[Markup, ...]
    """Verdicts in the page, as JSON."""
    num_page: int
    num_shards: int


def lay_out(facts: Sequence[Fact], tell: Callable[[Fact, bool], Json], folder: Path, results: Sequence[str]) -> Layout:
    """Choose the verdicts of the page and write the others to ``folder``.

    Args:
        tell: The whole verdict of a row; the second argument says whether it goes into the page.
        folder: The folder of shards; those of an earlier report that are not written again are removed.
        results: The outcomes, in the order in which the list numbers them.
    """
    listed_bytes = sum(len(fact.said.encode()) for fact in facts)
    chars = 10_000 if listed_bytes <= EXCERPTS_BYTES else max(0, EXCERPTS_BYTES // len(facts) - 20)
    room = PAGE_BYTES - OTHER_BYTES - min(listed_bytes, EXCERPTS_BYTES) - 90 * len(facts)
    media = MEDIA_BYTES
    chosen: dict[int, str] = {}
    for row in drawn([fact.stratum for fact in facts])[:PAGE_VERDICTS]:
        told = tell(facts[row], media > 0)
        media -= sum(len(one.get("src", "")) for one in _media(told) if one.get("src", "").startswith("data:"))
        text = as_json(told)
        room -= len(text.encode())
        if room < 0:
            break
        chosen[row] = text
    in_page = list(_blocks(((row, chosen[row]) for row in sorted(chosen)), BLOCK_CHARS))
    rest = ((row, as_json(tell(fact, False))) for row, fact in enumerate(facts) if row not in chosen)
    at: dict[int, tuple[int, int]] = {}
    for number, block in enumerate(in_page):
        at.update({row: (number, place) for place, row in enumerate(block.rows)})
    num_shards = 0
    for num_shards, block in enumerate(_blocks(rest, SHARD_CHARS), 1):
        at.update({row: (len(in_page) + num_shards - 1, place) for place, row in enumerate(block.rows)})
        _write_shard(folder, num_shards - 1, block.json)
    _remove_others(folder, num_shards)
    return Layout(
        listed=tuple(_listed(facts, at, len(in_page), chars, results)),
        blocks=tuple(Markup(block.json) for block in in_page),
        num_page=len(chosen),
        num_shards=num_shards,
    )


def _media(verdict: Json) -> list[Json]:
    return [*verdict["media"], *(one for completion in verdict["completions"] for one in completion["media"])]


def drawn(strata: Sequence[Any], seed: int = 0) -> list[int]:
    """All places in an order of which every beginning holds the strata in equal parts, as far as they reach."""
    by_stratum: dict[Any, list[int]] = {}
    for place, stratum in enumerate(strata):
        by_stratum.setdefault(stratum, []).append(place)
    rng = random.Random(seed)
    for places in by_stratum.values():
        rng.shuffle(places)
    return [place for turn in zip_longest(*by_stratum.values()) for place in turn if place is not None]


def as_json(value: object) -> str:
    """JSON that can stand in a script element: without a ``<`` it neither closes the element nor opens another."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _blocks(verdicts: Iterable[tuple[int, str]], most_chars: int) -> Iterator[Block]:
    rows: list[int] = []
    texts: list[str] = []
    for row, text in verdicts:
        if texts and (sum(map(len, texts)) + len(text) > most_chars or len(texts) == MOST_A_FILE):
            yield Block(tuple(rows), f"[{','.join(texts)}]")
            rows, texts = [], []
        rows.append(row)
        texts.append(text)
    if texts:
        yield Block(tuple(rows), f"[{','.join(texts)}]")


def shard_name(number: int) -> str:
    return f"{number:03d}.js"


def _write_shard(folder: Path, number: int, text: str) -> None:
    string = json.dumps(text, ensure_ascii=True).replace("<", "\\u003c")
    with replaced(folder / shard_name(number)) as file:
        file.write(f"flexrewardShard({number},{string});\n".encode("ascii"))


def _remove_others(folder: Path, num_shards: int) -> None:
    kept = {shard_name(number) for number in range(num_shards)}
    for file in folder.iterdir() if folder.is_dir() else ():
        if NAME.fullmatch(file.name) and file.name not in kept:
            file.unlink()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _listed(
    facts: Sequence[Fact], at: dict[int, tuple[int, int]], num_blocks: int, chars: int, results: Sequence[str]
) -> Iterator[Markup]:
    """Columns of ``LIST_ROWS`` rows each; words that recur are numbers into lists of the settings."""
    numbers = {name: {word: i for i, word in enumerate(words)} for name, words in vocabulary(facts).items()}
    for start in range(0, len(facts), LIST_ROWS):
        part = facts[start : start + LIST_ROWS]
        places = [at[start + i] for i in range(len(part))]
        columns: Json = {
            "id": [fact.id for fact in part],
            "said": [
                fact.said if file < num_blocks else fact.said[:chars]
                for fact, (file, _) in zip(part, places, strict=True)
            ],
            "result": [results.index(fact.result) for fact in part],
            "file": [file for file, _ in places],
            "place": [place for _, place in places],
        }
        for name, found in numbers.items():
            columns[name] = [found[getattr(fact, name)] for fact in part]
        yield Markup(as_json(columns))


VOCABULARY = ("group", "reason", "orders", "people", "judge")


def vocabulary(facts: Sequence[Fact]) -> dict[str, list[str]]:
    """The words that recur, by column, in the order of their first use."""
    return {name: list(dict.fromkeys(getattr(fact, name) for fact in facts)) for name in VOCABULARY}
