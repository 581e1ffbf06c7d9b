"""The embedded engine shows a model images, films and sounds as transformers' own road does, whatever else is in the
batch."""

import asyncio
import json
import shutil
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize

from flexreward.engines.base import Embeddings, Placed, Prompt, Sampling
from flexreward.engines.forced import ForcedEngine
from flexreward.engines.senses import Sight
from flexreward.engines.towers import Span, patches, positions, spectra
from flexreward.engines.transformers import TransformersEngine
from flexreward.errors import ContextError, JudgeError, RefusedError
from flexreward.judge import Judge
from flexreward.media.limits import CAPS, LIMITS
from flexreward.templates import load_template
from flexreward.types import JudgeRequest, Media, Verdict
from tests.seeing import IMAGES, flicker, hiss, noise, shown, tiny_omni, tiny_vl

GREEDY = Sampling(max_tokens=24)
SIGHT = Sight(
    patch=14,
    merge=2,
    frames=2,
    min_pixels=56 * 56,
    max_pixels=224 * 224,
    mean=tuple(IMAGES["image_mean"]),
    std=tuple(IMAGES["image_std"]),
)
ONE, TWO = noise(90, 120), noise(200, 60, seed=1)
SEEN = {
    "no image": shown(),
    "one image": shown(ONE),
    "two images": shown(ONE, TWO),
    "one image twice": shown(ONE, ONE),
    # At this pace a film is shorter than it is wide: where it is not, transformers counts on in its own way.
    "a film": shown(flicker(6, fps=8)),
    "image, film, image": shown(TWO, flicker(4, fps=8, seed=2), ONE),
}
HEARD = {
    "one sound": shown(hiss(1.3)),
    "two sounds and an image": shown(hiss(0.7), hiss(2, seed=1), TWO),
    "a sound beside a film": shown(flicker(4, fps=0.5), hiss(1)),
}


@pytest.fixture(scope="module")
def seeing(vl):
    engine = TransformersEngine(vl, batch_size=8)
    yield engine
    asyncio.run(engine.close())


@pytest.fixture(scope="module")
def hearing(omni):
    engine = TransformersEngine(omni, batch_size=8)
    yield engine
    asyncio.run(engine.close())


async def reply(engine, prompt, sampling=GREEDY):
    return await anext(engine.generate(prompt, sampling))


def alone(engine, prompt: Prompt, max_tokens: int) -> str:
    """What the model's own ``generate`` writes, which works out features and positions itself."""
    ready = engine.reader.senses.shown_now(prompt.media)
    ids = torch.tensor([engine.reader.encoder.encode(prompt, [one.width for one in ready]).ids])
    config = engine.model.config
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    omni = config.model_type == "qwen2_5_omni_thinker"
    if not omni:
        kinds = (ids == config.image_token_id).int() + 2 * (ids == config.video_token_id).int()
        inputs["mm_token_type_ids"] = kinds
    for kind, pixels, grid in (
        ("image", "pixel_values", "image_grid_thw"),
        ("video", "pixel_values_videos", "video_grid_thw"),
    ):
        if some := [patches(one.frames_THWC, engine.reader.senses.sight) for one in ready if one.kind == kind]:
            inputs[pixels] = torch.from_numpy(np.concatenate([cut for cut, _ in some]))
            inputs[grid] = torch.tensor([grid_thw for _, grid_thw in some])
    if films := [one.film for one in ready if one.film]:
        name = "video_second_per_grid" if omni else "second_per_grid_ts"
        inputs[name] = torch.tensor([2 / film.fps for film in films])
    if sounds := [one for one in ready if one.kind == "audio"]:
        made = spectra(sounds, engine.reader.senses.hearing)
        inputs["input_features"] = torch.from_numpy(made["input_features"])
        inputs["feature_attention_mask"] = torch.from_numpy(made["attention_mask"])
    engine.model.rope_deltas = None
    out = engine.model.generate(**inputs, max_new_tokens=max_tokens, do_sample=False)[0, ids.shape[1] :].tolist()
    return engine.reader.encoder.decode(out[:-1] if out[-1] in engine.ends else out)


@pytest.mark.parametrize("name", SEEN)
async def test_greedy_replies_about_images_and_films_are_those_of_the_model_alone(seeing, name):
    assert (await reply(seeing, SEEN[name])).text == alone(seeing, SEEN[name], GREEDY.max_tokens)


