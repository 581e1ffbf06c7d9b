"""Pairs whose prompts show images: a place in the messages for each image, and the images in a column beside them.

They go into the file itself, in Parquet: a folder that is moved or uploaded stays whole, and a trainer gets pictures
from ``datasets``, where a path in JSONL would be a text that one machine can open. Neighbouring pairs share the bytes
of their prompt's image.
"""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

from flexreward.errors import SampleError
from flexreward.files.outcomes import encode
from flexreward.files.whole import replaced
from flexreward.media.bounds import read_media
from flexreward.media.limits import LIMITS, MIB, Limits
from flexreward.types import Media, Message, Part, Text

IMAGES = "images"
"""The column that trainers look for."""
ROWS = 64
"""In a group of the file, which is what a reader holds at once."""

Turns = list[dict[str, Any]]


def prompt_turns(prompt: Text, media: Sequence[Media]) -> tuple[Turns, list[Media]]:
    """The prompt as messages of parts, and the images in the order of their places.

    Args:
        media: Images of the prompt as a whole; their places are at the beginning of the first user turn.
    """
    turns = (Message(role="user", content=prompt),) if isinstance(prompt, str) else prompt
    first = next((i for i, turn in enumerate(turns) if turn.role == "user"), 0)
    shown: list[Media] = []
    written: Turns = []
    for i, turn in enumerate(turns):
        parts = (turn.content,) if isinstance(turn.content, str) else turn.content
        parts = (*media, *parts) if i == first else parts
        shown += [part for part in parts if isinstance(part, Media)]
        written.append({"role": turn.role, "content": [_part(part) for part in parts]})
    return written, shown


def in_parts(turns: Sequence[Mapping[str, str]]) -> Turns:
    """Messages of texts, in the shape that messages with images have: a column holds one shape."""
    return [{"role": turn["role"], "content": [_part(turn["content"])]} for turn in turns]


def _part(part: Part) -> dict[str, Any]:
    # Without a key "image": chat templates take a part that has one for an image, whatever its value.
    return {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "text": None}


class Packer:
    """Rows with images on their way into one Parquet file, whose columns are known when all rows are."""

    def __init__(self, stage: BinaryIO, limits: Limits) -> None:
        self._stage = stage
        self._limits = limits

    def write(self, row: Mapping[str, Any], images: Sequence[Media]) -> None:
        """Add one row."""
        places = [
            {"path": str(image.path)} if image.data is None else {"data": base64.b64encode(image.data).decode()}
            for image in images
        ]
        self._stage.write(encode({"row": row, "images": places}))

    def rows(self, *, read: bool) -> Iterator[dict[str, Any]]:
        """What was written, with the bytes of its images or without."""
        self._stage.seek(0)
        for line in self._stage:
            staged = json.loads(line)
            row = staged["row"]
            if read:
                row[IMAGES] = [{"bytes": self._bytes(place), "path": None} for place in staged["images"]]
            yield row

    def _bytes(self, place: Mapping[str, str]) -> bytes:
        if "data" in place:
            return base64.b64decode(place["data"])
        return read_media(Media(kind="image", path=Path(place["path"])), self._limits)


@contextmanager
def packed(path: Path, *, limits: Limits = LIMITS) -> Iterator[Packer]:
    """A Parquet file to write rows to; there whole when the block ends well, or not at all.

    Raises:
        SampleError: A column holds values of different kinds.
        MediaError: An image cannot be read any more.
        OutputError: The file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Features, Image, List

    with replaced(path) as file, TemporaryFile(dir=path.parent) as stage:
        packer = Packer(stage, limits)
        yield packer
        try:
            schemas = [pa.Table.from_pylist(rows).schema for rows in _groups(packer.rows(read=False))]
            schema = pa.unify_schemas(schemas, promote_options="permissive") if schemas else pa.schema([])
        except pa.ArrowException as error:
            reason = str(error).splitlines()[0]
            raise SampleError(
                f"{path}: a column that is carried through holds values of different kinds ({reason}); leave it out "
                "with --map COLUMN="
            ) from error
        features = Features.from_arrow_schema(schema) | {IMAGES: List(Image())}
        schema = Features(features).arrow_schema
        with pq.ParquetWriter(file, schema, dictionary_pagesize_limit=256 * MIB) as writer:
            for rows in _groups(packer.rows(read=True)):
                writer.write_table(pa.Table.from_pylist(rows, schema))


def _groups(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while group := list(itertools.islice(rows, ROWS)):
        yield group
