"""``flexreward doctor``: what is here, what does not fit, and the command that mends it."""

from __future__ import annotations

from typing import Annotated

import typer


def doctor(
    store: Annotated[
        str | None, typer.Option("--store", metavar="FILE", help="Another store than the default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON.")] = False,
) -> None:
    """Look over this installation: versions, accelerator, the bundled judge, the store, and what is missing.

    Exit 1 when something is broken. What is only missing (an extra, a GPU) is named with the command that adds it.

    [bold]flexreward doctor[/bold]
    """
    import json
    from pathlib import Path

    from flexreward import health

    findings = health.look_over(Path(store) if store else None)
    if as_json:
        print(json.dumps({"findings": [finding._asdict() for finding in findings]}, ensure_ascii=False))
    else:
        for finding in findings:
            print(f"{finding.state:<8} {finding.name:<14} {finding.found}")
            if finding.remedy:
                print(f"{'':<8} {'':<14} -> {finding.remedy}")
    raise typer.Exit(1 if any(finding.state == health.BROKEN for finding in findings) else 0)
