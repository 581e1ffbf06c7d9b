"""``Featuriser``: many molecules, in worker processes, each made once and then read from disk.

Embedding takes tens of milliseconds and holds the interpreter, so that threads gain nothing. RDKit parses text that a
model or a stranger wrote, in C++: it can crash, and no limit of its own stops InChI or a ring search that does not end.
So nothing of a text is read in this process, and every text has a time limit and a process that it can take with it.
Pebble's pool gives both; what workers send here comes from this process's own children.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import TracebackType
from typing import Self

from pebble import ProcessExpired, ProcessPool

from flexreward.errors import UserError
from mol.chem.molecule import Molecule, MoleculeError, Read, check_seed, made_of, naming, shown
from mol.chem.shelf import Shelf

AHEAD = 16
"""Molecules in flight per worker, so that a slow one at the head keeps nobody waiting."""
STARTS = 3
"""Pools that may break as a whole before a text is given up."""

Found = Molecule | MoleculeError


class Featuriser:
    """Molecules by text; close it, or use it as a context. It may be called from several threads.

    Workers are started at the first use, as fresh processes that import the program's main module: a script keeps its
    start under ``if __name__ == "__main__":``. A ``DataLoader``'s worker may have no children and takes ``workers=0``.
    """

    def __init__(
        self,
        *,
        cache: Path | str | None = None,
        workers: int | None = None,
        seed: int = 0,
        limit_s: float = 120.0,
    ) -> None:
        """
        Args:
            cache: A folder, shared by as many processes as like; ``None`` keeps nothing. Blocks with coordinates of
                their own are not kept: reading them takes no longer.
            workers: Processes; ``None`` for one a core that this process may use, 0 for this process itself, where
                nothing guards against a text that does not end.
            seed: Of the embedding; no other molecule is made of it for another number of workers.
            limit_s: Seconds that one text may take in a worker, from when the worker takes it.
        """
        check_seed(seed)
        if workers is not None and workers < 0:
            raise ValueError(f"workers: {workers}, expected 0 or more")
        if limit_s <= 0:
            raise ValueError(f"limit_s: {limit_s:g}, expected more than 0 seconds")
        self.seed, self.limit_s = seed, limit_s
        self.workers = _num_cores() if workers is None else workers
        self._shelf = Shelf(folder=Path(cache)) if cache is not None else None
        self._lock = threading.Lock()
        self._pool: ProcessPool | None = None

    def featurise(self, text: str) -> Molecule:
        """The molecule of one SMILES or SDF block.

        Raises:
            MoleculeError: As ``mol.chem.molecule.featurise``; or it took longer than the limit, or ended its worker.
        """
        (found,) = self.featurise_all([text])
        if isinstance(found, MoleculeError):
            raise found
        return found

    def featurise_all(self, texts: Iterable[str]) -> Iterator[Found]:
        """A molecule or its error for each text, in their order, each as soon as those before it are there.

        ``texts`` is read ``AHEAD`` per worker ahead of what was yielded, and no further. Texts that are equal are made
        once where both are in flight. What is in flight when the iterator is closed still ends, and is kept on disk.

        Raises:
            UserError: The workers cannot be started.
        """
        if not self.workers:
            yield from (_outcome(text, self.seed, self._shelf) for text in texts)
            return
        waiting: deque[tuple[str, Future[Found]]] = deque()
        for text in texts:
            same = next((future for other, future in reversed(waiting) if other == text), None)
            waiting.append((text, same or self._submit(text)))
            while waiting and (len(waiting) >= AHEAD * self.workers or waiting[0][1].done()):
                yield self._settled(*waiting.popleft())
        while waiting:
            yield self._settled(*waiting.popleft())

    def close(self) -> None:
        """End the workers; what they do is lost. The next use starts others."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.stop()
            pool.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _submit(self, text: str) -> Future[Found]:
        with self._lock:
            if self._pool is not None and not self._pool.active:
                self._pool.stop()
                self._pool.join()
                self._pool = None
            if self._pool is None:
                # Not forked: a fork of a process with threads (torch has some) may hang.
                context = multiprocessing.get_context("forkserver")
                self._pool = ProcessPool(max_workers=self.workers, initializer=_begin, context=context)
            return self._pool.schedule(_outcome, args=(text, self.seed, self._shelf), timeout=self.limit_s)

    def _settled(self, text: str, future: Future[Found]) -> Found:
        for _ in range(STARTS):
            try:
                return future.result()
            except TimeoutError:
                return MoleculeError(
                    f"{shown(text)}: not made within {self.limit_s:g} s; leave it out or raise limit_s"
                )
            except ProcessExpired as error:
                return MoleculeError(f"{shown(text)}: ended its worker (exit code {error.exitcode}); leave it out")
            except BrokenProcessPool:  # a worker died with nothing to do, and took the pool with it
                future = self._submit(text)
        raise UserError(
            "workers: they end before they begin; put the start of the program under "
            'if __name__ == "__main__", or take workers=0'
        )


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _begin() -> None:
    # Ctrl-C reaches the whole group of processes; the one that asked ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "this runs in a worker"
    parent.join()
    # At a long embedding, whose result nobody waits for: RDKit lets other threads run meanwhile.
    os._exit(1)


def _outcome(text: str, seed: int, shelf: Shelf | None) -> Found:
    """One text, from the shelf where it is there; an error is a value, since it is its molecule's alone."""
    try:
        with naming(text):
            read = Read.of(text)
            keep = shelf if read.given is None else None
            molecule = keep.get(read.smiles, seed=seed) if keep else None
            if molecule is None:
                molecule = made_of(read, seed=seed)
                if keep:
                    keep.put(molecule, seed=seed)
            return molecule
    except MoleculeError as error:
        return error
