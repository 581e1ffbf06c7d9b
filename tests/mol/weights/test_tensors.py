import argparse
import io
import os
import pathlib
import pickle
import re
import subprocess
import tracemalloc
import zipfile
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from flexreward.errors import WeightsError
from mol.config import MolLlamaConfig
from mol.weights.tensors import read

FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def saved(path, whole, *, zipped=True):
    torch.save(whole, path, _use_new_zipfile_serialization=zipped)
    return path


def pickled(path, data):
    """A checkpoint in today's format around this pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
    return path


@FORMATS
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool]
)
def test_tensors_of_every_type_are_those_that_were_saved(tmp_path, zipped, dtype):
    tensors = {"a": torch.arange(6).reshape(2, 3).to(dtype), "none": torch.empty(0, 3, dtype=dtype)}
    found = read(saved(tmp_path / "x.pt", tensors, zipped=zipped))
    assert list(found) == ["a", "none"]
    assert found.shape("a") == (2, 3)
    assert all(torch.equal(found[name], tensors[name]) and found[name].dtype == dtype for name in tensors)


@FORMATS
def test_views_strides_shared_numbers_and_parameters_are_read(tmp_path, zipped):
    base = torch.arange(20.0).reshape(4, 5)
    tensors = {
        "whole": base,
        "turned": base.T,
        "part": base[1:3, 2:],
        "one": base[3, 4],
        "parameter": nn.Parameter(torch.ones(2)),
    }
    found = read(saved(tmp_path / "x.pt", tensors, zipped=zipped))
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


@FORMATS
def test_a_state_dict_of_a_module_is_read_with_its_buffers(tmp_path, zipped):
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    found = read(saved(tmp_path / "x.pth", module.state_dict(), zipped=zipped))
    assert found.keys() == module.state_dict().keys()
    assert torch.equal(found["1.running_var"], torch.ones(3))


@FORMATS
@pytest.mark.parametrize("entry", ["state_dict", "model"])
def test_objects_beside_the_tensors_are_named_and_not_read(tmp_path, zipped, entry):
    whole = {
        entry: {"w": torch.ones(2)},
        "args": argparse.Namespace(lr=1e-4, path=pathlib.PosixPath("/data")),
        "hyper_parameters": {"config": MolLlamaConfig.tiny(), "numbers": np.float32(1), "array": np.arange(3)},
        "loops": defaultdict(list, a=[1]),
        "seen": {1, 2},
        "counts": Counter("ab"),
        "device": torch.device("cpu"),
        "optimizer_states": [{"exp_avg": torch.zeros(2)}],
    }
    found = read(saved(tmp_path / "x.ckpt", whole, zipped=zipped))
    assert list(found) == ["w"]
    assert torch.equal(found["w"], torch.ones(2))
    assert {"argparse.Namespace", "mol.config.MolLlamaConfig", "pathlib.PosixPath"} <= found.foreign


class Hostile:
    """Pickles as a call of something."""

    def __init__(self, call, *args):
        self.reduced = (call, args)

    def __reduce__(self):
        return self.reduced


@FORMATS
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (os.system, "system"),
        (eval, "eval"),
        (exec, "exec"),
        (getattr, "getattr"),
        (subprocess.check_call, "check_call"),
    ],
)
def test_a_hostile_pickle_is_refused_by_name_and_runs_nothing(tmp_path, zipped, call, name):
    made = tmp_path / "made"
    arguments = {"system": f"touch {made}", "check_call": ["touch", str(made)]}
    given = arguments.get(name, f"open({str(made)!r}, 'w')")
    path = saved(tmp_path / "x.pt", {"w": torch.ones(2), "more": Hostile(call, given)}, zipped=zipped)
    with pytest.raises(WeightsError, match=rf"x\.pt: holds \w+\.{name}, which is no tensor and no data; nothing"):
        read(path)
    assert not made.exists()


def test_the_hostile_pickle_of_these_tests_would_do_its_harm_elsewhere(tmp_path):
    pickle.loads(pickle.dumps(Hostile(os.system, f"touch {tmp_path / 'made'}")))  # noqa: S301
    assert (tmp_path / "made").exists()


def test_a_class_is_not_imported_and_not_called(tmp_path, monkeypatch):
    (tmp_path / "evil_module.py").write_text(f"open({str(tmp_path / 'made')!r}, 'w')\nclass Config: pass\n")
    data = b"\x80\x02}(X\x01\x00\x00\x00wcevil_module\nConfig\n)R}X\x01\x00\x00\x00aK\x01sbu."
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(WeightsError, match="holds no tensors"):
        read(pickled(tmp_path / "x.pt", data))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "data",
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n}X\x05\x00\x00\x00_kindX\x02\x00\x00\x00v3sb.",
        b"ccollections\nOrderedDict\n}X\x05\x00\x00\x00clearK\x01sb.",
        b"\x80\x02(X\x07\x00\x00\x00modulesX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x05tQ.",
        b"ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x00))I00\n}tR.",
        b"\x80\x02cargparse\nNamespace\nq\x00.",
        b"\x80\x02K\x01.",
        b"\x80\x02}r\x00\x00\x00\x10.",  # a note under number 268,435,456, for which 4 GB would be taken
        b"\x80\x05\x96\x00\x00\x00\x00\x04\x00\x00\x00.",  # 17 GB of bytes that are not there
        b"\x80",
        b"",
        b"garbage",
    ],
)
def test_pickles_that_are_no_checkpoint_are_one_line(tmp_path, data):
    with pytest.raises(WeightsError) as caught:
        read(pickled(tmp_path / "x.pt", data))
    assert "\n" not in str(caught.value)
    assert "x.pt: " in str(caught.value)


def test_what_a_pickle_does_to_a_class_ends_with_it(tmp_path):
    data = b"\x80\x02cargparse\nNamespace\nN}X\x01\x00\x00\x00aK\x01s\x86b."
    with pytest.raises(WeightsError):
        read(pickled(tmp_path / "x.pt", data))
    assert not hasattr(argparse.Namespace, "a")


def test_numbers_that_the_file_cannot_hold_take_no_memory(tmp_path):
    path = saved(tmp_path / "x.pt", {"w": torch.ones(4)})
    with zipfile.ZipFile(path) as before:
        entries = {name: before.read(name) for name in before.namelist()}
    with zipfile.ZipFile(path, "w") as after:
        for name, data in entries.items():
            # The storage's length, from 4 to 2**30.
            after.writestr(name, re.sub(rb"K\x04(tq.Q)", lambda m: b"J\x00\x00\x00\x40" + m[1], data))
    found = read(path)
    tracemalloc.start()
    with pytest.raises(WeightsError, match="ends within the numbers"):
        found["w"]
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


@FORMATS
def test_a_file_that_was_cut_is_named(tmp_path, zipped):
    path = saved(tmp_path / "x.pt", {"w": torch.ones(1000)}, zipped=zipped)
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(WeightsError, match=r"x\.pt: "):
        read(path)["w"]


def test_a_tensor_that_reaches_past_its_numbers_is_named(tmp_path):
    path = saved(tmp_path / "x.pt", {"w": torch.ones(4)})
    content = io.BytesIO()
    with zipfile.ZipFile(path) as before, zipfile.ZipFile(content, "w") as after:
        for entry in before.namelist():
            data = before.read(entry)
            after.writestr(entry, data.replace(b"K\x04\x85", b"K\x09\x85") if entry.endswith("data.pkl") else data)
    path.write_bytes(content.getvalue())
    with pytest.raises(WeightsError, match="w reaches past its numbers"):
        read(path)["w"]


def test_a_compressed_archive_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
    with pytest.raises(WeightsError, match="a compressed archive, which torch never writes"):
        read(tmp_path / "x.pt")


def test_safetensors_are_read_by_the_same_function(tmp_path):
    save_file({"w": torch.ones(2, 3)}, tmp_path / "x.safetensors")
    found = read(tmp_path / "x.safetensors")
    assert found.shape("w") == (2, 3)
    assert torch.equal(found["w"], torch.ones(2, 3))


def test_broken_and_missing_files_are_named(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"1234567890")
    with pytest.raises(WeightsError, match=r"x\.safetensors: no whole file of safetensors"):
        read(tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match="none: no such file"):
        read(tmp_path / "none")
