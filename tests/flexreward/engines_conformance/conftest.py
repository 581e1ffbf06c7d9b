"""One tiny random model of Qwen2.5's architecture, and every engine that can run it."""

import asyncio
import gc
import importlib.util
import os
import sys
import warnings
from pathlib import Path

import pytest

from flexreward.engines.base import Prompt
from flexreward.engines.scripted import ScriptedEngine

CONTEXT = 512
SHIM = Path(__file__).parents[2] / "without_torchvision_kernels"


def declare_operators() -> None:
    """vLLM needs torchvision, and the one beside a CPU build of torch may be built for another torch."""
    spec = importlib.util.spec_from_file_location("without_torchvision_kernels", SHIM / "sitecustomize.py")
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # vLLM's processes find it on their own way.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(SHIM), os.environ.get("PYTHONPATH"))))


if importlib.util.find_spec("vllm") and "torchvision" not in sys.modules:
    declare_operators()


def pytest_collection_modifyitems(items):
    """vLLM leaves a context of zmq to the garbage collector, which finds it in whatever test is next."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"))


def pytest_unconfigure():
    """The same for what only goes with the session, before pytest looks for it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


def script(prompt: Prompt) -> list[str]:
    """Eight replies that differ from each other and from one prompt to another."""
    return [f" reply {i} to {len(prompt.user)} and a score <answer>{i}</answer>" for i in range(8)]


@pytest.fixture(scope="session")
def qwen(tmp_path_factory, tiny):
    """Heads of 32, which vLLM's attention on a CPU wants."""
    folder = tmp_path_factory.mktemp("qwen") / "qwen"
    return tiny(folder, hidden_size=128, num_attention_heads=4, num_key_value_heads=2)


@pytest.fixture(scope="session")
def on_vllm():
    """Starts vLLM with ``VLLMEngine``'s arguments; skips where it is not installed."""
    pytest.importorskip("vllm", reason="vLLM is not installed here", exc_type=ModuleNotFoundError)
    from flexreward.engines.vllm import VLLMEngine

    engines = []

    def start(*args, **options):
        with warnings.catch_warnings():
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
def transformers_engine(qwen):
    from flexreward.engines.transformers import TransformersEngine

    engine = TransformersEngine(qwen, batch_size=4, max_context=CONTEXT)
    yield engine
    asyncio.run(engine.close())


@pytest.fixture(scope="session")
def vllm_engine(qwen, on_vllm):
    return on_vllm(qwen, max_context=CONTEXT)


@pytest.fixture(params=["scripted", "transformers", pytest.param("vllm", marks=pytest.mark.vllm)])
def engine(request):
    """Each engine in turn."""
    return ScriptedEngine(script) if request.param == "scripted" else request.getfixturevalue(f"{request.param}_engine")


@pytest.fixture(params=["transformers", pytest.param("vllm", marks=pytest.mark.vllm)])
def local(request):
    """Each engine that encodes prompts itself and draws its replies from a model."""
    return request.getfixturevalue(f"{request.param}_engine")
