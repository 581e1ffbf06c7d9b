"""Tensors out of checkpoint files of torch and of safetensors, without running anything that stands in them.

A checkpoint of torch is a pickle, and a pickle is a program. Here each name in it is one of three:

    what rebuilds a tensor    done here, by functions of our own; torch's are not called
    data of another kind      argparse.Namespace, paths, numpy scalars, config objects of any library: an ``Inert``
                              object of that name, which has no behaviour and keeps nothing
    anything else             functions of the standard library and unknown ones: refused by name

So the worst that a file can do is to be refused. Tensors are read from disk one by one, when they are asked for.

Source of the formats: pytorch/pytorch:torch/serialization.py at v2.13.0, and torch/_utils.py.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
import sys
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch
from torch import Tensor

from flexreward.errors import WeightsError
from mol.weights.stream import pieces

MAGIC = 0x1950A86A20F9469CFC6C
"""The first number of a checkpoint in the old format."""
PROTOCOL = 1001
STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}
DATA = frozenset(
    {
        ("argparse", "Namespace"),
        ("builtins", "bytearray"),
        ("builtins", "complex"),
        ("builtins", "dict"),
        ("builtins", "float"),
        ("builtins", "frozenset"),
        ("builtins", "int"),
        ("builtins", "list"),
        ("builtins", "object"),
        ("builtins", "range"),
        ("builtins", "set"),
        ("builtins", "slice"),
        ("builtins", "str"),
        ("builtins", "tuple"),
        ("collections", "Counter"),
        ("collections", "defaultdict"),
        ("collections", "deque"),
        ("copyreg", "_reconstructor"),
        ("datetime", "datetime"),
        ("datetime", "timedelta"),
        ("_codecs", "encode"),
        ("pathlib", "Path"),
        ("pathlib", "PosixPath"),
        ("pathlib", "PurePosixPath"),
        ("pathlib", "WindowsPath"),
        ("types", "SimpleNamespace"),
        ("typing", "Any"),
        ("typing", "Union"),
        ("numpy", "dtype"),
        ("numpy", "ndarray"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy.core.multiarray", "scalar"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "scalar"),
        ("torch", "device"),
        ("torch", "Size"),
    }
)
"""Names of data whose module or spelling would have them refused. An object of any of them is inert."""


class Inert:
    """Stands for an object of a class that is not imported. Whatever a pickle does to it has no effect."""

    name = "object"

    def __new__(cls, *args: object, **named: object) -> Inert:
        return super().__new__(cls)

    def __init__(self, *args: object, **named: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, item: object) -> None:
        pass

    def extend(self, items: object) -> None:
        pass

    def add(self, item: object) -> None:
        pass

    def __call__(self, *args: object) -> Inert:
        return self

    def __repr__(self) -> str:
        return f"<{self.name}, not read>"


class Storage(NamedTuple):
    """Numbers in the file."""

    key: str
    dtype: torch.dtype
    length: int
    """How many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A tensor that was not read yet."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    @property
    def reach(self) -> int:
        """How many numbers of the storage there must be."""
        if 0 in self.shape:
            return self.offset
        return self.offset + 1 + sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True))


class Checkpoint(Mapping[str, Tensor]):
    """Tensors by name, read when they are asked for.

    Raises, when it is made and when a tensor is read:
        WeightsError: The file is none that can be read, is cut, or holds what is refused; names file and thing.
    """

    path: Path

    def __init__(self, stored: Mapping[str, Any]) -> None:
        self._stored = stored

    def shape(self, name: str) -> tuple[int, ...]:
        """Without reading the tensor."""
        return tuple(self._stored[name].shape)

    def dtype(self, name: str) -> torch.dtype:
        """Without reading the tensor."""
        found: torch.dtype = self._stored[name].dtype
        return found

    def __getitem__(self, name: str) -> Tensor:
        raise NotImplementedError

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)