@pytest.mark.parametrize("name", [*SEEN, *HEARD])
async def test_greedy_replies_about_sounds_too_are_those_of_the_model_alone(hearing, name):
    prompt = (SEEN | HEARD)[name]
    assert (await reply(hearing, prompt)).text == alone(hearing, prompt, GREEDY.max_tokens)


async def test_a_batch_of_all_kinds_holds_the_replies_of_each_alone(hearing):
    prompts = list((SEEN | HEARD).values())
    one_by_one = [(await reply(hearing, prompt)).text for prompt in prompts]
    together = await asyncio.gather(*(reply(hearing, prompt) for prompt in prompts + prompts[::-1]))
    assert [one.text for one in together] == one_by_one + one_by_one[::-1]
    assert len(set(one_by_one)) == len(prompts)


async def test_votes_about_an_image_are_drawn_each_from_its_own_seed(seeing):
    warm = Sampling(temperature=1.0, max_tokens=12, seed=3, n=4)
    few = {one.index: one.text async for one in seeing.generate(SEEN["two images"], replace(warm, n=2))}
    many = {one.index: one.text async for one in seeing.generate(SEEN["two images"], warm)}
    assert {index: many[index] for index in few} == few
    assert len(set(many.values())) == 4


async def test_the_order_and_the_place_of_images_is_seen(seeing):
    there, back = shown(ONE, TWO), shown(TWO, ONE)
    moved = replace(there, media=(Placed(1, ONE), Placed(2, TWO)))
    texts = {(await reply(seeing, prompt)).text for prompt in (there, back, moved)}
    assert len(texts) == 3


async def test_prompt_tokens_are_those_of_text_and_media(seeing):
    bare, seen = await reply(seeing, SEEN["no image"]), await reply(seeing, SEEN["two images"])
    # 90 x 120 becomes 84 x 112 (3 x 4 rows), 200 x 60 becomes 196 x 56 (7 x 2); two tokens stand around each.
    assert seen.prompt_tokens - bare.prompt_tokens == 3 * 4 + 7 * 2 + 2 * 2
    assert seeing.count_tokens(SEEN["two images"]) == seen.prompt_tokens


async def test_an_image_is_looked_at_once_for_all_orders_and_votes(vl, monkeypatch):
    engine = TransformersEngine(vl)
    looks = []
    inner = engine.model.model
    look = inner.get_image_features
    monkeypatch.setattr(
        inner, "get_image_features", lambda pixels, grids: looks.append(len(grids)) or look(pixels, grids)
    )
    for prompt in (shown(ONE, TWO), shown(TWO, ONE), shown(ONE)):
        await reply(engine, prompt)
    assert looks == [2]
    await engine.close()


@pytest.mark.parametrize("layout", ["old", "new"])
async def test_each_layout_of_a_vl_checkpoint_is_the_same_model(tmp_path, seeing, layout):
    engine = TransformersEngine(tiny_vl(tmp_path / "vl", layout=layout))
    assert (await reply(engine, SEEN["two images"])).text == (await reply(seeing, SEEN["two images"])).text
    await engine.close()


@pytest.mark.parametrize("layout", ["whole", "bare"])
async def test_each_layout_of_an_omni_checkpoint_is_the_same_model(tmp_path, hearing, layout):
    engine = TransformersEngine(tiny_omni(tmp_path / "omni", layout=layout))
    prompt = HEARD["two sounds and an image"]
    assert (await reply(engine, prompt)).text == (await reply(hearing, prompt)).text
    await engine.close()


async def test_processor_files_that_are_missing_are_those_of_the_base_model(tmp_path, vl, seeing):
    bare = tiny_vl(tmp_path / "bare", processor=False)
    engine = TransformersEngine(bare, processor=vl)
    assert (await reply(engine, SEEN["one image"])).text == (await reply(seeing, SEEN["one image"])).text
    assert "processor" in engine.identity
    assert "processor" not in seeing.identity
    await engine.close()


