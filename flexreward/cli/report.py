"""``flexreward report``: a run folder as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    run_dir: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="What judge, best-of-n, pairs or eval wrote by --out: a folder or a file.",
            show_default=False,
        ),
    ],
    samples: Annotated[
        Path | None,
        typer.Option(
            "--samples", metavar="FILE", help="The judged rows, JSONL. Default: samples.jsonl in the folder, if there."
        ),
    ] = None,
) -> None:
    """Write RUN/report.html: every score with the judge's reasoning, and why a pair was kept or dropped.

    One file that loads nothing and needs no server. A folder holds outcomes.jsonl, pair_outcomes.jsonl, or both;
    for a file such as best.jsonl the page is best.report.html beside it. The folder of an eval gets report.md and
    card.md as well. What 2,000 verdicts, or 2,000 pairs of a folder of pairs, exceed lies in report.shards beside the
    page.

    [bold]flexreward report runs/quickstart[/bold]
    """
    from flexreward.report import write_report

    print(write_report(run_dir, samples))
