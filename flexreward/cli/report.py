"""``flexreward report``: a run folder as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    run_dir: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_DIR", help="A folder of best-of-n, pairs, judge or the quickstart.", show_default=False
        ),
    ],
    samples: Annotated[
        Path | None,
        typer.Option(
            "--samples", metavar="FILE", help="The judged rows, JSONL. Default: samples.jsonl in the folder, if there."
        ),
    ] = None,
) -> None:
    """Write RUN_DIR/report.html: every score with the judge's reasoning, and why a pair was kept or dropped.

    One file that loads nothing and needs no server. The folder holds outcomes.jsonl, pair_outcomes.jsonl, or both.

    [bold]flexreward report runs/quickstart[/bold]
    """
    from flexreward.report import write_report

    print(write_report(run_dir, samples))
