"""What a recipe can say to vLLM, and what it is told when vLLM is absent or does not take it."""

import asyncio
import importlib.util
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from flexreward.config import open_engine, parse_recipe
from flexreward.engines import load_engine, vllm_start
from flexreward.engines.base import Prompt, Sampling
from flexreward.engines.transformers import TransformersEngine
from flexreward.errors import EngineError, JudgeError, RecipeError, RefusedError

without_vllm = pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed here")
PROMPTS = [Prompt(system="You are a judge.", user=user) for user in ("Which is it?", "the digits", "x")]


def arguments(folder, **changed):
    told = {"cpu": True, "dtype": "auto", "quantization": None, "tensor_parallel": 1, "max_context": 512}
    return vllm_start.arguments(folder, **(told | {"lora_rank": None, "further": {}} | changed))


async def greedy(engine):
    asked = [anext(engine.generate(prompt, Sampling(max_tokens=24))) for prompt in PROMPTS]
    return [reply.text for reply in await asyncio.gather(*asked)]


@without_vllm
def test_without_vllm_the_engine_names_the_command_that_installs_it(checkpoint):
    with pytest.raises(JudgeError, match=r"^engine vllm: vLLM is not installed; .*pip install .*(vllm|cpu)"):
        load_engine("vllm", model=checkpoint)


def test_a_recipe_cannot_choose_what_vllm_chooses(checkpoint):
    recipe = parse_recipe({"model": str(checkpoint), "engine": "vllm", "attention": "eager"}, "judge.yaml")
    with pytest.raises(RecipeError, match="attention: vLLM chooses its own, found 'eager'; leave it out"):
        open_engine(recipe)


def test_an_option_that_the_engine_does_not_know_is_named(checkpoint):
    with pytest.raises(RecipeError, match="engine vllm: unknown option 'threads', expected one of model, dtype"):
        load_engine("vllm", model=checkpoint, threads=2)


@pytest.mark.parametrize(
    ("name", "way"), [("dtype", "dtype"), ("tensor_parallel_size", "tensor_parallel"), ("max_model_len", "max_context")]
)
def test_what_has_a_name_here_is_not_set_behind_its_back(tmp_path, name, way):
    with pytest.raises(RecipeError, match=f"engine_args: {name} is set another way here: {way}$"):
        arguments(tmp_path, further={name: 1})


def test_code_of_a_checkpoint_is_never_run(tmp_path):
    with pytest.raises(RecipeError, match="trust_remote_code"):
        arguments(tmp_path, further={"trust_remote_code": True})
    assert arguments(tmp_path)["trust_remote_code"] is False


def test_on_a_cpu_no_prompt_is_read_in_parts_and_a_batch_holds_the_longest(tmp_path):
    told = arguments(tmp_path, max_context=100_000)
    assert told["enable_chunked_prefill"] is False
    assert told["max_num_batched_tokens"] == 100_000
    assert "enable_chunked_prefill" not in arguments(tmp_path, cpu=False)
    with pytest.raises(RecipeError, match="enable_chunked_prefill kills the CPU build on a seeded request"):
        arguments(tmp_path, further={"enable_chunked_prefill": True})


