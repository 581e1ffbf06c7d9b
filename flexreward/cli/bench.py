"""``flexreward bench``: how fast, against what a competent user would do."""

from __future__ import annotations

from typing import Annotated

import typer


def bench(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="Which bench: engine, eval, expected, pairs, pairs-report, routing, server, thinking or votes.",
            show_default=False,
        ),
    ],
    judge: Annotated[
        str | None,
        typer.Option(metavar="J", help="Whose engine bench server measures; the bundled judge's by default."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="End in one line of JSON.")] = False,
) -> None:
    """Measure this machine: ratios against a baseline, paired runs in one process tree; higher is better.

    [bold]flexreward bench engine --json[/bold]
    [bold]flexreward bench server --judge runs/flex-vl-7b[/bold]
    """
    from flexreward.bench import run_bench

    run_bench(name, judge=judge, as_json=as_json)
