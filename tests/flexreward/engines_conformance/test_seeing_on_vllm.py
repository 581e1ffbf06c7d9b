"""vLLM is shown what the embedded engine is shown, and greedy decoding writes the same tokens on both."""

import asyncio
import re
from dataclasses import replace

import numpy as np
import pytest

from flexreward.engines.base import Embeddings, Placed, Prompt, Sampling
from flexreward.engines.openai import OpenAIEngine
from flexreward.engines.transformers import TransformersEngine
from flexreward.errors import RefusedError
from flexreward.types import Media
from tests.seeing import flicker, hiss, noise, shown, tiny_omni, tiny_vl

pytestmark = pytest.mark.vllm

GREEDY = Sampling(max_tokens=32)
ONE, TWO = noise(90, 120), noise(200, 60, seed=1)
SEEN = {
    "no image": shown(),
    "one image": shown(ONE),
    "two images": shown(ONE, TWO),
    "one image twice": shown(ONE, ONE),
    "a film": shown(flicker(6)),
    "a slow film": shown(flicker(4, fps=0.2)),
    "two films": shown(flicker(4, fps=8, seed=1), flicker(6, fps=0.5, seed=2)),
    "image, film, image": shown(TWO, flicker(4, fps=0.5, seed=2), ONE),
    "a started turn": replace(shown(ONE), prefix="<think>\nThe first image"),
}
HEARD = {
    "one sound": shown(hiss(1.3)),
    "two sounds and an image": shown(hiss(0.7), hiss(2, seed=1), TWO),
    "a sound beside a film": shown(flicker(4, fps=0.5), hiss(1)),
}


def close(*engines):
    """At once: what an engine keeps of main memory, the next ones need."""
    for engine in engines:
        asyncio.run(engine.close())


@pytest.fixture(scope="module")
def vl_pair(vl, on_vllm):
    """Qwen2.5-VL in the layout of Flex-VL-7B on both engines."""
    pair = TransformersEngine(vl), on_vllm(vl, max_context=1024)
    yield pair
    close(*pair)


@pytest.fixture(scope="module")
def omni_pair(tmp_path_factory, on_vllm):
    """Qwen2.5-Omni, talker and vocoder beside the thinker, on both engines."""
    folder = tiny_omni(tmp_path_factory.mktemp("whole") / "omni", layout="whole")
    pair = TransformersEngine(folder), on_vllm(folder, max_context=1024)
    yield pair
    close(*pair)


async def reply(engine, prompt, sampling=GREEDY):
    return await anext(engine.generate(prompt, sampling))


@pytest.mark.parametrize("name", SEEN)
async def test_greedy_replies_about_images_and_films_are_equal_in_every_field(vl_pair, name):
    ours, theirs = vl_pair
    assert await reply(theirs, SEEN[name]) == await reply(ours, SEEN[name])


@pytest.mark.parametrize("name", [*SEEN, *HEARD])
async def test_greedy_replies_about_sounds_too_are_equal_in_every_field(omni_pair, name):
    ours, theirs = omni_pair
    prompt = (SEEN | HEARD)[name]
    assert await reply(theirs, prompt) == await reply(ours, prompt)


async def test_a_crowd_of_all_kinds_is_answered_as_each_alone(omni_pair):
    ours, theirs = omni_pair
    prompts = list((SEEN | HEARD).values())
    crowd = await asyncio.gather(*(reply(theirs, prompt) for prompt in prompts * 2))
    alone = [await reply(ours, prompt) for prompt in prompts]
    assert crowd == alone * 2


async def test_votes_about_two_images_are_the_same_alone_and_in_a_crowd(vl_pair):
    _, theirs = vl_pair
    warm = Sampling(temperature=1.0, max_tokens=12, seed=3, n=3)

    async def votes(prompt):
        return {one.index: one.text async for one in theirs.generate(prompt, warm)}

    alone = await votes(SEEN["two images"])
    crowd = await asyncio.gather(*(votes(prompt) for prompt in SEEN.values()))
    assert len(set(alone.values())) == 3
    assert crowd[list(SEEN).index("two images")] == alone