class SafetensorsCheckpoint(Checkpoint):
    """A file of safetensors."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(pieces(path))

    def __getitem__(self, name: str) -> Tensor:
        tensor: Tensor = self._stored[name].tensor()
        return tensor


class TorchCheckpoint(Checkpoint):
    """A file of ``torch.save``, in the format of today or that before torch 1.6.

    Args:
        entries: Where the tensors may stand in it, ``()`` being its top; the first one there counts.
    """

    def __init__(self, path: Path, *, entries: tuple[str, ...] = ("state_dict", "model")) -> None:
        self.path = path
        self.foreign: set[str] = set()
        """Names of the objects in it that were not read."""
        with path.open("rb") as file:
            whole = _of_zip(self, file) if zipfile.is_zipfile(file) else _of_legacy(self, file)
        if isinstance(whole, dict):
            whole = next((whole[entry] for entry in entries if isinstance(whole.get(entry), dict)), whole)
        if not isinstance(whole, dict):
            raise WeightsError(
                f"{path}: holds no dictionary of tensors; name a checkpoint that was saved by state_dict()"
            )
        super().__init__(
            {name: one for name, one in whole.items() if isinstance(one, Stored) and isinstance(name, str)}
        )
        if not self:
            raise WeightsError(f"{path}: holds no tensors under {', '.join(entries)} nor at its top")

    def __getitem__(self, name: str) -> Tensor:
        stored = self._stored[name]
        size = stored.dtype.itemsize
        have = stored.storage.length * stored.storage.dtype.itemsize // size
        if stored.offset < 0 or min(stored.stride, default=0) < 0 or stored.reach > have:
            raise WeightsError(f"{self.path}: {name} reaches past its numbers; fetch the file again")
        if not prod(stored.shape):
            return torch.empty(stored.shape, dtype=stored.dtype)
        raw = self._bytes(stored.storage)
        numbers = torch.frombuffer(raw, dtype=stored.dtype)
        return numbers.as_strided(stored.shape, stored.stride, stored.offset).clone()

    def _bytes(self, storage: Storage) -> bytearray:
        with self.path.open("rb") as file:
            start = self._starts.get(storage.key)
            if start is None:
                raise WeightsError(f"{self.path}: the numbers {storage.key!r} are not in it; fetch the file again")
            file.seek(start)
            length = storage.length * storage.dtype.itemsize
            # Before room is made for them: how many there are is what the file says of itself.
            raw = bytearray(length if start + length <= self.path.stat().st_size else 0)
            if file.readinto(raw) != length:
                raise WeightsError(f"{self.path}: ends within the numbers {storage.key!r}; fetch the file again")
        return raw

    _starts: Mapping[str, int]
    """Where the numbers of each storage begin in the file, in bytes."""


def read(path: Path) -> Checkpoint:
    """A checkpoint by what the file is, whatever it is called.

    Raises:
        WeightsError: It is not there, or cannot be read.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    return SafetensorsCheckpoint(path) if path.suffix == ".safetensors" else TorchCheckpoint(path)


class _Rebuild:
    """A function of torch that makes a tensor, done by us. Has no state that a pickle could change."""

    __slots__ = ("_kind",)

    def __init__(self, kind: str) -> None:
        object.__setattr__(self, "_kind", kind)

    def __setattr__(self, name: str, value: object) -> None:
        raise pickle.UnpicklingError("a checkpoint that changes how it is read")

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("a checkpoint that changes how it is read")

    def __call__(self, first: Any, *rest: Any) -> Any:
        if self._kind == "parameter":
            return first
        if self._kind == "size":
            return tuple(first)
        offset, shape, stride = rest[:3]
        dtype = rest[5] if self._kind == "v3" else first.dtype
        if not isinstance(first, Storage) or not isinstance(dtype, torch.dtype) or not isinstance(offset, int):
            raise pickle.UnpicklingError("a tensor of something that is no storage")
        shape, stride = (tuple(int(n) for n in numbers) for numbers in (shape, stride))
        if len(shape) != len(stride) or min((*shape, 0)) < 0:
            raise pickle.UnpicklingError("a tensor of an impossible shape")
        return Stored(storage=first, offset=offset, shape=shape, stride=stride, dtype=dtype)


REBUILDS = {
    ("torch._utils", "_rebuild_tensor"): "v2",
    ("torch._utils", "_rebuild_tensor_v2"): "v2",
    ("torch._utils", "_rebuild_tensor_v3"): "v3",
    ("torch._utils", "_rebuild_parameter"): "parameter",
    ("torch._utils", "_rebuild_parameter_with_state"): "parameter",
    ("torch", "Size"): "size",
}
DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in {*STORAGES.values()}}


@dataclass(slots=True)
class _Names:
    """What the names in one pickle stand for."""

    path: Path
    foreign: set[str]
    inert: dict[str, type[Inert]] = field(default_factory=dict)
    storages: dict[str, Storage] = field(default_factory=dict)
    """Those that were named: in the old format their numbers follow without a word of how many."""

    def find(self, module: str, name: str) -> Any:
        # A pickle of protocol 2, which torch writes, spells modules as Python 2 did.
        module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
        key = (module, name)
        if key in REBUILDS:
            return _Rebuild(REBUILDS[key])
        if key == ("collections", "OrderedDict"):
            return OrderedDict
        if module in ("torch", "torch.storage", "torch.cuda") and name in STORAGES:
            return STORAGES[name]
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        whole = f"{module}.{name}"
        if key not in DATA and not _like_a_class(module, name):
            raise WeightsError(
                f"{self.path}: holds {whole}, which is no tensor and no data; nothing of it was run. "
                "Take the file from where it was published, or its safetensors form"
            )
        self.foreign.add(whole)
        # One of its own for each file: what a pickle sets on a class ends with it.
        return self.inert.setdefault(whole, type(name.rpartition(".")[2], (Inert,), {"name": whole}))


def _like_a_class(module: str, name: str) -> bool:
    """A class of some library, by how classes are spelled. Those of the standard library are named one by one."""
    words = name.split(".")
    return module.partition(".")[0] not in sys.stdlib_module_names and words[-1][:1].isupper()


