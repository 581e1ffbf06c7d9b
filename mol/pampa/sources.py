"""Molecules with what was measured: the published ``pampa.json``, a file of TDC's, or any table with SMILES."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexreward.errors import SampleError
from mol.chem.identity import Identity, identity
from mol.chem.molecule import MoleculeError
from mol.pampa.recipe import Data, Definition, Known, Style

TABS = (".tab", ".tsv")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One molecule with what was measured of it."""

    number: int
    """Its place in the file, from 0, whatever was left out before it."""
    id: str
    smiles: str
    """As it stands in the file."""
    molecule: Identity
    fields: Mapping[str, str] = field(repr=False)
    """Everything else that stands in its row, as text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A file, read."""

    path: Path
    rows: tuple[Row, ...]
    invalid: tuple[tuple[int, str], ...] = ()
    """Number and SMILES of the rows that were left out."""
    styles: Mapping[str, Style] = field(default_factory=dict)
    """Of ``pampa.json``."""
    split: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Row numbers by the name of the part, of ``pampa.json``."""


def read_source(data: Data) -> Source:
    """All rows of a file, in its order.

    Raises:
        SampleError: It cannot be read, a field is missing, or a SMILES is no molecule; names file and row.
    """
    if data.kind == "csv":
        return _source(data, _table(data.path), {}, {})
    found = _json(data.path)
    if not isinstance(found, dict) or not isinstance(found.get("data_list"), list):
        raise SampleError(f"{data.path}: has no data_list, which pampa.json has; a table is of kind csv")
    styles = {name: Style.model_validate(style) for name, style in dict(found.get("prompts", {})).items()}
    split = {name: tuple(int(number) for number in numbers) for name, numbers in dict(found.get("split", {})).items()}
    # Conformers and element symbols stand there too. What is shown to a model is made from the SMILES, always alike.
    rows = ({k: str(v) for k, v in row.items() if not isinstance(v, list | dict)} for row in found["data_list"])
    return _source(data, rows, styles, split)


def labels_of(source: Source, name: str, definition: Definition) -> NDArray[np.int64]:
    """(N,) 1 for the positive label and 0 for the other, in the order of ``source.rows``.

    Raises:
        SampleError: A row has no such column, or a value that neither label has.
    """
    found = []
    for row in source.rows:
        where = f"{source.path}: row {row.number}"
        if definition.column not in row.fields:
            raise SampleError(f"{where}: has no {definition.column!r}, which task {name!r} reads; name another column")
        value = row.fields[definition.column].strip()
        if value in definition.positive:
            found.append(1)
        elif definition.negative is None or value in definition.negative:
            found.append(0)
        else:
            raise SampleError(
                f"{where}: {definition.column} is {value!r}, which is neither label of task {name!r}; add it to one"
            )
    return np.array(found, dtype=np.int64)


def known_molecules(known: Known) -> Iterator[str]:
    """SMILES of a file that something was trained on.

    Raises:
        SampleError: It cannot be read, or a row has no such field.
    """
    rows = _lines(known.path) if known.path.suffix in (".json", ".jsonl") else _table(known.path)
    for number, row in enumerate(rows):
        value = row.get(known.smiles)
        if value is None:
            raise SampleError(f"{known.path}: row {number}: has no {known.smiles!r}; name another column as smiles")
        yield from (value if isinstance(value, list) else [str(value)])


def _source(
    data: Data,
    rows: Iterable[Mapping[str, str]],
    styles: Mapping[str, Style],
    split: Mapping[str, tuple[int, ...]],
) -> Source:
    found, invalid = [], []
    for number, fields in enumerate(rows):
        where = f"{data.path}: row {number}"
        for column in (data.smiles, data.id):
            if column is not None and column not in fields:
                raise SampleError(f"{where}: has no {column!r}, only {', '.join(fields)}; name another column")
        smiles = fields[data.smiles].strip()
        try:
            molecule = identity(smiles)
        except MoleculeError as error:
            if not data.skip_invalid:
                raise SampleError(f"{where}: {error}, or set data.skip_invalid") from error
            invalid.append((number, smiles))
            continue
        name = str(number) if data.id is None else fields[data.id]
        found.append(Row(number=number, id=name, smiles=smiles, molecule=molecule, fields=fields))
    if not found:
        raise SampleError(f"{data.path}: holds no molecule; give another file")
    return Source(path=data.path, rows=tuple(found), invalid=tuple(invalid), styles=styles, split=split)


def _table(path: Path) -> Iterator[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for row in csv.DictReader(file, delimiter="\t" if path.suffix in TABS else ","):
                yield {name: value or "" for name, value in row.items() if name is not None}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SampleError(f"{path}: cannot be read as a table: {error}") from error


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        text = path.read_text("utf-8")
        found = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines()]
    except (OSError, ValueError) as error:
        raise SampleError(f"{path}: cannot be read as JSON: {error}") from error
    for row in found:
        if isinstance(row, dict):
            yield row


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SampleError(f"{path}: cannot be read as JSON: {error}") from error