def test_without_them_one_line_says_what_to_set(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(JudgeError, match=r"no preprocessor_config\.json.*set processor to the folder of"):
        TransformersEngine(tiny_vl(tmp_path / "bare", processor=False))


def test_a_model_of_text_takes_no_processor(checkpoint, vl):
    with pytest.raises(JudgeError, match="model of text and needs none"):
        TransformersEngine(checkpoint, processor=vl)
    with pytest.raises(JudgeError, match="max_pixels: this model is shown no images"):
        TransformersEngine(checkpoint, max_pixels=50_000)


def test_settings_are_read_from_the_newer_file_as_well(tmp_path, vl):
    folder = tmp_path / "vl"
    shutil.copytree(vl, folder)
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    size = {"shortest_edge": settings.pop("min_pixels"), "longest_edge": settings.pop("max_pixels")}
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": settings | {"size": size}}))
    engine = TransformersEngine(folder)
    assert engine.reader.senses.sight == SIGHT
    asyncio.run(engine.close())


async def test_pixel_bounds_are_an_option_and_part_of_the_identity(vl, seeing):
    engine = TransformersEngine(vl, max_pixels=2 * 28 * 28, min_pixels=28 * 28)
    assert (await reply(engine, SEEN["one image"])).prompt_tokens < (
        await reply(seeing, SEEN["one image"])
    ).prompt_tokens
    assert engine.identity["sight"] != seeing.identity["sight"]
    await engine.close()


async def test_a_broken_image_is_refused_and_the_next_one_is_seen(seeing):
    broken = Media(kind="image", data=ONE.data[: len(ONE.data) // 2])
    with pytest.raises(RefusedError, match="the image: is a broken or truncated PNG"):
        await reply(seeing, shown(broken))
    assert (await reply(seeing, shown(ONE))).text


async def test_a_kind_that_the_model_is_not_shown_is_refused_by_name(seeing):
    with pytest.raises(RefusedError, match="reads image, text, video, and the prompt shows audio"):
        seeing.can.check(shown(hiss(1)))
    with pytest.raises(RefusedError, match="cannot be shown the audio"):
        await reply(seeing, shown(hiss(1)))


async def test_a_sound_beyond_what_the_model_is_shown_is_refused_and_so_is_none_at_all(hearing):
    with pytest.raises(RefusedError, match=r"lasts 31.0 s, the model is shown 30 s at most"):
        await reply(hearing, shown(hiss(31)))
    with pytest.raises(RefusedError, match="too short for the model"):
        await reply(hearing, shown(hiss(0.02)))


async def test_more_media_than_the_context_holds_is_a_context_error(vl):
    engine = TransformersEngine(vl, max_context=64)
    with pytest.raises(ContextError, match="tokens, the model reads 64"):
        await reply(engine, SEEN["two images"])
    await engine.close()


async def test_embeddings_of_tokens_write_what_the_tokens_write(seeing, checkpoint):
    text = TransformersEngine(checkpoint)
    for engine in (seeing, text):
        ids = engine.reader.encoder._inner.encode(" the digits of it").ids
        rows_TD = engine.model.get_input_embeddings()(torch.tensor(ids)).detach().numpy()
        given = Prompt(system="s", user="Sort.", media=(Placed(4, Embeddings(rows_TD=rows_TD)),))
        spelled = Prompt(system="s", user="Sort the digits of it.")
        ids_given, ids_spelled = (
            engine.reader.encoder.encode(given, [len(ids)]).ids,
            engine.reader.encoder.encode(spelled).ids,
        )
        assert len(ids_given) == len(ids_spelled)
        assert (await reply(engine, given)).text == (await reply(engine, spelled)).text
        assert (await reply(engine, given)).text != (await reply(engine, Prompt(system="s", user="Sort."))).text
    await text.close()


async def test_embeddings_and_an_image_go_together(seeing):
    rows_TD = np.full((3, 128), 0.3, dtype=np.float32)
    both = Prompt(system="s", user="Compare.", media=(Placed(2, Embeddings(rows_TD=rows_TD)), Placed(5, ONE)))
    assert (await reply(seeing, both)).text != (await reply(seeing, replace(both, media=both.media[1:]))).text


async def test_embeddings_of_another_width_are_refused(seeing):
    given = Prompt(system="s", user="x", media=(Placed(0, Embeddings(rows_TD=np.zeros((3, 7), np.float32))),))
    with pytest.raises(RefusedError, match=r"shape \(3, 7\), expected \(rows, 128\)"):
        await reply(seeing, given)


def test_embeddings_are_named_by_what_is_in_them():
    zeros, ones = np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32)
    assert Embeddings(rows_TD=zeros).digest == Embeddings(rows_TD=zeros.copy()).digest
    assert Embeddings(rows_TD=zeros).digest != Embeddings(rows_TD=ones).digest
    assert Embeddings(rows_TD=zeros).digest != Embeddings(rows_TD=zeros.reshape(3, 2)).digest


def test_text_goes_on_after_the_largest_position_of_what_is_shown():
    places_3L, offset = positions(17, [Span(2, (3, 2, 2), 50.0)])
    time, height, width = places_3L.tolist()
    assert time == [0, 1, *[2] * 4, *[52] * 4, *[102] * 4, 103, 104, 105]
    assert height == [0, 1, *[2, 2, 3, 3] * 3, 103, 104, 105]
    assert width == [0, 1, *[2, 3, 2, 3] * 3, 103, 104, 105]
    assert offset == 103 - 14


def test_text_alone_is_counted():
    places_3L, offset = positions(4, [])
    assert places_3L.tolist() == [[0, 1, 2, 3]] * 3
    assert offset == 0


def test_patches_are_those_of_transformers_own_processor():
    settings = {key: IMAGES[key] for key in ("min_pixels", "max_pixels")}
    processor = Qwen2VLImageProcessorPil(**settings)
    pixels_HWC = np.random.default_rng(3).integers(0, 256, (84, 140, 3), dtype=np.uint8)
    theirs = processor(Image.fromarray(pixels_HWC), return_tensors="np")
    ours_NP, grid = patches(pixels_HWC[None], SIGHT)
    assert [list(grid)] == theirs["image_grid_thw"].tolist()
    np.testing.assert_allclose(ours_NP, theirs["pixel_values"], atol=1e-6)


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_an_image_is_fitted_as_the_reference_fits_it(width, height):
    if max(width, height) > 200 * min(width, height):
        return
    high, wide = smart_resize(height, width, factor=28, min_pixels=SIGHT.min_pixels, max_pixels=SIGHT.max_pixels)
    assert SIGHT.fitted(width, height) == (wide, high)


@given(st.integers(1, 5000), st.integers(1, 5000))
@example(10, 1807)
@example(15, 1807)
def test_what_is_fitted_has_whole_rows_within_the_bounds_unless_it_is_one_row_thin(width, height):
    if max(width, height) > 200 * min(width, height):
        return
    wide, high = SIGHT.fitted(width, height)
    assert wide % 28 == high % 28 == 0
    assert min(wide, high) >= 28
    assert wide * high >= SIGHT.min_pixels
    assert wide * high <= SIGHT.max_pixels or min(wide, high) == 28


async def test_forced_answers_about_images_and_sounds_are_all_read(hearing):
    judge = Judge(
        ForcedEngine(hearing), load_template("mj-align"), sampling=Sampling(max_tokens=5, temperature=1.0), votes=3
    )
    judgment = await judge.judge(JudgeRequest(prompt="A cat.", completions=(ONE, TWO)))
    votes = [vote for order in judgment.orders for vote in order.votes]
    assert [type(vote.outcome) for vote in votes] == [Verdict] * 6
    assert len({vote.reply.text for vote in votes}) > 1


async def test_media_are_decoded_off_the_event_loop(vl):
    engine = ForcedEngine(TransformersEngine(vl))
    decoding = []
    decode = engine._engine.reader.senses.decoder.decode
    engine._engine.reader.senses = replace(engine._engine.reader.senses, decoder=Watched(decode, decoding))
    judge = Judge(engine, load_template("mj-align"), sampling=Sampling(max_tokens=3))
    await judge.judge(JudgeRequest(prompt="A cat.", completions=(noise(56, 56, seed=8), noise(56, 56, seed=9))))
    assert len(decoding) == 2
    assert threading.main_thread() not in decoding
    await engine.close()


class Watched:
    """A decoder that notes which threads it is called from."""

    limits, caps = LIMITS, CAPS

    def __init__(self, decode, threads):
        self._decode, self._threads = decode, threads

    def decode(self, media):
        self._threads.append(threading.current_thread())
        return self._decode(media)
