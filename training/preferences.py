"""Preference pairs on their way into a trainer: read, brought into one shape, measured, and parted by prompt."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, Image, List
from PIL import Image as Picture
from trl.data_utils import extract_prompt

from flexreward.errors import SampleError
from flexreward.files.columns import names_of, shown
from flexreward.files.rows import folder_of, read_rows
from flexreward.pairs.build import train_file

SIDES = ("chosen", "rejected")
IMAGES = "images"
USED = ("prompt", *SIDES, IMAGES, "tools", "chat_template_kwargs")
"""Columns that reach the trainer. Where a pair comes from is noted by the run instead."""
UNDECODED, DECODED = List(Image(decode=False)), List(Image())


class Pairs(NamedTuple):
    """Preference pairs as TRL's trainers take them."""

    rows: Dataset
    judges: dict[str, int]
    """Fingerprints of the judges that chose, where the rows name them, with the number of pairs of each."""

    @property
    def with_images(self) -> bool:
        return IMAGES in self.rows.column_names


def source_of(data: str) -> str:
    """The file of a folder that ``flexreward pairs`` wrote; anything else as it is."""
    file = train_file(Path(data))
    return str(file) if file.is_file() else data


def read_pairs(source: str, *, chat: bool) -> Pairs:
    """All pairs of a source (see ``flexreward.files.rows.read_rows``).

    Args:
        chat: Whether a prompt that is a text becomes a user's turn.

    Raises:
        SampleError: One line: a row is no pair, or there are none.
    """
    path = Path(source)
    if path.suffix == ".parquet" and path.is_file() and IMAGES in pq.read_schema(path).names:
        return _on_disk(path)
    rows, folder = [], folder_of(source)
    judges: Counter[str] = Counter()
    for row in read_rows(source):
        if row.fields.get("judge"):
            judges[str(row.fields["judge"])] += 1
        rows.append(_pair(row.fields, row.where, folder, chat))
    try:
        dataset = Dataset.from_list(rows)
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise SampleError(f"{source}: some rows hold texts where others hold messages ({reason})") from error
    return Pairs(dataset.cast_column(IMAGES, DECODED) if IMAGES in dataset.column_names else dataset, dict(judges))


def _on_disk(path: Path) -> Pairs:
    """Pairs with images, which are left where they are until they are shown."""
    dataset = Dataset.from_parquet(str(path))
    if not len(dataset):
        raise SampleError(f"{path}: holds no pairs")
    judges = Counter(dataset["judge"]) if "judge" in dataset.column_names else {}
    for side in ("prompt", *SIDES):
        if side not in dataset.column_names or isinstance(dataset[0][side], str):
            raise SampleError(f"{path}: {side} must hold messages where there are images; flexreward pairs writes such")
    if "molecules" in dataset.column_names:
        raise SampleError(f"{path}: brings molecules, which this model is not shown beside images; leave them out")
    dataset = dataset.select_columns([name for name in USED if name in dataset.column_names])
    return Pairs(dataset.cast_column(IMAGES, DECODED), dict(judges))


def _pair(fields: Mapping[str, Any], where: str, folder: Path, chat: bool) -> dict[str, Any]:
    if missing := [side for side in SIDES if not fields.get(side)]:
        raise SampleError(f"{where}: no {missing[0]!r}, which a preference pair has; it has {names_of(fields)}")
    if fields.get("molecules"):
        raise SampleError(
            f"{where}: brings molecules, which this model is not shown; training.mol_dpo trains one that is"
        )
    row = {name: fields[name] for name in USED if name in fields}
    if "prompt" not in row:  # what both sides begin with
        row |= extract_prompt(row)
    for name in ("prompt", *SIDES):
        if not isinstance(row[name], str | list):
            raise SampleError(f"{where}: {name} is {shown(row[name])}, expected text or messages")
    if row.get(IMAGES) is None:
        row.pop(IMAGES, None)
    if chat or IMAGES in row or not isinstance(row["prompt"], str):
        row["prompt"] = _turns(row["prompt"], "user")
        row |= {side: _turns(row[side], "assistant") for side in SIDES}
    if IMAGES in row:
        row |= {name: [_in_parts(turn) for turn in row[name]] for name in ("prompt", *SIDES)}
        row[IMAGES] = [str(folder / one) if isinstance(one, str) else one for one in row[IMAGES]]
    return row


def _turns(text: Any, role: str) -> Any:
    return [{"role": role, "content": text}] if isinstance(text, str) else text


