"""The judge on vLLM against ``LLM.generate``, both warm, over the same rendered prompts and sampling.

The two have an engine each, started alike; rounds alternate, so that what else the machine does falls on both. The
baseline gets all its prompts as token ids in one call, vLLM's fastest way offline; the judge renders, encodes, reads
replies and counts votes as well. The model is made here, of Qwen2's architecture with random weights and the bundled
judge's tokenizer: replies go on to their limit, which is the most work that an engine can have with them. They hold no
scores, and the reading of that is timed too.

The same for pairs of images, with Qwen2.5-VL in random weights. The baseline gets decoded images, each placed by its
one token; the judge decodes them in its subprocess as well. Each image is new in each round, so that neither
side finds one of an earlier round in a cache.
"""

from __future__ import annotations

import asyncio
import io
import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from flexreward.bench import Bar, Interval
from flexreward.bench.engine import requests
from flexreward.config import resolve_judge
from flexreward.engines.base import Prompt, Sampling
from flexreward.engines.vllm import VLLMEngine
from flexreward.judge import Judge
from flexreward.media.intake import image_of
from flexreward.templates import load_template
from flexreward.types import JudgeRequest, Judgment, Media

GOAL = 0.95
NUM_REQUESTS = 128
NUM_IMAGE_PAIRS = 32
SIDE = 224
"""Of an image, in pixels."""
OPENAI_CLIP = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
ROUNDS = 5
SAMPLING = Sampling(max_tokens=96)


def bars() -> dict[str, Bar]:
    """Both bars, with models that are made for them."""
    with tempfile.TemporaryDirectory() as folder:
        return measure(random_model(Path(folder) / "text")) | measure_images(random_vl(Path(folder) / "vl"))


def measure(
    model: str | Path, *, num_requests: int = NUM_REQUESTS, rounds: int = ROUNDS, sampling: Sampling = SAMPLING
) -> dict[str, Bar]:
    """The judge's requests a second over those of ``LLM.generate``, with any model that vLLM runs."""
    asked = requests(num_requests)
    return {"judge_on_vllm_over_llm_generate": _measure(model, "pair", [asked] * (rounds + 1), sampling)}


def measure_images(
    model: str | Path, *, num_requests: int = NUM_IMAGE_PAIRS, rounds: int = ROUNDS, sampling: Sampling = SAMPLING
) -> dict[str, Bar]:
    """The same for pairs of images, with any model that vLLM shows images to."""
    every = [image_pairs(num_requests, seed=turn) for turn in range(rounds + 1)]
    return {"judge_on_vllm_over_llm_generate_image_pairs": _measure(model, "gen-image", every, sampling)}


def image_pairs(number: int, *, seed: int) -> list[JudgeRequest]:
    """Pairs of noise, no two images alike."""
    rng = np.random.default_rng(seed)

    def image() -> Media:
        return image_of(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))

    return [JudgeRequest(id=str(i), prompt="A grey sky.", completions=(image(), image())) for i in range(number)]


def _measure(model: str | Path, name: str, every: Sequence[Sequence[JudgeRequest]], sampling: Sampling) -> Bar:
    """One round each; the first warms both and is left out."""
    engine = VLLMEngine(model)
    baseline = offline(engine)
    template = load_template(name)
    judge = Judge(engine, template, sampling=sampling, both_orders=False)
    num_requests = len(every[0])
    params = baseline.get_default_sampling_params()
    params.temperature, params.max_tokens, params.stop_token_ids = 0.0, sampling.max_tokens, sorted(engine.ends)

    async def judged(asked: Sequence[JudgeRequest]) -> list[Judgment]:
        return [judgment async for judgment in judge.judge_all(asked, max_in_flight=num_requests)]

    ratios, theirs = [], []
    for turn, asked in enumerate(every):
        prompts = [_for_baseline(engine, template.render(request)) for request in asked]
        start = perf_counter()
        judgments = asyncio.run(judged(asked))
        between = perf_counter()
        outputs = baseline.generate(prompts, params, use_tqdm=False)
        end = perf_counter()
        tokens = [len(output.outputs[0].token_ids) for output in outputs]
        assert [judgment.completion_tokens for judgment in judgments] == tokens, "the two did different work"
        if turn:  # the first warms both
            ratios.append((end - between) / (between - start))
            theirs.append(num_requests / (end - between))
    asyncio.run(engine.close())
    baseline.llm_engine.engine_core.shutdown()
    return Bar(
        value=statistics.median(ratios),
        goal=GOAL,
        baseline=statistics.median(theirs),
        n=num_requests,
        interval=Interval(min(ratios), max(ratios)),
    )


def _for_baseline(engine: VLLMEngine, prompt: Prompt) -> dict[str, Any]:
    """What ``LLM.generate`` takes."""
    ids = list(engine.reader.encoder.encode(prompt, [1] * len(prompt.media)).ids)
    if not prompt.media:
        return {"prompt_token_ids": ids}
    return {"prompt_token_ids": ids, "multi_modal_data": {"image": [_picture(placed.media) for placed in prompt.media]}}


def _picture(media: Any) -> Any:
    from PIL import Image

    return Image.open(io.BytesIO(media.data)).convert("RGB")


def random_model(folder: Path) -> Path:
    """Qwen2 with four layers of width 256 in heads of 64, which vLLM's attention on a CPU takes."""
    import torch
    from transformers import AutoConfig, AutoTokenizer, Qwen2ForCausalLM

    tiny = resolve_judge("tiny").model
    config = AutoConfig.from_pretrained(tiny)
    config.update({"hidden_size": 256, "intermediate_size": 768, "num_attention_heads": 4, "num_key_value_heads": 4})
    config.use_cache = True  # a training switched it off, and whoever generates would go without
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        Qwen2ForCausalLM(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny).save_pretrained(folder)
    return folder


def random_vl(folder: Path) -> Path:
    """Qwen2.5-VL with a language model of that size and four layers of sight, which sees an image as 64 tokens."""
    import torch
    from transformers import AutoTokenizer, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    tokenizer = AutoTokenizer.from_pretrained(resolve_judge("tiny").model)
    marks = {name: f"<|{name}|>" for name in ("vision_start", "vision_end", "image_pad", "video_pad")}
    tokenizer.add_special_tokens({"additional_special_tokens": list(marks.values())})
    ids = {f"{name}_token_id": tokenizer.convert_tokens_to_ids(token) for name, token in marks.items()}
    ids["image_token_id"], ids["video_token_id"] = ids.pop("image_pad_token_id"), ids.pop("video_pad_token_id")
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 256,
        "intermediate_size": 768,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 4096,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [8, 12, 12]},
    }
    sight = {"depth": 4, "hidden_size": 128, "intermediate_size": 384, "num_heads": 4, "out_hidden_size": 256}
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=sight | {"window_size": 112, "fullatt_block_indexes": [3]},
        tie_word_embeddings=False,
        **ids,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    pixels = {"min_pixels": 56 * 56, "max_pixels": SIDE * SIDE, "patch_size": 14, "temporal_patch_size": 2}
    processor = {"image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(pixels | processor | {"merge_size": 2} | OPENAI_CLIP))
    return folder


def offline(engine: VLLMEngine) -> Any:
    """An ``LLM`` with the engine's own arguments."""
    from vllm import LLM

    from flexreward.engines import orphans

    with orphans.owned():
        return LLM(**engine.options)