def test_memory_for_keys_and_values_on_a_cpu_is_the_users_or_an_eighth(tmp_path, monkeypatch):
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    assert arguments(tmp_path)["kv_cache_memory_bytes"] >= 2**30
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "3")
    assert "kv_cache_memory_bytes" not in arguments(tmp_path)
    assert [vllm_start.cache_bytes(gib * 2**30) // 2**30 for gib in (2, 24, 500)] == [1, 3, 8]


def test_the_gpus_of_a_recipe_are_those_that_vllm_shares_the_model_among(tmp_path):
    assert arguments(tmp_path, cpu=False, tensor_parallel=4)["tensor_parallel_size"] == 4


def test_an_adapter_gets_the_least_rank_that_vllm_knows(tmp_path):
    assert arguments(tmp_path, lora_rank=9)["max_lora_rank"] == 16
    assert "enable_lora" not in arguments(tmp_path)


def test_beside_prompt_embeddings_only_the_layers_of_the_adapter_are_wrapped(tmp_path):
    found = arguments(tmp_path, lora_rank=8, lora_layers=["q_proj"], prompt_embeddings=True)
    assert found["lora_target_modules"] == ["q_proj"]
    assert "lora_target_modules" not in arguments(tmp_path, lora_rank=8, lora_layers=["q_proj"])


@pytest.mark.vllm
async def test_more_alternatives_than_vllm_was_started_for_are_refused(vllm_engine):
    with pytest.raises(RefusedError, match="logprobs: 21 were asked for, vLLM was started for 20"):
        await anext(vllm_engine.generate(PROMPTS[0], Sampling(logprobs=21)))


@pytest.mark.vllm
async def test_a_temperature_that_vllm_does_not_take_is_refused_and_not_waited_for(vllm_engine):
    with pytest.raises(RefusedError, match=r"vLLM does not draw so: temperature must be in \[0, 2\]"):
        await anext(vllm_engine.generate(PROMPTS[0], Sampling(temperature=3.0)))


@pytest.mark.vllm
async def test_a_cpu_build_says_that_it_cannot_sleep(vllm_engine):
    assert not vllm_engine.can_sleep
    with pytest.raises(RefusedError, match="this vLLM cannot sleep: that needs a GPU"):
        await vllm_engine.sleep()


def on_its_loop(engine, work):
    return asyncio.wrap_future(engine._loop.submit(work))


@pytest.mark.vllm
async def test_what_was_read_before_is_not_read_again(vllm_engine):
    from vllm import SamplingParams
    from vllm.inputs import tokens_input

    prompt = Prompt(system="You are a judge.", user="Which of the two is it? " * 9)
    await anext(vllm_engine.generate(prompt, Sampling(max_tokens=1)))
    ids = list(vllm_engine.reader.encoder.encode(prompt).ids)

    async def num_found():
        outputs = vllm_engine._llm.generate(tokens_input(ids), SamplingParams(max_tokens=1), "found")
        return [output.num_cached_tokens async for output in outputs][-1]

    # All whole blocks but the last token, whose successor is asked for.
    assert await on_its_loop(vllm_engine, num_found()) == (len(ids) - 1) // 32 * 32 > 100


@pytest.mark.vllm
async def test_closing_early_ends_the_work_in_vllms_process(vllm_engine):
    """It forgets what it has read only where no request is under way."""

    async def idle():
        return await on_its_loop(vllm_engine, vllm_engine._llm.reset_prefix_cache())

    long = Sampling(temperature=1.0, n=4, max_tokens=400, seed=1)
    begun = asyncio.create_task(anext(vllm_engine.generate(PROMPTS[0], long)))
    while await idle():
        assert not begun.done()
    begun.cancel()
    await asyncio.gather(begun, return_exceptions=True)
    await asyncio.sleep(0.1)
    assert await idle()


@pytest.mark.vllm
def test_what_vllm_does_not_take_is_one_line(on_vllm, qwen, tmp_path):
    with pytest.raises(RecipeError, match="engine_args: vLLM knows no argument 'colour'"):
        on_vllm(qwen, engine_args={"colour": "red"})
    with pytest.raises(JudgeError, match="vLLM does not start with this model") as caught:
        on_vllm(qwen, quantization="no-such-method")
    assert "\n" not in str(caught.value)
    with pytest.raises(JudgeError, match=r"no adapter_config\.json; name the folder that peft's"):
        on_vllm(qwen, lora=tmp_path)


def int8(folder, copy):
    """The checkpoint's linear layers in 8 bits with a scale a row, as compressed-tensors lays them out; and the same
    numbers in 32 bits."""
    shutil.copytree(folder, copy / "int8")
    shutil.copytree(folder, copy / "same")
    stored, same = {}, {}
    for name, weight in load_file(folder / "model.safetensors").items():
        stored[name] = same[name] = weight
        if name.endswith("proj.weight"):
            scale = weight.abs().amax(dim=1, keepdim=True) / 127
            stored[name] = (weight / scale).round().to(torch.int8)
            stored[f"{name}_scale"] = scale
            same[name] = stored[name] * scale
    save_file(stored, copy / "int8" / "model.safetensors", metadata={"format": "pt"})
    save_file(same, copy / "same" / "model.safetensors", metadata={"format": "pt"})
    number = {"num_bits": 8, "type": "int", "symmetric": True}
    weights = {**number, "strategy": "channel", "dynamic": False}
    activations = {**number, "strategy": "token", "dynamic": True}
    group = {"targets": ["Linear"], "weights": weights, "input_activations": activations}
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "compressed-tensors", "format": "int-quantized"} | {
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {"group_0": group},
    }
    (copy / "int8" / "config.json").write_text(json.dumps(config))
    return copy / "int8", copy / "same"


async def first_odds(engine):
    """How likely the first token is that the first engine asked would write."""
    asked = [anext(engine.generate(prompt, Sampling(max_tokens=1, logprobs=20))) for prompt in PROMPTS]
    return [dict(reply.logprobs[0].top) for reply in await asyncio.gather(*asked)]


@pytest.mark.vllm
async def test_weights_of_eight_bits_are_run_in_bfloat16_and_say_nearly_the_same(on_vllm, qwen, tmp_path):
    quantised, same = int8(qwen, tmp_path)
    engine, plain = on_vllm(quantised, dtype="bfloat16", max_context=512), TransformersEngine(same)
    assert engine.identity["dtype"] == "bfloat16"
    assert engine.identity["weights"] != plain.identity["weights"]
    for ours, theirs in zip(await first_odds(plain), await first_odds(engine), strict=True):
        likeliest = max(ours, key=ours.get)
        assert theirs[likeliest] == pytest.approx(ours[likeliest], abs=0.5)
    await plain.close()
    await engine.close()


@pytest.mark.vllm
async def test_an_adapter_writes_what_the_merged_model_writes_and_a_closed_engine_nothing(
    on_vllm, qwen, adapter, tmp_path
):
    folder = adapter(qwen, tmp_path / "adapter", merged=tmp_path / "merged")
    merged, plain = TransformersEngine(tmp_path / "merged"), TransformersEngine(qwen)
    engine = on_vllm(qwen, max_context=512, lora=folder)
    assert await greedy(engine) == await greedy(merged) != await greedy(plain)
    assert len(engine.identity["lora"]) == 64

    under_way = asyncio.create_task(anext(engine.generate(PROMPTS[0], Sampling(temperature=1, max_tokens=400))))
    await asyncio.sleep(0.05)
    await engine.close()
    with pytest.raises(EngineError, match="the engine was closed"):
        await under_way
    with pytest.raises(EngineError, match="the engine is closed"):
        await greedy(engine)
    await merged.close()
    await plain.close()


@pytest.mark.vllm
async def test_a_model_that_two_processes_share_writes_what_it_writes_in_one(qwen, vllm_engine, on_vllm):
    shared = on_vllm(qwen, tensor_parallel=2, max_context=512)
    assert shared.options["tensor_parallel_size"] == 2
    assert await greedy(shared) == await greedy(vllm_engine)
    await shared.close()