BROKEN = (
    *(pickle.UnpicklingError, EOFError, TypeError, ValueError, AttributeError, LookupError, ImportError),
    *(ArithmeticError, MemoryError, RecursionError, struct.error),
)
"""What reading a broken or hostile pickle can end in: nobody can tell what it makes of the objects above."""


class _Unpickler(pickle.Unpickler):
    """Reads data and tensors; every name goes through ``_Names``."""

    def __init__(self, file: IO[bytes], names: _Names) -> None:
        super().__init__(file, encoding="utf-8")
        self._names = names

    def find_class(self, module: str, name: str) -> Any:
        return self._names.find(module, name)

    def persistent_load(self, given: Any) -> Storage:
        if not (isinstance(given, tuple) and len(given) >= 5 and given[0] == "storage"):
            raise pickle.UnpicklingError("a reference to something outside the file")
        dtype, key, length = given[1], given[2], given[4]
        if not isinstance(dtype, torch.dtype) or not isinstance(length, int) or length < 0:
            raise pickle.UnpicklingError("numbers of an unknown type")
        if len(given) > 5 and given[5] is not None:
            raise pickle.UnpicklingError("a view of other numbers, as before torch 0.4")
        return self._names.storages.setdefault(str(key), Storage(str(key), dtype, length))


def _load(checkpoint: TorchCheckpoint, file: IO[bytes], names: _Names) -> Any:
    """One pickle.

    Raises:
        WeightsError: It is broken, or holds what is refused.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the spelling of strings in a broken one
            _scan(file)
            return _Unpickler(file, names).load()
    except WeightsError:
        raise
    except BROKEN as error:
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise WeightsError(f"{checkpoint.path}: no checkpoint of torch that can be read: {reason[0][:200]}") from error


def _scan(file: IO[bytes]) -> None:
    """Look through a pickle without obeying it, and go back to its start.

    Raises:
        ValueError: It would have memory taken for more than it holds.
    """
    start = file.tell()
    for count, (operation, argument, _) in enumerate(pickletools.genops(file)):
        if operation.name in ("PUT", "BINPUT", "LONG_BINPUT") and not 0 <= argument <= count:
            raise ValueError("a note to itself under a number that is too large")
    file.seek(start)


def _of_zip(checkpoint: TorchCheckpoint, file: IO[bytes]) -> Any:
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise WeightsError(f"{checkpoint.path}: a broken archive ({error}); fetch it again") from error
    entries = {entry.filename: entry for entry in archive.infolist()}
    pickled = next((name for name in entries if name.endswith("/data.pkl")), None)
    if pickled is None:
        raise WeightsError(f"{checkpoint.path}: an archive without data.pkl, so no checkpoint of torch")
    root = pickled.removesuffix("data.pkl")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
        raise WeightsError(f"{checkpoint.path}: a compressed archive, which torch never writes; save it again")
    if f"{root}byteorder" in entries and archive.read(f"{root}byteorder") != b"little":
        raise WeightsError(f"{checkpoint.path}: written on a big-endian machine; save it again on another")
    checkpoint._starts = {
        name.removeprefix(f"{root}data/"): _start(file, entry)
        for name, entry in entries.items()
        if name.startswith(f"{root}data/")
    }
    try:
        data = io.BytesIO(archive.read(pickled))
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise WeightsError(f"{checkpoint.path}: a broken archive ({error}); fetch it again") from error
    return _load(checkpoint, data, _Names(checkpoint.path, checkpoint.foreign))


def _start(file: IO[bytes], entry: zipfile.ZipInfo) -> int:
    """Where the bytes of an entry begin: after its own header, whose length is not that of the directory's."""
    file.seek(entry.header_offset + 26)
    name, extra = struct.unpack("<HH", file.read(4))
    return entry.header_offset + 30 + int(name) + int(extra)


def _of_legacy(checkpoint: TorchCheckpoint, file: IO[bytes]) -> Any:
    file.seek(0)
    names = _Names(checkpoint.path, checkpoint.foreign)
    if _load(checkpoint, file, names) != MAGIC or _load(checkpoint, file, names) != PROTOCOL:
        raise WeightsError(f"{checkpoint.path}: no checkpoint of torch; name a file of torch.save or safetensors")
    machine = _load(checkpoint, file, names)
    if not isinstance(machine, dict) or not machine.get("little_endian"):
        raise WeightsError(f"{checkpoint.path}: written on a big-endian machine; save it again on another")
    whole = _load(checkpoint, file, names)
    keys = _load(checkpoint, file, names)
    starts: dict[str, int] = {}
    at = file.tell()
    for key in keys if isinstance(keys, list) else ():
        storage = names.storages.get(str(key))
        if storage is None:
            raise WeightsError(f"{checkpoint.path}: holds numbers of no tensor; fetch it again")
        starts[storage.key] = at + 8
        at += 8 + storage.length * storage.dtype.itemsize
    checkpoint._starts = starts
    return whole
