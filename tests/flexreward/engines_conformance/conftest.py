"""One tiny random model of Qwen2.5's architecture, and every engine that can run it."""

import asyncio
import gc
import importlib.util
import json
import multiprocessing
import os
import socket
import sys
import time
import warnings
from pathlib import Path

import httpx
import pytest

from flexreward.engines import orphans, vllm_start
from flexreward.engines.base import Prompt
from flexreward.engines.openai import OpenAIEngine
from flexreward.engines.scripted import ScriptedEngine

CONTEXT = 512
CACHE = 128 * 2**20
"""Bytes for keys and values: by itself each engine takes an eighth of the machine, and several are up at once."""
TESTS = Path(__file__).parents[2]


def load(path: Path):
    """The module at ``path``, which vLLM's processes import from PYTHONPATH."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(spec.name, module)
    spec.loader.exec_module(module)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(path.parent), os.environ.get("PYTHONPATH"))))
    return module


vllm_imported = load(TESTS / "with_vllm_imported" / "vllm_imported.py")
# vLLM needs torchvision, and the one beside a CPU build of torch may be built for another torch.
if importlib.util.find_spec("vllm") and "torchvision" not in sys.modules:
    without_torchvision_kernels = load(TESTS / "without_torchvision_kernels" / "sitecustomize.py")


def pytest_configure(config):
    """vLLM leaves a context of zmq to the garbage collector, which finds it in whatever test is next, or after all."""
    if importlib.util.find_spec("vllm"):
        config.addinivalue_line("filterwarnings", "ignore::pytest.PytestUnraisableExceptionWarning")
        warnings.filterwarnings("ignore", category=pytest.PytestUnraisableExceptionWarning)


def pytest_collection_finish(session):
    """vLLM takes long to import: begin where it will be needed, while other tests run."""
    if importlib.util.find_spec("vllm") and any(item.get_closest_marker("vllm") for item in session.items):
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        # The first log-probabilities would wait for a compiler, and each engine be bound to the same core.
        tiny = {"TORCHDYNAMO_DISABLE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
        os.environ.update(tiny)
        with orphans.owned():
            vllm_imported.begin()
        for name in tiny:
            del os.environ[name]


def script(prompt: Prompt) -> list[str]:
    """Eight replies that differ from each other and from one prompt to another."""
    return [f" reply {i} to {len(prompt.user)} and a score <answer>{i}</answer>" for i in range(8)]


@pytest.fixture(scope="session")
def qwen(tmp_path_factory, tiny):
    """Heads of 32, which vLLM's attention on a CPU wants."""
    folder = tmp_path_factory.mktemp("qwen") / "qwen"
    return tiny(folder, hidden_size=128, num_attention_heads=4, num_key_value_heads=2)


@pytest.fixture(scope="session")
def with_vllm():
    """Skips where vLLM is not installed; where it is, its processes are forked from one that has imported it."""
    pytest.importorskip("vllm", reason="vLLM is not installed here", exc_type=ModuleNotFoundError)
    vllm_imported.start_processes_by("forkserver")


@pytest.fixture(scope="session")
def on_vllm(with_vllm):
    """Starts vLLM with ``VLLMEngine``'s arguments; skips where it is not installed."""
    from flexreward.engines.vllm import VLLMEngine

    engines = []

    def start(*args, **options):
        with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(vllm_start, "cache_bytes", lambda memory: CACHE)
            warnings.simplefilter("ignore")  # what vLLM and its dependencies think of each other
            engines.append(VLLMEngine(*args, **options))
        return engines[-1]

    yield start
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for engine in engines:
            asyncio.run(engine.close())
        engines.clear()
        gc.collect()  # vLLM leaves a socket's context to be found here


@pytest.fixture(scope="session")
def served(on_vllm, tmp_path_factory):
    """``served(options)`` starts a real ``vllm serve`` on loopback: the URL of its /v1; skips where there is no vLLM.

    ``options`` are those that an engine in process was started with, so that the replies of the two can be compared.
    """
    servers = []

    def start(options):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        log = tmp_path_factory.mktemp("serve") / "log"
        told = {**options, "host": "127.0.0.1", "port": port, "served_model_name": Path(options["model"]).name}
        command = [word for name, value in told.items() if value is not None for word in flag(name, value)]
        # Its own processes and this one end with the session, and where the session is killed too: see ``begin``.
        server = multiprocessing.get_context("forkserver").Process(target=vllm_imported.serve, args=(command, log))
        server.start()
        servers.append(server)
        until = time.monotonic() + 120
        while not answers(f"http://127.0.0.1:{port}/health"):
            assert server.is_alive(), log.read_text()[-3000:]
            assert time.monotonic() < until, log.read_text()[-3000:]
            time.sleep(0.1)
        return f"http://127.0.0.1:{port}/v1"

    yield start
    for server in servers:
        server.terminate()
        server.join(20)
        server.kill()


def flag(name, value):
    """An argument of vLLM's as its command line spells it."""
    dashed = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{'' if value else 'no-'}{dashed}"]
    return [f"--{dashed}", json.dumps(value) if isinstance(value, dict) else str(value)]


def answers(url):
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="session")
def transformers_engine(qwen):
    from flexreward.engines.transformers import TransformersEngine

    engine = TransformersEngine(qwen, batch_size=4, max_context=CONTEXT)
    yield engine
    asyncio.run(engine.close())


@pytest.fixture(scope="session")
def vllm_engine(qwen, on_vllm):
    return on_vllm(qwen, max_context=CONTEXT)


@pytest.fixture(scope="session")
def openai_engine(vllm_engine, served):
    engine = OpenAIEngine(served({**vllm_engine.options, "disable_log_stats": None}), dialect="vllm")
    yield engine
    asyncio.run(engine.close())


ON_VLLM = [pytest.param(name, marks=pytest.mark.vllm) for name in ("vllm", "openai")]


@pytest.fixture(params=["scripted", "transformers", *ON_VLLM])
def engine(request):
    """Each engine in turn."""
    return ScriptedEngine(script) if request.param == "scripted" else request.getfixturevalue(f"{request.param}_engine")


@pytest.fixture(params=["transformers", *ON_VLLM])
def drawing(request):
    """Each engine that draws its replies from a model."""
    return request.getfixturevalue(f"{request.param}_engine")


@pytest.fixture(params=["transformers", ON_VLLM[0]])
def local(request):
    """Each engine that encodes prompts itself and draws its replies from a model."""
    return request.getfixturevalue(f"{request.param}_engine")
