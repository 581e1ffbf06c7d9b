"""Molecules on disk, a safetensors file each: a format that runs no code.

A file's name is the digest of all that its content follows from: canonical SMILES, seed, RDKit's version and ``FORM``.
So nothing is ever changed in place, processes share a folder without locks, and an older RDKit's coordinates are not
mixed with a newer one's. Files take their place whole. One that is torn all the same (a crashed machine) is told by its
digest, counts as absent and is written anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rdkit import rdBase
from safetensors import SafetensorError
from safetensors.numpy import load, save

from mol.chem.molecule import Molecule

FORM = 1
"""Counts up when the same SMILES, seed and RDKit give another ``Molecule``."""
ARRAYS = {"atoms_N9": np.int64, "edges_2E": np.int64, "bonds_E3": np.int64, "coords_A3": np.float32}

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    folder: Path

    def path(self, smiles: str, *, seed: int) -> Path:
        """Where a molecule lies, if it does."""
        settings = {"form": FORM, "rdkit": rdBase.rdkitVersion, "seed": seed, "smiles": smiles}
        name = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:40]
        return self.folder / name[:2] / f"{name}.safetensors"

    def get(self, smiles: str, *, seed: int) -> Molecule | None:
        """The molecule of a canonical SMILES; ``None`` where it is absent or torn."""
        try:
            content = self.path(smiles, seed=seed).read_bytes()
        except OSError:
            return None
        try:
            molecule = decoded(content)
        except (SafetensorError, KeyError, ValueError):
            return None
        return molecule if molecule.smiles == smiles else None

    def put(self, molecule: Molecule, *, seed: int) -> None:
        """Keep a molecule. Where it cannot be written it is made again next time, and the log says so."""
        path = self.path(molecule.smiles, seed=seed)
        # No fsync: it would take longer than some embeddings, and a torn file is only made anew.
        part = path.with_name(f".{uuid.uuid4().hex}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                part.write_bytes(encoded(molecule))
                os.replace(part, path)
            finally:
                part.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("%s: a molecule cannot be kept: %s", path, error.strerror)


def encoded(molecule: Molecule) -> bytes:
    """One safetensors file; the same molecule gives the same bytes."""
    arrays = {name: getattr(molecule, name) for name in ARRAYS}
    texts = {
        "smiles": molecule.smiles,
        "symbols": " ".join(molecule.symbols),
        "made": molecule.made,
        "inchikey_block": molecule.inchikey_block,
    }
    # In one entry: safetensors writes several in an order of its own each time.
    return bytes(save(arrays, {"molecule": json.dumps({"texts": texts, "digest": _digest(arrays, texts)})}))


def decoded(content: bytes) -> Molecule:
    """The molecule in a file's content.

    Raises:
        SafetensorError, KeyError, ValueError: It is torn, or is something else.
    """
    arrays = load(content)
    size = int.from_bytes(content[:8], "little")
    told = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["molecule"])
    texts = told["texts"]
    if arrays.keys() != ARRAYS.keys() or told["digest"] != _digest(arrays, texts):
        raise ValueError("the content is not what its digest says")
    return Molecule(**arrays, **{**texts, "symbols": tuple(texts["symbols"].split())})


def _digest(arrays: dict[str, np.ndarray], texts: dict[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(texts, sort_keys=True).encode())
    for name, kind in ARRAYS.items():
        array = arrays[name]
        if array.dtype != kind:
            raise ValueError(f"{name} is {array.dtype}")
        digest.update(f"{name}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
