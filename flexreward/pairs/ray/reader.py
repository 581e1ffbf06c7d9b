"""The rows as a Ray Dataset: one task reads them in their order, and every block holds one part of them."""

from __future__ import annotations

import itertools
import os
import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from flexreward.errors import FlexRewardError
from flexreward.files.samples import Sample
from flexreward.pairs.ray.parts import other_rows, rows_digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Which rows are read, and how they are cut."""

    prompts: Callable[[], Iterator[Sample]]
    rows: int
    """Of the input, in one part."""
    standing: Mapping[int, str]
    """Parts that are there, with the digests of their rows; they are passed over."""
    folder: str
    """Where relative paths begin."""


def blocks(reading: Reading) -> Iterator[Any]:
    """A table of one line for each part that is to be made: its ``number``, the ``digest`` of its rows, and they.

    The last line has an empty digest, the number of all parts, and in place of rows what is wrong with the next one, if
    the input ended so: rows before it that are no whole part are left for a run over a mended input.
    """
    with suppress(OSError):
        os.chdir(reading.folder)
    number = 0
    error: FlexRewardError | None = None
    try:
        samples = reading.prompts()
        while part := list(itertools.islice(samples, reading.rows)):
            digest = rows_digest(part)
            if (there := reading.standing.get(number)) not in (None, digest):
                raise other_rows(number)
            if there is None:
                yield _block(number, digest, part)
            number += 1
    except FlexRewardError as wrong:
        error = wrong
    yield _block(number, "", error)


def dataset(reading: Reading, *, node: str) -> Any:
    """What ``blocks`` yields, as a lazy data set that keeps to Ray Data's bounds.

    Args:
        node: Id of the one that the rows are read on.
    """
    import ray.data
    from ray.data import Datasource, ReadTask
    from ray.data.block import BlockMetadata

    class Rows(Datasource):  # type: ignore[misc]  # Ray has no types here
        def estimate_inmemory_data_size(self) -> int | None:
            return None

        def get_read_tasks(self, parallelism: int, *args: Any, **options: Any) -> list[Any]:
            about = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
            return [ReadTask(lambda: blocks(reading), about)]

    # The machine that the command runs on has its files.
    return ray.data.read_datasource(Rows(), override_num_blocks=1, num_cpus=0, label_selector={"ray.io/node-id": node})


def _block(number: int, digest: str, what: list[Sample] | FlexRewardError | None) -> Any:
    import pyarrow as pa

    return pa.table(
        {
            "number": pa.array([number], pa.int64()),
            "digest": pa.array([digest], pa.string()),
            "rows": pa.array([pickle.dumps(what)], pa.large_binary()),
        }
    )