def _in_parts(turn: Mapping[str, Any]) -> dict[str, Any]:
    """One shape for every turn: a column holds no other."""
    content = turn["content"]
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return {"role": turn["role"], "content": [{"type": one["type"], "text": one.get("text")} for one in parts]}


class Parted(NamedTuple):
    train: Dataset
    held_out: Dataset | None


def part(rows: Dataset, *, share: float, seed: int) -> Parted:
    """Hold out the pairs of a share of the prompts, drawn from the seed; at least one prompt, never all of them."""
    keys = [hashlib.sha256(f"{seed}:{prompt}".encode()).hexdigest() for prompt in prompts_of(rows)]
    drawn = sorted(set(keys))
    number = min(max(round(share * len(drawn)), 1), len(drawn) - 1)
    if not share or not number:
        return Parted(rows, None)
    out = set(drawn[:number])
    return Parted(
        rows.select([i for i, key in enumerate(keys) if key not in out]),
        rows.select([i for i, key in enumerate(keys) if key in out]),
    )


def prompts_of(rows: Dataset) -> list[str]:
    """What names the prompt of each pair: its texts, and its images by their bytes."""
    undecoded = _undecoded(rows)
    return [
        json.dumps([row["prompt"], [hashlib.sha256(_bytes(one)).hexdigest() for one in row.get(IMAGES) or ()]])
        for row in undecoded
    ]


def refuse_overlap(rows: Dataset, held_out: Dataset, name: str) -> None:
    """Held-out pairs of prompts that the training saw measure memory.

    Raises:
        SampleError: There are some.
    """
    if again := set(prompts_of(rows)) & set(prompts_of(held_out)):
        raise SampleError(
            f"{name}: {len(again)} of its prompts are among the training pairs too; leave them out of one"
        )


class Measured(NamedTuple):
    rows: Dataset
    num_dropped: int


def within(
    rows: Dataset, processing: Any, *, max_length: int, too_long: Literal["drop", "refuse"], name: str
) -> Measured:
    """The pairs whose longer side, with the prompt and its images, has at most ``max_length`` tokens. None is ever cut.

    Raises:
        SampleError: One is too long and ``too_long`` is ``refuse``, or none is left.
    """
    lengths = [_length(row, processing) for row in _undecoded(rows)]
    kept = [i for i, length in enumerate(lengths) if length <= max_length]
    if len(kept) < len(lengths) and too_long == "refuse":
        raise SampleError(
            f"{name}: a pair has {max(lengths)} tokens, above max_length {max_length}; too_long: drop leaves it out"
        )
    if not kept:
        raise SampleError(f"{name}: no pair is left to train on: {len(lengths)} were above max_length {max_length}")
    return Measured(rows.select(kept) if len(kept) < len(lengths) else rows, len(lengths) - len(kept))


def on_disk(rows: Dataset | None, folder: Path) -> Dataset | None:
    """The same rows in files, beside which TRL keeps what a reference says of them: there every process of a training
    finds it. Rows in memory have a folder for each process.
    """
    if rows is None:
        return None
    if not folder.exists():
        half = folder.with_name(f".{folder.name}.part")
        shutil.rmtree(half, ignore_errors=True)  # of a start that was killed
        rows.save_to_disk(half)
        half.rename(folder)
    return Dataset.load_from_disk(str(folder))


def _length(row: Mapping[str, Any], processing: Any) -> int:
    tokenizer = getattr(processing, "tokenizer", processing)
    if isinstance(row["prompt"], str):
        return max(len(tokenizer(row["prompt"] + row[side])["input_ids"]) + 1 for side in SIDES)  # and its end
    told = {"tools": row.get("tools"), **(row.get("chat_template_kwargs") or {})}
    texts = [processing.apply_chat_template(row["prompt"] + row[side], tokenize=False, **told) for side in SIDES]
    longest = max(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts)
    sizes = [Picture.open(io.BytesIO(_bytes(one))).size[::-1] for one in row.get(IMAGES) or ()]
    if not sizes:
        return longest
    # A place in the text is one token, which the processor makes many.
    return longest + sum(processing._get_num_multimodal_tokens(image_sizes=sizes)["num_image_tokens"]) - len(sizes)


def _undecoded(rows: Dataset) -> Dataset:
    return rows.cast_column(IMAGES, UNDECODED) if IMAGES in rows.column_names else rows


def _bytes(image: Mapping[str, Any]) -> bytes:
    found = image.get("bytes")
    return found if found is not None else Path(image["path"]).read_bytes()
