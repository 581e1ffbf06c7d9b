"""``flexreward store``: look after the replies that were kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from flexreward.ledger.store import Store

store_app = typer.Typer(
    help="Verify, export and prune the replies that were kept.", no_args_is_help=True, rich_markup_mode="rich"
)

StoreFile = Annotated[
    Path | None,
    typer.Option("--store", metavar="FILE", help="Which store. Default: flexreward/store.sqlite in the user's cache."),
]
AsJson = Annotated[bool, typer.Option("--json", help="One line of JSON on stdout.")]


@store_app.command()
def verify(
    store: StoreFile = None,
    judge: Annotated[
        str | None,
        typer.Option("--judge", metavar="J", help="Draw a sample of this judge's replies again and compare."),
    ] = None,
    sample: Annotated[int, typer.Option("--sample", metavar="N", min=1, help="Replies to draw again.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Check the file and every row, and with --judge a sample of the replies; exit 1 if anything is wrong."""
    import asyncio
    import json

    from flexreward.config import open_engine, resolve_judge
    from flexreward.ledger.audit import Audit, audit

    opened = _open(store)
    engine = open_engine(resolve_judge(judge)) if judge else None

    async def run() -> Audit:
        try:
            return await audit(opened, engine=engine, sample=sample)
        finally:
            if engine:
                await engine.close()

    with opened:
        found = asyncio.run(run())
    if as_json:
        print(json.dumps({"store": str(opened.path), **found.as_json(), "set_aside": [*map(str, opened.set_aside)]}))
    else:
        print(f"{opened.path}: {found.num_rows} rows, {found.num_damaged} damaged")
        for fault in found.faults:
            print(f"  structure: {fault}")
        if engine:
            differ = f", {len(found.different)} different" + "".join(f" {key[:16]}" for key in found.different)
            failed = f", {found.num_failed} failed" if found.num_failed else ""
            print(f"  drawn again: {found.num_same} the same{differ}{failed}; {found.num_others} rows of other engines")
    raise typer.Exit(0 if found.sound and not opened.set_aside else 1)


@store_app.command()
def export(
    store: StoreFile = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="A new file, for your eyes only. Default: stdout.")
    ] = None,
) -> None:
    """Write every row as a line of JSON: key, times, engine, prompt, sampling, replies."""
    import json
    import os
    import sys

    from flexreward.errors import OutputError

    with _open(store) as opened:
        try:
            handle = sys.stdout.fileno() if out is None else os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError as error:
            raise OutputError(f"{out}: is there already; name another file or remove it") from error
        except OSError as error:
            raise OutputError(f"{out}: cannot be written ({error.strerror})") from error
        count = 0
        with open(handle, "w", closefd=out is not None) as file:
            for row in opened.rows():
                if row.value is not None:
                    head = {"key": row.key, "created_s": row.created_s, "used_s": row.used_s}
                    file.write(json.dumps(head | json.loads(row.value)) + "\n")
                    count += 1
    print(f"{count} rows exported, {opened.num_damaged} damaged left out", file=sys.stderr)


@store_app.command()
def prune(
    days: Annotated[float, typer.Option("--days", min=0, help="Remove what was not used for so many days.")],
    store: StoreFile = None,
    as_json: AsJson = False,
) -> None:
    """Remove what was long not used, and give the room on the disk back."""
    import json

    with _open(store) as opened:
        removed = opened.prune(days=days)
        kept = len(opened)
    size = opened.path.stat().st_size
    if as_json:
        print(json.dumps({"store": str(opened.path), "removed": removed, "kept": kept, "bytes": size}))
    else:
        print(f"{opened.path}: {removed} rows removed, {kept} kept, {size / 2**20:.1f} MiB")


def _open(path: Path | None) -> Store:
    """The store at ``path``; unlike judging, looking after one does not make one."""
    import sys

    from flexreward.errors import RecipeError
    from flexreward.ledger.store import Store, default_path

    path = path or default_path()
    if not path.is_file():
        raise RecipeError(f"{path}: no store is there; judging makes one, or name another with --store")
    return Store(path, notify=lambda line: print(f"flexreward: {line}", file=sys.stderr))
