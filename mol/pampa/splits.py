"""Which molecules train, which set thresholds, which are tested. No two parts share a connectivity block."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from flexreward.errors import SampleError
from mol.chem.identity import identity, refuse_leaks
from mol.chem.molecule import MoleculeError
from mol.pampa.recipe import Split
from mol.pampa.sources import Row, Source

Places = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """Places in ``source.rows``, each part in their order."""

    train: Places
    valid: Places
    test: Places
    dropped: Places = ()
    """Left out of ``train`` and ``valid``, since a test molecule has the same connectivity block."""


def split_rows(source: Source, split: Split) -> tuple[Fold, ...]:
    """The folds; one, but for k-fold. Together their tests hold no molecule twice.

    Raises:
        LeakError: A test molecule stands in another part, and ``split.leaks`` refuses that.
        SampleError: The split names what the data have not.
    """
    if split.kind == "kfold":
        return _kfold(source.rows, split)
    if split.kind == "scaffold":
        return (_scaffold(source.rows, split),)
    fold = _named(source, split)
    return (_without_leaks(source, fold, refuse=split.leaks == "refuse"),)


def groups_of(rows: Sequence[Row], *, scaffolds: bool) -> list[list[int]]:
    """Places of the rows that must stay together, in the order of their first.

    Args:
        scaffolds: Join molecules of one scaffold as well as those of one block, and what either joins in turn:
            tautomers have one block and may have two scaffolds.
    """
    parent = list(range(len(rows)))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    first: dict[Hashable, int] = {}
    for place, row in enumerate(rows):
        names = [("block", row.molecule.block), ("scaffold", row.molecule.scaffold)][: 2 if scaffolds else 1]
        for name in names:
            one, other = sorted((root(first.setdefault(name, place)), root(place)))
            parent[other] = one
    groups = defaultdict(list)
    for place in range(len(rows)):
        groups[root(place)].append(place)
    return list(groups.values())


def _scaffold(rows: Sequence[Row], split: Split) -> Fold:
    """Largest groups first into the training, then into the validation, until each is full; the rest is the test."""
    groups = groups_of(rows, scaffolds=True)
    groups.sort(key=lambda group: (-len(group), group[0]))
    most_train, most_valid = (1 - split.valid - split.test) * len(rows), split.valid * len(rows)
    parts: dict[str, list[int]] = {"train": [], "valid": [], "test": []}
    for group in groups:
        if len(parts["train"]) + len(group) <= most_train:
            parts["train"] += group
        elif len(parts["valid"]) + len(group) <= most_valid:
            parts["valid"] += group
        else:
            parts["test"] += group
    return Fold(**{name: tuple(sorted(places)) for name, places in parts.items()})


def _kfold(rows: Sequence[Row], split: Split) -> tuple[Fold, ...]:
    groups = groups_of(rows, scaffolds=False)
    if len(groups) < split.folds:
        raise SampleError(f"split: {len(groups)} molecules cannot make {split.folds} folds; take fewer")
    parts: list[list[int]] = [[] for _ in range(split.folds)]
    for number in np.random.default_rng(split.seed).permutation(len(groups)):
        min(parts, key=len).extend(groups[number])
    tests = [tuple(sorted(part)) for part in parts]
    folds = []
    for k, test in enumerate(tests):
        valid = tests[(k + 1) % len(tests)]
        apart = {*test, *valid}
        train = tuple(place for place in range(len(rows)) if place not in apart)
        folds.append(Fold(train=train, valid=valid, test=test))
    return tuple(folds)


def _named(source: Source, split: Split) -> Fold:
    place_of = {row.number: place for place, row in enumerate(source.rows)}
    if split.kind == "column":
        assert split.column is not None
        parts: Mapping[str, list[int]] = defaultdict(list)
        for place, row in enumerate(source.rows):
            if split.column not in row.fields:
                raise SampleError(f"{source.path}: row {row.number}: has no {split.column!r}; name another column")
            parts[row.fields[split.column].strip()].append(place)
        where = f"{source.path}: column {split.column!r}"
    elif split.kind == "data":
        skipped = {number for number, _ in source.invalid}
        where = f"{source.path}: split"
        parts = {
            name: [_at(place_of, number, f"{where}: {name}") for number in numbers if number not in skipped]
            for name, numbers in source.split.items()
        }
    else:
        assert split.path is not None
        where = str(split.path)
        parts = _from_file(source, split.path, place_of)
    if not parts.get(split.names["test"]):
        raise SampleError(f"{where}: has no part {split.names['test']!r}, only {', '.join(parts)}; set split.names")
    found = {part: tuple(sorted(parts.get(split.names.get(part, part), ()))) for part in ("train", "valid", "test")}
    return Fold(**found)


def _from_file(source: Source, path: Path, place_of: Mapping[int, int]) -> dict[str, list[int]]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SampleError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(found, dict):
        raise SampleError(f"{path}: expected {{name: [rows]}}, found {type(found).__name__}")
    named = {row.molecule.smiles: place for place, row in reversed(list(enumerate(source.rows)))}
    skipped = {number for number, _ in source.invalid}
    parts: dict[str, list[int]] = {}
    for name, values in found.items():
        places = []
        for value in values:
            if isinstance(value, int):
                if value not in skipped:
                    places.append(_at(place_of, value, f"{path}: {name}"))
                continue
            try:
                smiles = identity(str(value)).smiles
            except MoleculeError as error:
                raise SampleError(f"{path}: {name}: {error}") from error
            if smiles not in named:
                raise SampleError(f"{path}: {name}: {value} is not among the data; take the split of these data")
            places.append(named[smiles])
        parts[name] = sorted(set(places))
    return parts


def _at(place_of: Mapping[int, int], number: int, where: str) -> int:
    if number not in place_of:
        raise SampleError(f"{where}: names row {number}, and the data end at {max(place_of)}; take their own split")
    return place_of[number]


def _without_leaks(source: Source, fold: Fold, *, refuse: bool) -> Fold:
    rows = source.rows
    if refuse:
        others = {part: [rows[place].smiles for place in getattr(fold, part)] for part in ("train", "valid")}
        refuse_leaks((rows[place].smiles for place in fold.test), others)
    tested = {rows[place].molecule.block for place in fold.test}
    kept = {
        part: tuple(place for place in getattr(fold, part) if rows[place].molecule.block not in tested)
        for part in ("train", "valid")
    }
    left = {*fold.train, *fold.valid} - {*kept["train"], *kept["valid"]}
    return replace(fold, **kept, dropped=tuple(sorted(left)))
