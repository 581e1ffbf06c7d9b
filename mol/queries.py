"""Molecules as rows of a LLaMA's input, for many callers: each molecule is encoded once, those that wait together.

    SMILES -> Featuriser (processes) -> collate -> MoleculeEncoder -> Embeddings, kept by canonical SMILES

Shapes: B molecules, Q queries of one, D width of the LLaMA.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import rdkit
import torch

from flexreward.engines.base import Embeddings
from flexreward.errors import EngineError, JudgeError, RefusedError
from flexreward.fingerprint import digest
from mol.batch import collate
from mol.chem.cache import Featuriser
from mol.chem.molecule import Molecule, MoleculeError
from mol.model import WEIGHTS, MoleculeEncoder, read_config

MOST_KEPT_BYTES = 512 << 20
"""Of queries; those of one molecule before an 8B LLaMA are 128 KiB."""
MOST_TEXTS = 1 << 18
"""Spellings whose canonical SMILES are known."""
PAIRS = 1 << 19
"""Pairs of atoms in one forward, padding included: the 3D encoder's memory grows with them."""
log = logging.getLogger(__name__)


class Queries:
    """What the molecule part of a Mol-LLaMA folder makes of SMILES. For any thread.

    Args:
        folder: Of the Mol-LLaMA; its LLaMA is not read.
        device: ``auto`` is the GPU where there is one.
        batch_size: Molecules in one forward, at most.
        featuriser: Closed with this.

    Raises:
        JudgeError: It is no such folder.
    """

    def __init__(self, folder: Path, *, featuriser: Featuriser, device: str = "auto", batch_size: int = 32) -> None:
        config = read_config(folder)
        self.device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
        # In float32 wherever the LLaMA runs: the part is small, and its encoders were trained so.
        self._encoder = MoleculeEncoder.from_pretrained(folder, config=config, dtype=torch.float32).to(self.device)
        self._featuriser = featuriser
        self._batch_size = batch_size
        self.num_queries, self.width = config.num_queries, config.llm.hidden_size
        self.num_encoded = 0
        """Molecules that went through the encoders so far."""
        self.num_forwards = 0
        self._kept: OrderedDict[str, Embeddings] = OrderedDict()
        """By canonical SMILES, the one used last at the end."""
        self._num_bytes = 0
        self._known: dict[str, str] = {}
        """Canonical SMILES by text."""
        self._under_way: dict[str, Future[Embeddings]] = {}
        self._waiting: deque[str] = deque()
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def begin(self, smiles: Sequence[str]) -> list[Future[Embeddings]]:
        """The queries (Q, D) of each molecule, as they come; equal texts share one.

        Each may raise RefusedError: the text is no molecule that can be used; names it. Or EngineError: the encoders
        failed.
        """
        with self._wake:
            if self._closed:
                raise EngineError("the encoder is closed")
            found = [self._begun(text) for text in smiles]
            if self._waiting:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._serve, name="mol-queries", daemon=True)
                    self._thread.start()
                self._wake.notify()
        return found

    def now(self, smiles: Sequence[str]) -> list[Embeddings]:
        """``begin`` for a caller that may wait."""
        return [future.result() for future in self.begin(smiles)]

    def close(self) -> None:
        """Free the encoders. What is under way fails."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join()
        self._fail(list(self._under_way), EngineError("the encoder was closed"))
        self._featuriser.close()
        self._kept.clear()
        del self._encoder

    def _begun(self, text: str) -> Future[Embeddings]:
        if (canonical := self._known.get(text)) in self._kept:
            self._kept.move_to_end(canonical)
            done: Future[Embeddings] = Future()
            done.set_result(self._kept[canonical])
            return done
        if (future := self._under_way.get(text)) is None:
            future = self._under_way[text] = Future()
            self._waiting.append(text)
        return future

    def _serve(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                texts = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._batch_size))]
            try:
                self._settle(texts)
            except Exception as error:  # whatever the encoders raise, the next molecules must live
                log.exception("the molecule encoders failed")
                self._fail(texts, EngineError(f"the molecule encoders failed: {type(error).__name__}: {error}"))

    def _settle(self, texts: Sequence[str]) -> None:
        made: dict[str, Molecule] = {}
        for text, found in zip(texts, self._featuriser.featurise_all(texts), strict=True):
            if isinstance(found, MoleculeError):
                self._fail([text], RefusedError(f"molecule {found}"))
            else:
                made[text] = found
        new = {molecule.smiles: molecule for molecule in made.values() if molecule.smiles not in self._kept}
        for batch in batches(list(new.values())):
            self._keep(batch)
        for text, molecule in made.items():
            with self._wake:
                if len(self._known) >= MOST_TEXTS:
                    self._known.clear()
                self._known[text] = molecule.smiles
                found_rows = self._kept[molecule.smiles]
            self._under_way.pop(text).set_result(found_rows)
        self._make_room()

    @torch.inference_mode()
    def _keep(self, molecules: Sequence[Molecule]) -> None:
        queries_BQD = self._encoder(collate(molecules).to(self.device)).float().cpu().numpy()
        self.num_encoded += len(molecules)
        self.num_forwards += 1
        with self._wake:
            for molecule, rows_QD in zip(molecules, queries_BQD, strict=True):
                self._kept[molecule.smiles] = Embeddings(rows_TD=rows_QD.copy())
                self._num_bytes += rows_QD.nbytes

    def _make_room(self) -> None:
        with self._wake:
            while self._num_bytes > MOST_KEPT_BYTES and len(self._kept) > 1:
                _, oldest = self._kept.popitem(last=False)
                self._num_bytes -= oldest.rows_TD.nbytes

    def _fail(self, texts: Sequence[str], error: EngineError) -> None:
        with self._wake:
            left = [future for text in texts if (future := self._under_way.pop(text, None)) is not None]
        for future in left:
            future.set_exception(error)


def batches(molecules: Sequence[Molecule]) -> Iterator[list[Molecule]]:
    """The molecules by size, in batches whose padded pairs of atoms fit into memory."""
    batch: list[Molecule] = []
    for molecule in sorted(molecules, key=lambda molecule: len(molecule.symbols)):
        if batch and (len(batch) + 1) * (len(molecule.symbols) + 2) ** 2 > PAIRS:
            yield batch
            batch = []
        batch.append(molecule)
    if batch:
        yield batch


def part_digest(folder: Path) -> str:
    """sha256 hex of the molecule part: its weights, its sizes, and the width that it is projected to.

    Raises:
        JudgeError: The folder has none.
    """
    config = read_config(folder)
    path = folder / WEIGHTS
    if not path.is_file():
        raise JudgeError(f"{folder}: no {WEIGHTS}, which holds the molecule part")
    with path.open("rb") as file:
        weights = hashlib.file_digest(file, "sha256").hexdigest()
    parts = {name: getattr(config, name).to_diff_dict() for name in ("moleculestm", "unimol", "blending", "qformer")}
    return digest([weights, parts, config.llm.hidden_size])


_SHARED: dict[tuple[Any, ...], tuple[Queries, int]] = {}
"""Those that are open, each with how many hold it."""
_LOCK = threading.Lock()


class Hold:
    """A place among those who share the queries of one molecule part: judges and policies whose encoders are the same.

    Args:
        folder: Of the Mol-LLaMA.
        cache: Folder for conformers that were made; ``None`` keeps none on disk.
        workers: Processes that make them; ``None`` for one a core.
        seed: Of the conformers.
    """

    def __init__(
        self,
        folder: Path,
        *,
        device: str = "auto",
        batch_size: int = 32,
        cache: str | Path | None = None,
        workers: int | None = None,
        seed: int = 0,
    ) -> None:
        self.digest = part_digest(folder)
        self.identity = {"molecules": self.digest, "conformers": f"rdkit {rdkit.__version__}, seed {seed}"}
        """What the rows depend on."""
        self._key = (self.digest, device, batch_size, str(cache), workers, seed)
        with _LOCK:
            queries, num = _SHARED.get(self._key, (None, 0))
            if queries is None:
                featuriser = Featuriser(cache=cache, workers=workers, seed=seed)
                queries = Queries(folder, featuriser=featuriser, device=device, batch_size=batch_size)
            _SHARED[self._key] = queries, num + 1
        self.queries = queries
        self._held = True

    def release(self) -> None:
        """Give the place up; the last one to do so frees the encoders."""
        with _LOCK:
            if not self._held:
                return
            self._held = False
            queries, num = _SHARED.pop(self._key)
            if num > 1:
                _SHARED[self._key] = queries, num - 1
                return
        queries.close()