async def test_both_name_what_they_are_shown_alike(omni_pair):
    ours, theirs = omni_pair
    for name in ("weights", "sight", "hearing"):
        assert theirs.identity[name] == ours.identity[name]
    assert theirs.can.modalities == ours.can.modalities == {"text", "image", "video", "audio"}
    assert theirs.count_tokens(HEARD["one sound"]) == ours.count_tokens(HEARD["one sound"])


async def test_a_broken_image_is_refused_and_the_next_one_is_seen(vl_pair):
    ours, theirs = vl_pair
    broken = Media(kind="image", data=ONE.data[: len(ONE.data) // 2])
    with pytest.raises(RefusedError, match="the image: is a broken or truncated PNG"):
        await reply(theirs, shown(broken))
    assert await reply(theirs, SEEN["one image"]) == await reply(ours, SEEN["one image"])


async def test_a_real_server_is_shown_the_same_images(vl_pair, served):
    """Those that fit as they are: a server resizes the others by its own means."""
    ours, theirs = vl_pair
    server = await asyncio.to_thread(OpenAIEngine, served(theirs.options), dialect="vllm", modalities=["image"])
    one, two = noise(84, 112), noise(196, 56, seed=1)
    for media in ((one,), (two, one), (one, two)):
        sent, local = await reply(server, shown(*media)), await reply(ours, shown(*media))
        # A server leaves special tokens out of a reply, and half a character at its end.
        assert sent.text == re.sub(r"<\|\w+\|>", "", local.text).rstrip("\ufffd")
        assert sent.prompt_tokens == local.prompt_tokens
    await server.close()


async def test_embeddings_are_refused_where_they_were_not_asked_for(vl_pair):
    given = Prompt(system="s", user="x", media=(Placed(0, Embeddings(rows_TD=np.zeros((2, 128), np.float32))),))
    with pytest.raises(RefusedError, match="the prompt shows embeddings"):
        vl_pair[1].can.check(given)


async def test_embeddings_in_a_prompt_write_the_same_on_both(qwen, on_vllm):
    ours, theirs = TransformersEngine(qwen, max_context=512), on_vllm(qwen, max_context=512, prompt_embeddings=True)
    rows_TD = np.random.default_rng(5).standard_normal((6, 128)).astype(np.float32)
    one, two = Embeddings(rows_TD=rows_TD), Embeddings(rows_TD=rows_TD[:2])
    prompts = [
        Prompt(system="You judge molecules.", user="What is this? And this?", media=media)
        for media in ((Placed(14, one),), (Placed(14, two), Placed(23, one)), (Placed(0, two), Placed(0, two)), ())
    ]
    written = await asyncio.gather(*(reply(theirs, prompt) for prompt in prompts))
    assert written == [await reply(ours, prompt) for prompt in prompts]
    assert len({one.text for one in written}) == len(prompts)
    await ours.close()
    await theirs.close()


@pytest.mark.parametrize("make", [lambda f: tiny_omni(f, layout="bare"), lambda f: tiny_omni(f, layout="thinker")])
async def test_a_thinker_alone_is_the_same_model_on_vllm(tmp_path, on_vllm, omni_pair, make):
    theirs = on_vllm(make(tmp_path / "omni"), max_context=1024)
    for prompt in (HEARD["two sounds and an image"], SEEN["a film"]):
        assert (await reply(theirs, prompt)).text == (await reply(omni_pair[0], prompt)).text
    await theirs.close()


async def test_later_key_names_and_processor_files_of_the_base_model_are_the_same_model_on_vllm(
    tmp_path, vl, on_vllm, vl_pair
):
    theirs = on_vllm(tiny_vl(tmp_path / "vl", layout="new", processor=False), processor=vl, max_context=1024)
    for prompt in (SEEN["two images"], SEEN["a film"]):
        assert (await reply(theirs, prompt)).text == (await reply(vl_pair[0], prompt)).text
    assert "processor" in theirs.identity
    await theirs.close()
