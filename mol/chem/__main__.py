"""``python -m mol.chem FILE``: make all molecules of a table, and say which could not be, or not by ETKDG alone.

The 2,033 molecules of PAMPA (NCATS, pH 7.4), seed 0: 2,005 ``etkdg``, 15 ``etkdg-apart``, 12 ``etkdg-random``, and one
``etkdg-loose``, an artemisinin whose written stereo no geometry has; no error (RDKit 2026.09.1, 2026-11-27).
"""

from __future__ import annotations

import csv
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from flexreward.errors import SampleError, UserError
from mol.chem.cache import Featuriser
from mol.chem.molecule import MoleculeError, shown


def main(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV, or tabs between the columns; with a header.")],
    column: Annotated[str, typer.Option(help="Where the SMILES stand.")] = "smiles",
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="The first N rows alone.")] = None,
    cache: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep them there; the next run goes on, trainings read them.")
    ] = None,
    workers: Annotated[int | None, typer.Option(metavar="N", min=0, help="Processes; one a core.")] = None,
    limit_s: Annotated[float, typer.Option(metavar="S", help="Seconds that one molecule may take.")] = 120.0,
) -> None:
    """A line for each molecule that is an error or has another word than etkdg, then how many of each there are."""
    try:
        with Featuriser(cache=cache, workers=workers, limit_s=limit_s) as featuriser:
            counts: Counter[str] = Counter()
            texts = list(islice(column_of(file, column), limit))
            for text, found in zip(texts, featuriser.featurise_all(texts), strict=True):
                made = "error" if isinstance(found, MoleculeError) else found.made
                counts[made] += 1
                if made != "etkdg":
                    print(f"{made}\t{found if isinstance(found, MoleculeError) else shown(text)}", flush=True)
    except (UserError, ValueError) as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from error
    print(f"{len(texts):,} molecules: " + ", ".join(f"{count:,} {made}" for made, count in counts.most_common()))


def column_of(file: Path, column: str) -> Iterator[str]:
    """One column of a table, row by row.

    Raises:
        SampleError: The file cannot be read or has no such column.
    """
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            header = lines.readline()
            lines.seek(0)
            # With tabs, quotes are part of a text, as in ChEBI-20.
            tabs = "\t" in header
            rows = csv.DictReader(
                lines, delimiter="\t" if tabs else ",", quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL
            )
            names = rows.fieldnames or []
            if column not in names:
                raise SampleError(f"{file}: no column {column!r}, expected one of {', '.join(names)}; use --column")
            for row in rows:
                yield row[column] or ""
    except OSError as error:
        raise SampleError(f"{file}: cannot be read: {error.strerror}") from error


if __name__ == "__main__":
    typer.run(main)
