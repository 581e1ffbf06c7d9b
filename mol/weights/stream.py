"""LLaMA folders copied tensor by tensor, some rows exchanged, in a few megabytes of memory.

A file of safetensors is eight bytes of length, a header in JSON and then the numbers of each tensor, so a tensor is
copied as bytes. The library itself writes files only from tensors that are all in memory.

Source of the format: huggingface/safetensors:README.md, "Format".
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from flexreward.errors import WeightsError

CHUNK = 8 << 20
"""Bytes that are in memory at once."""
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A tensor in a file, or some of its rows."""

    path: Path
    start: int
    """Its first byte in the file."""
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def num_bytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    def rows(self, begin: int, end: int) -> Piece:
        """Rows ``begin`` to ``end`` of the first dimension."""
        length = self.num_bytes // self.shape[0]
        return Piece(
            path=self.path, start=self.start + begin * length, shape=(end - begin, *self.shape[1:]), dtype=self.dtype
        )

    def chunks(self) -> Iterator[bytes]:
        """Its bytes, some at a time.

        Raises:
            WeightsError: The file ends before.
        """
        with self.path.open("rb") as file:
            file.seek(self.start)
            left = self.num_bytes
            while left:
                if not (chunk := file.read(min(CHUNK, left))):
                    raise WeightsError(f"{self.path}: ends within a tensor; fetch it again")
                left -= len(chunk)
                yield chunk

    def tensor(self) -> Tensor:
        """All of it, in memory."""
        raw = bytearray(b"".join(self.chunks()))
        return torch.frombuffer(raw, dtype=self.dtype).reshape(self.shape) if raw else torch.empty(self.shape)


class Readable(Protocol):
    """A tensor, or what becomes one when it is turned into a type."""

    shape: Any
    dtype: torch.dtype

    def to(self, dtype: torch.dtype) -> Tensor: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """A tensor to be written: pieces and tensors below each other, in one type."""

    parts: tuple[Piece | Readable, ...]

    @property
    def dtype(self) -> torch.dtype:
        return self.parts[0].dtype

    @property
    def shape(self) -> tuple[int, ...]:
        if len(self.parts) == 1:
            return tuple(self.parts[0].shape)
        return (sum(part.shape[0] for part in self.parts), *self.parts[0].shape[1:])

    @property
    def num_bytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    def chunks(self) -> Iterator[bytes]:
        """Its bytes; parts of another type are turned into that of the first, whole."""
        for part in self.parts:
            if isinstance(part, Piece) and part.dtype == self.dtype:
                yield from part.chunks()
            else:
                tensor = (part.tensor() if isinstance(part, Piece) else part).to(self.dtype)
                yield tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def pieces(path: Path) -> dict[str, Piece]:
    """The tensors of a file by name. Only its header is read.

    Raises:
        WeightsError: It is no file of safetensors, or was cut.
    """
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            size = path.stat().st_size
            if length > size - 8:
                raise ValueError("its header is longer than the file")
            header: dict[str, Any] = json.loads(file.read(length))
        header.pop("__metadata__", None)
        found = {
            name: Piece(
                path=path,
                start=8 + length + told["data_offsets"][0],
                shape=tuple(told["shape"]),
                dtype=DTYPES[told["dtype"]],
            )
            for name, told in header.items()
        }
        for name, piece in found.items():
            begin, end = header[name]["data_offsets"]
            if end - begin != piece.num_bytes or 8 + length + end > size:
                raise ValueError(f"{name} is cut")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise WeightsError(f"{path}: no whole file of safetensors ({error}); fetch or save it again") from error
    return found


def folder_pieces(folder: Path) -> dict[str, Piece]:
    """The tensors of a model's folder, from one file or several.

    Raises:
        WeightsError: It has none in safetensors, or its index names what is not there.
    """
    if (folder / INDEX).is_file():
        places: dict[str, str] = json.loads((folder / INDEX).read_text())["weight_map"]
        files = {name: pieces(folder / Path(name).name) for name in sorted(set(places.values()))}
        for name, file in places.items():
            if name not in files[file]:
                raise WeightsError(f"{folder}: {INDEX} says that {file} holds {name}, and it does not; fetch it again")
        return {name: files[file][name] for name, file in places.items()}
    if (folder / SINGLE).is_file():
        return pieces(folder / SINGLE)
    other = next((path.name for path in sorted(folder.glob("*")) if path.suffix in (".bin", ".pt", ".pth")), "nothing")
    raise WeightsError(f"{folder}: {other} where {SINGLE} is needed; save it with save_pretrained of transformers 5")


def write(path: Path, tensors: Mapping[str, Whole]) -> None:
    """Write a file of safetensors."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    # The largest types first keep all of them aligned.
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    for name in order:
        whole = tensors[name]
        header[name] = {
            "dtype": NAMES[whole.dtype],
            "shape": list(whole.shape),
            "data_offsets": [at, at + whole.num_bytes],
        }
        at += whole.num_bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            for chunk in tensors[name].chunks():
                file.write(chunk)


def write_folder(folder: Path, tensors: Mapping[str, Whole], files: Mapping[str, str]) -> None:
    """Write the weights of a model's folder.

    Args:
        files: The file of each tensor. With one file it is called as transformers calls it.
    """
    names = sorted(set(files.values()))
    if len(names) == 1:
        write(folder / SINGLE, tensors)
        return
    for file in names:
        write(folder / file, {name: whole for name, whole in tensors.items() if files[name] == file})
    total = sum(whole.num_bytes for whole in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": {name: files[name] for name in sorted(tensors)}}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def digest(tensors: Iterable[tuple[str, Piece]]) -> str:
    """sha256 over names, types, shapes and numbers, in the order of the names."""
    whole = hashlib.sha256()
    for name, piece in sorted(tensors, key=lambda pair: pair[0]):
        whole.update(f"{name} {piece.dtype} {piece.shape}\n".encode())
        for chunk in piece.chunks():
            whole.update(chunk)
    return whole.hexdigest()


def joined(first: Piece, *rest: Piece | Tensor) -> Whole:
    """Rows below each other, in the type of the first."""
    return Whole(parts=(first, *rest))


def llama_shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """The tensors of a LLaMA's folder. None is made for it."""
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in LlamaForCausalLM(config).state_dict().items()}
    if config.tie_word_embeddings:
        del shapes["lm_head.weight"]
    return shapes
