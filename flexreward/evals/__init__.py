"""Measuring a judge against people: benchmarks, metrics, bias, calibration.

``BENCHMARKS`` names them; each is one file that is imported only when it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from flexreward.errors import RecipeError
from flexreward.templates.files import nearest

if TYPE_CHECKING:
    from flexreward.evals.base import Benchmark

HERE = "flexreward.evals.benchmarks."

BENCHMARKS: dict[str, str] = {
    "auto-j": HERE + "autoj:AUTOJ",
    "bvcc": HERE + "bvcc:BVCC",
    "genai-edit": HERE + "genai:GENAI_EDIT",
    "genai-image": HERE + "genai:GENAI_IMAGE",
    "genai-video": HERE + "genai:GENAI_VIDEO",
    "judgebench": HERE + "judgebench:JUDGEBENCH",
    "judgebench-claude": HERE + "judgebench:JUDGEBENCH_CLAUDE",
    "judgelm": HERE + "judgelm:JUDGELM",
    "llmbar": HERE + "llmbar:LLMBAR",
    "llmbar-processed": HERE + "llmbar:LLMBAR_PROCESSED",
    "mj-bench": HERE + "mj_bench:MJ_BENCH",
    "mj-bench-quality": HERE + "mj_bench:MJ_BENCH_QUALITY",
    "mj-bench-safety": HERE + "mj_bench:MJ_BENCH_SAFETY",
    "mllm-judge-batch": HERE + "mllm_judge:MLLM_JUDGE_BATCH",
    "mllm-judge-pair": HERE + "mllm_judge:MLLM_JUDGE_PAIR",
    "mllm-judge-score": HERE + "mllm_judge:MLLM_JUDGE_SCORE",
    "mt-bench": HERE + "mt_bench:MT_BENCH",
    "multimodal-rewardbench": HERE + "multimodal_rewardbench:MULTIMODAL_REWARDBENCH",
    "nisqa": HERE + "nisqa:NISQA",
    "pandalm": HERE + "pandalm:PANDALM",
    "rewardbench2": HERE + "rewardbench2:REWARDBENCH2",
    "rm-bench": HERE + "rm_bench:RM_BENCH",
    "somos": HERE + "somos:SOMOS",
    "vl-rewardbench": HERE + "vl_rewardbench:VL_REWARDBENCH",
    "voxsim": HERE + "voxsim:VOXSIM",
}
"""Name to ``module:ATTRIBUTE``, by the alphabet, a line each."""


def load_benchmark(name: str) -> Benchmark:
    """The benchmark of that name.

    Raises:
        RecipeError: There is none; the message names the nearest.
    """
    if name not in BENCHMARKS:
        raise RecipeError(f"unknown benchmark {name!r}, {nearest(name, BENCHMARKS)}")
    module, _, attribute = BENCHMARKS[name].partition(":")
    benchmark: Benchmark = getattr(import_module(module), attribute)
    return benchmark
