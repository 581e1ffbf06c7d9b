"""``flexreward compare``: which of two judges is better on the same rows, and how surely."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="A run of flexreward eval: its folder.", show_default=False)],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another run over the same rows.", show_default=False)],
    more: Annotated[
        list[Path] | None,
        typer.Argument(metavar="MORE", help="Further runs, each beside A.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where compare.json and compare.html go.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the bootstrap.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON on stdout; the rest on stderr.")] = False,
) -> None:
    """Pair the rows of two runs: the difference of every figure, its 95 % interval and p-value, and where they differ.

    The two may be two judges; one judge under two templates, which shows how much the form of the question matters, or,
    with a template that answers first, what thinking first gains in each group; or one judge with other votes. Runs
    whose judges differ only in --waits are also told as a curve over waits.

    [bold]flexreward compare runs/answer-first runs/thinking-first --out runs/gain[/bold]
    """
    import json
    import sys

    from flexreward.evals import compare as compared
    from flexreward.evals.compare_text import lines_of
    from flexreward.files.whole import replaced
    from flexreward.report import write_compare

    runs = [compared.load_run(path) for path in (a, b, *(more or ()))]
    found = [compared.compare(runs[0], run, seed=seed) for run in runs[1:]]
    waits = compared.over_waits(runs)
    stream = sys.stderr if as_json else sys.stdout
    for one in found:
        print(*lines_of(one), sep="\n", file=stream)
    for point in waits:
        print(f"waits {point['waits']}: {point['value']:.4f}, {point['completion_tokens']:.0f} tokens", file=stream)
    told = found[0] | {"more": found[1:], "waits": waits}
    if out is not None:
        with replaced(out / "compare.json") as file:
            file.write(json.dumps(told, indent=2, ensure_ascii=False).encode() + b"\n")
        print(f"page: {write_compare(a, b, out)}", file=stream)
    if as_json:
        print(json.dumps({"out": str(out) if out else None, **told}, ensure_ascii=False))
