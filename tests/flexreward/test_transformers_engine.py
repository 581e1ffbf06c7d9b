"""The embedded engine writes what the model alone would write, whatever else is in the batch."""

import asyncio
import json
import math
import shutil
import subprocess
import sys
import threading
from collections import Counter
from contextlib import aclosing
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from flexreward.engines import load_engine
from flexreward.engines.adapter import Adapter
from flexreward.engines.base import Prompt, Sampling, begins
from flexreward.engines.batching import admissible, groups
from flexreward.engines.sampling import Draw, draw, odds, uniform
from flexreward.engines.transformers import TransformersEngine
from flexreward.errors import ContextError, EngineError, JudgeError, RecipeError, RefusedError

SYSTEM = "You are a judge of the answers of two assistants, and you think before you score."
USERS = ["Which is it?", "Sort the digits 3 1 2 of the system.", "x", "a longer question " * 7, "é 漢 🙂", "last one"]
WARM = Sampling(temperature=1.0, max_tokens=24, seed=7)


@pytest.fixture(scope="module")
def engine(checkpoint):
    engine = TransformersEngine(checkpoint, batch_size=4)
    yield engine
    asyncio.run(engine.close())


@pytest.fixture(scope="module")
def alone(checkpoint):
    """What ``model.generate`` writes for one prompt at temperature 0."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(checkpoint)

    def generate(prompt: Prompt, max_tokens: int) -> str:
        messages = [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.user}]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) + prompt.prefix
        inputs = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
        out = model.generate(**inputs, max_new_tokens=max_tokens, do_sample=False)[0, inputs.input_ids.shape[1] :]
        ids = out[:-1] if out[-1] == tokenizer.eos_token_id else out
        return prompt.prefix + tokenizer.decode(ids)

    return generate


async def replies(engine, prompt, sampling):
    return [reply async for reply in engine.generate(prompt, sampling)]


async def texts(engine, prompt, sampling):
    return [reply.text for reply in await replies(engine, prompt, sampling)]


async def test_an_adapter_is_in_the_weights_and_in_the_name_of_the_engine(checkpoint, engine, adapter, tmp_path):
    folder = adapter(checkpoint, tmp_path / "adapter", merged=tmp_path / "merged")
    adapted, merged = TransformersEngine(checkpoint, lora=folder), TransformersEngine(tmp_path / "merged")
    asked = [Prompt(system=SYSTEM, user=user) for user in USERS[:3]]
    greedy = Sampling(max_tokens=24)
    written = [await texts(adapted, one, greedy) for one in asked]
    assert written == [await texts(merged, one, greedy) for one in asked]
    assert written != [await texts(engine, one, greedy) for one in asked]
    assert adapted.identity == engine.identity | {"lora": Adapter(folder).digest}
    await adapted.close()
    await merged.close()
    with pytest.raises(JudgeError, match=r"no adapter_config.json; name the folder that peft"):
        TransformersEngine(checkpoint, lora=checkpoint)


async def test_an_adapter_of_another_model_is_one_line(make_checkpoint, checkpoint, adapter, tmp_path):
    folder = adapter(make_checkpoint(hidden_size=64), tmp_path / "adapter")
    with pytest.raises(JudgeError, match="this adapter is of another model") as error:
        TransformersEngine(checkpoint, lora=folder)
    assert "\n" not in str(error.value)


async def until(holds):
    for _ in range(10_000):
        if holds():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it never came")


def prompts():
    return [Prompt(system=SYSTEM, user=user) for user in USERS]


@pytest.mark.parametrize("kind", ["qwen2", "sliding", "eager", "llama_like"])
async def test_greedy_replies_are_those_of_the_model_alone_also_in_a_mixed_batch(kind, checkpoint, make_checkpoint):
    options = {}
    if kind == "sliding":
        checkpoint = make_checkpoint(
            use_sliding_window=True, sliding_window=9, max_window_layers=1, num_key_value_heads=4
        )
    if kind == "llama_like":
        checkpoint = make_checkpoint(num_key_value_heads=1, num_hidden_layers=3)
    if kind == "eager":
        options = {"attention": "eager"}
    engine = TransformersEngine(checkpoint, batch_size=4, **options)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    limits = [30, 12, 5, 30, 17, 30]
    got = await asyncio.gather(
        *(replies(engine, p, Sampling(max_tokens=m)) for p, m in zip(prompts(), limits, strict=True))
    )
    for prompt, limit, [reply] in zip(prompts(), limits, got, strict=True):
        ids = torch.tensor([engine.reader.encoder.encode(prompt).ids])
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=limit, do_sample=False)
        written = out[0, ids.shape[1] :].tolist()
        assert reply.completion_tokens == len(written)
        assert reply.prompt_tokens == ids.shape[1]
        ended = written[-1] == tokenizer.eos_token_id
        assert reply.text == tokenizer.decode(written[:-1] if ended else written)
        assert reply.finish_reason == ("stop" if ended else "length")
    await engine.close()


async def test_a_started_turn_is_continued_and_heads_the_reply(engine, alone):
    prompt = Prompt(system=SYSTEM, user="Which?", prefix="<think>\nThe")
    assert await texts(engine, prompt, Sampling(max_tokens=20)) == [alone(prompt, 20)]


async def test_a_sampled_reply_is_the_same_alone_and_among_others(engine):
    one_by_one = [await texts(engine, prompt, WARM) for prompt in prompts()]
    together = await asyncio.gather(*(texts(engine, prompt, WARM) for prompt in prompts()))
    assert together == one_by_one
    assert len({text for [text] in together}) == len(USERS)


async def test_replies_from_one_prefill_are_those_that_seed_and_number_define(engine):
    several = Sampling(temperature=1.0, max_tokens=24, seed=7, n=4)
    together, [first] = await asyncio.gather(
        replies(engine, prompts()[0], several), replies(engine, prompts()[0], WARM)
    )
    assert first.text in [reply.text for reply in together]
    assert len({reply.text for reply in together}) == 4
    more = await texts(engine, prompts()[0], Sampling(temperature=1.0, max_tokens=24, seed=7, n=6))
    assert Counter(reply.text for reply in together) < Counter(more)


async def test_another_seed_draws_another_reply(engine):
    other = Sampling(temperature=1.0, max_tokens=24, seed=8)
    assert await texts(engine, prompts()[0], WARM) != await texts(engine, prompts()[0], other)


async def test_greedy_replies_are_all_one_reply(engine):
    first, second = await texts(engine, prompts()[0], Sampling(max_tokens=5, n=2))
    assert first == second


async def test_a_request_of_more_replies_than_a_batch_holds_is_answered(engine):
    several = Sampling(temperature=1.0, max_tokens=6, n=9)
    found, [other] = await asyncio.gather(texts(engine, prompts()[0], several), texts(engine, prompts()[1], WARM))
    assert len(found) == 9
    assert other


async def test_what_need_not_begin_at_once_begins_when_it_is_asked_for_and_is_what_it_would_have_been(
    engine, monkeypatch
):
    begun: list[list[int]] = []
    submit = engine._worker.submit

    def counted(job):
        begun.append(list(job.pending))
        submit(job)

    monkeypatch.setattr(engine._worker, "submit", counted)
    prompt, several = Prompt(system=SYSTEM, user=USERS[0]), replace(WARM, n=4)
    at_once = await replies(engine, prompt, several)
    async with aclosing(engine.generate(prompt, replace(several, at_once=3))) as stream:
        first = [await anext(stream) for _ in range(3)]
        assert begun == [[0, 1, 2, 3], [0, 1, 2]]
        found = [*first, await anext(stream)]
    assert begun[2:] == [[3]]
    assert sorted(found, key=lambda reply: reply.index) == sorted(at_once, key=lambda reply: reply.index)


@pytest.mark.parametrize("at_once", [None, 1, 3, 4, 9])
def test_every_reply_begins_once(at_once):
    parts = [begins(number, at_once, 4) for number in range(4)]
    assert [index for part in parts for index in part] == [0, 1, 2, 3]
    assert len(parts[0]) == min(at_once or 4, 4)


async def test_a_stop_string_ends_the_reply_and_stays_in_it(engine, alone):
    whole = alone(prompts()[3], 30)
    stop = whole[9:12]
    cut = whole[: whole.index(stop) + len(stop)]
    [reply] = await replies(engine, prompts()[3], Sampling(max_tokens=30, stop=("never there", stop)))
    assert (reply.text, reply.finish_reason) == (cut, "stop")


async def test_logprobs_are_the_models_own_at_temperature_1(engine, checkpoint):
    sampling = Sampling(temperature=0.5, max_tokens=6, seed=3, logprobs=3)
    [reply] = await replies(engine, prompts()[1], sampling)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    ids = list(engine.reader.encoder.encode(prompts()[1]).ids)
    assert len(reply.logprobs) == reply.completion_tokens
    for entry in reply.logprobs:
        logprobs = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        values, tokens = logprobs.topk(3)
        assert [text for text, _ in entry.top] == [tokenizer.decode([i]) for i in tokens.tolist()]
        assert [value for _, value in entry.top] == pytest.approx(values.tolist(), abs=1e-4)
        like = [i for i in range(len(tokenizer)) if tokenizer.decode([i]) == entry.text]
        token = min(like, key=lambda i: abs(logprobs[i].item() - entry.logprob))
        assert entry.logprob == pytest.approx(logprobs[token].item(), abs=1e-4)
        ids.append(token)


async def test_without_the_shared_start_the_replies_are_the_same(engine, monkeypatch):
    with_start = [await texts(engine, prompt, WARM) for prompt in prompts()]
    monkeypatch.setattr("flexreward.engines.runner.LEAST_SHARED", 10**6)
    assert [await texts(engine, prompt, WARM) for prompt in prompts()] == with_start


async def test_a_prompt_that_does_not_fit_is_refused_with_both_numbers_and_its_mates_live(engine):
    long = Prompt(system=SYSTEM, user="word " * 300)
    good, bad = await asyncio.gather(
        texts(engine, prompts()[0], WARM), texts(engine, long, WARM), return_exceptions=True
    )
    assert isinstance(bad, ContextError)
    assert str(bad) == f"the prompt has {engine.count_tokens(long)} tokens, the model reads 512"
    assert isinstance(good[0], str)


async def test_a_reply_ends_where_the_context_ends(engine):
    prompt = Prompt(system=SYSTEM, user="w" * (505 - engine.count_tokens(Prompt(system=SYSTEM, user=""))))
    [reply] = await replies(engine, prompt, Sampling(max_tokens=100))
    assert (reply.prompt_tokens, reply.completion_tokens, reply.finish_reason) == (505, 7, "length")


async def test_half_a_character_is_refused_by_name(engine):
    with pytest.raises(RefusedError):
        await texts(engine, Prompt(system=SYSTEM, user="\ud800"), WARM)


async def test_closing_the_iterator_frees_its_rows(engine):
    endless = Sampling(temperature=1.0, max_tokens=400, n=4)
    iterator = engine.generate(prompts()[0], endless)
    waiting = asyncio.ensure_future(anext(iterator))
    await until(lambda: engine._worker._rows)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await iterator.aclose()
    assert await texts(engine, prompts()[0], WARM)
    assert not [row for row in engine._worker._rows if row.job.sampling is endless]


async def test_what_goes_wrong_in_the_model_ends_its_batch_and_not_the_engine(engine, monkeypatch, caplog):
    expected = await texts(engine, prompts()[0], WARM)
    step = engine._worker._runner.step
    broken = iter([True])

    def fail_once(*args):
        if next(broken, False):
            raise RuntimeError("a kernel died")
        return step(*args)

    monkeypatch.setattr(engine._worker._runner, "step", fail_once)
    with pytest.raises(EngineError, match="the model failed: RuntimeError: a kernel died"):
        await texts(engine, prompts()[0], WARM)
    assert await texts(engine, prompts()[0], WARM) == expected


@pytest.mark.parametrize("move", ["read", "step"])
async def test_out_of_memory_halves_the_batch_and_tries_once_more(checkpoint, monkeypatch, move):
    engine = TransformersEngine(checkpoint, batch_size=4)
    expected = [await texts(engine, prompt, WARM) for prompt in prompts()]
    whole = getattr(engine._worker._runner, move)

    def too_large(rows, *args):
        if len(rows) > 2:
            raise torch.OutOfMemoryError("tried to allocate")
        return whole(rows, *args)

    monkeypatch.setattr(engine._worker._runner, move, too_large)
    assert await asyncio.gather(*(texts(engine, prompt, WARM) for prompt in prompts())) == expected
    assert engine._worker.batch_size == 2
    monkeypatch.setattr(engine._worker._runner, move, lambda *args: too_large([1, 2, 3]))
    with pytest.raises(EngineError, match="out of memory: tried to allocate"):
        await texts(engine, prompts()[0], WARM)
    await engine.close()


async def test_closing_ends_what_is_under_way_and_refuses_what_comes_after(checkpoint):
    engine = TransformersEngine(checkpoint, batch_size=2)
    endless = Sampling(temperature=1.0, max_tokens=400, n=2)
    tasks = [asyncio.ensure_future(texts(engine, prompt, endless)) for prompt in prompts()]
    await until(lambda: engine._worker._rows)
    await engine.close()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert any(isinstance(end, EngineError) for end in ended)
    with pytest.raises(EngineError, match="the engine is closed"):
        await texts(engine, prompts()[0], WARM)
    await engine.close()
    assert not any(thread is engine._worker._thread for thread in threading.enumerate())


def test_a_program_that_forgets_to_close_ends_all_the_same(checkpoint):
    program = (
        "import asyncio, sys\n"
        "from flexreward.engines import load_engine\n"
        "from flexreward.engines.base import Prompt, Sampling\n"
        "engine = load_engine('transformers', model=sys.argv[1])\n"
        "asyncio.run(anext(engine.generate(Prompt(system='s', user='u'), Sampling(max_tokens=3))))\n"
        "print('done')\n"
    )
    run = subprocess.run([sys.executable, "-c", program, str(checkpoint)], capture_output=True, text=True, timeout=120)
    assert (run.returncode, run.stdout) == (0, "done\n"), run.stderr


def test_the_identity_names_what_would_change_a_reply(engine, checkpoint, make_checkpoint):
    same = TransformersEngine(checkpoint).identity
    other = TransformersEngine(make_checkpoint(seed=1)).identity
    assert same == engine.identity
    assert same["weights"] != other["weights"]
    assert (same["dtype"], same["attention"]) == ("float32", "sdpa")


def test_a_model_that_cannot_be_loaded_is_one_line_with_the_remedy(make_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def fails(name, match, **options):
        with pytest.raises(JudgeError, match=match) as caught:
            TransformersEngine(name, **options)
        assert "\n" not in str(caught.value)

    fails("./nowhere", "no such folder; name a model's folder")
    fails("owner/nowhere", "no such folder here, and the hub cannot be reached")
    fails("owner/no where", "neither a folder here nor a hub id")
    fails(tmp_path, "no config.json, so this is no model folder")
    good = make_checkpoint("good")
    fails(good / "config.json", "a judge is a folder")
    fails(good, "unknown device 'gpu7'", device="gpu7")
    fails(good, "unknown dtype 'int3'", dtype="int3")
    fails(good, "unknown attention 'fast'", attention="fast")
    small = make_checkpoint("small", vocab_size=100, eos_token_id=1, pad_token_id=0)
    fails(small, "its tokenizer has [0-9]+ tokens, its model 100; they belong to two models")
    broken = make_checkpoint("broken")
    (broken / "config.json").write_text("{ not json")
    fails(broken, "that transformers can load from there")
    deeper = make_checkpoint("deeper", num_hidden_layers=1)
    config = (deeper / "config.json").read_text().replace('"num_hidden_layers": 1', '"num_hidden_layers": 2')
    (deeper / "config.json").write_text(config.replace('"full_attention"', '"full_attention", "full_attention"'))
    fails(deeper, "weights do not fit its config.json")
    pickled = make_checkpoint("pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    fails(pickled, r"pytorch_model\.bin where \*\.safetensors is needed")
    mute = make_checkpoint("mute")
    (mute / "chat_template.jinja").unlink()
    fails(mute, "no chat template")


def test_an_engine_is_found_by_name_and_its_options_are_checked(checkpoint):
    assert load_engine("transformers", model=checkpoint).identity["engine"] == "transformers"
    assert load_engine("flexreward.engines.scripted:ScriptedEngine", script=str).identity["engine"] == "scripted"
    with pytest.raises(RecipeError, match="did you mean transformers"):
        load_engine("transformer")
    with pytest.raises(RecipeError, match="unknown option 'modle', expected one of model, device"):
        load_engine("transformers", modle="x")
    with pytest.raises(RecipeError, match="option 'model' is missing"):
        load_engine("transformers")
    with pytest.raises(RecipeError, match="cannot be imported"):
        load_engine("no.such:Engine")


def test_a_number_for_a_place_never_changes():
    assert uniform(0, 0, 0) == 0.42098526545066806
    assert len({uniform(s, r, p) for s in range(5) for r in range(5) for p in range(5)}) == 125


def test_tokens_are_drawn_as_often_as_the_model_says():
    logits = torch.tensor([[0.0, 1.0, 2.0, -torch.inf]])
    sampling = Sampling(temperature=2.0)
    draws = [Draw(sampling=sampling, reply=0, place=place) for place in range(4000)]
    counts = Counter(draw(logits.expand(4000, -1), draws))
    expected = (logits[0] / 2).softmax(-1)
    for token in range(4):
        assert counts[token] / 4000 == pytest.approx(expected[token].item(), abs=0.03)
    narrow = [Draw(sampling=Sampling(temperature=2.0, top_p=0.5), reply=0, place=place) for place in range(400)]
    assert set(draw(logits.expand(400, -1), narrow)) == {2}
    wider = [Draw(sampling=Sampling(temperature=2.0, top_p=0.6), reply=0, place=place) for place in range(400)]
    assert set(draw(logits.expand(400, -1), wider)) == {1, 2}


def test_odds_are_best_first():
    [found] = odds(torch.tensor([[0.0, 2.0, 1.0]]), [0], 2)
    assert [token for token, _ in found.top] == [1, 2]
    assert found.logprob == pytest.approx(-2.4076, abs=1e-4)


def test_prompts_of_like_length_are_read_together():
    lengths = [10, 100, 11, 99, 10, 55]
    found = groups(lengths, largest=8)
    assert found == [[1, 3], [5], [2, 0, 4]]
    assert groups([5] * 10, largest=4) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert groups([], largest=4) == []


def test_jobs_start_first_come_first_served_and_a_large_one_starts_alone():
    assert admissible([1, 1, 1], under_way=2, batch_size=4) == 2
    assert admissible([9, 1], under_way=1, batch_size=4) == 0
    assert admissible([9, 1], under_way=0, batch_size=4) == 1
    assert admissible([], under_way=0, batch_size=4) == 0


@pytest.mark.gpu
@pytest.mark.parametrize("attention", ["sdpa", "flash_attention_2"])
async def test_on_a_gpu_the_replies_are_those_of_the_cpu(make_checkpoint, attention):
    if attention == "flash_attention_2":
        pytest.importorskip("flash_attn")
    checkpoint = make_checkpoint(hidden_size=128, num_attention_heads=2, num_key_value_heads=2)
    half = "bfloat16"
    cpu = TransformersEngine(checkpoint, device="cpu", dtype=half)
    gpu = TransformersEngine(checkpoint, device="cuda", dtype=half, attention=attention)
    first = Sampling(max_tokens=1, logprobs=5)
    for prompt in prompts():
        [[one], [two]] = await asyncio.gather(replies(cpu, prompt, first), replies(gpu, prompt, first))
        assert one.logprobs[0].logprob == pytest.approx(two.logprobs[0].logprob, abs=0.2)
    assert all(await asyncio.gather(*(texts(gpu, prompt, WARM) for prompt in prompts())))
    await cpu.close()
    await gpu.close()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
async def test_every_reply_says_which_of_the_n_it_is(engine, temperature):
    sampling = Sampling(temperature=temperature, n=4, max_tokens=12)
    replies = [reply async for reply in engine.generate(Prompt(system="s", user="u"), sampling)]
    assert sorted(reply.index for reply in replies) == [0, 1, 2, 3]


async def test_tokens_that_the_generation_config_suppresses_are_never_written_and_have_no_odds(
    engine, checkpoint, tmp_path
):
    asked = Prompt(system=SYSTEM, user=USERS[0])
    sampling = replace(WARM, logprobs=4)
    (free,) = await replies(engine, asked, sampling)
    encoder = engine.reader.encoder
    (likely,) = {i for i in range(500) if encoder.decode([i]) == free.logprobs[0].top[0][0]}
    shutil.copytree(checkpoint, tmp_path / "silenced")
    config = tmp_path / "silenced" / "generation_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"suppress_tokens": [likely]}))
    silenced = TransformersEngine(tmp_path / "silenced")
    (reply,) = await replies(silenced, asked, sampling)
    await silenced.close()
    texts = {text for one in reply.logprobs for text in (one.text, *(text for text, _ in one.top))}
    assert encoder.decode([likely]) not in texts
    share = math.exp(free.logprobs[0].top[0][1])
    kept = [(text, logprob - math.log1p(-share)) for text, logprob in free.logprobs[0].top[1:]]
    assert [text for text, _ in reply.logprobs[0].top[:3]] == [text for text, _ in kept]
    assert [logprob for _, logprob in reply.logprobs[0].top[:3]] == pytest.approx([one for _, one in kept], abs=1e-4)
