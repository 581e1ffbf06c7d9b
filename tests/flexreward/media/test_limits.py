"""Limits as an operator sets them: in the recipe, for the rows and for the decoder."""

import asyncio
import io
import json

import PIL.Image
import pytest

from flexreward.cli import run
from flexreward.config import load_recipe, open_engine
from flexreward.engines.scripted import ScriptedEngine
from flexreward.errors import RecipeError
from flexreward.media.limits import CAPS, LIMITS, FilmCaps, Limits

RECIPE = "model: scripted:longer\nengine: scripted\n"


def recipe(tmp_path, media: str) -> str:
    path = tmp_path / "judge.yaml"
    path.write_text(f"{RECIPE}media: {media}\n")
    return str(path)


def test_a_recipe_sets_limits_by_their_names_and_leaves_the_rest(tmp_path):
    found = load_recipe(recipe(tmp_path, "{image_pixels: 1000000, fps: 2, video_seconds: 30}"))
    assert found.limits == Limits(image_pixels=1_000_000, video_seconds=30)
    assert found.caps == FilmCaps(fps=2)
    plain = load_recipe(recipe(tmp_path, "{}"))
    assert (plain.limits, plain.caps) == (LIMITS, CAPS)


@pytest.mark.parametrize(
    ("media", "message"),
    [
        ("{image_pixel: 5}", "unknown field 'image_pixel', did you mean 'image_pixels'?"),
        ("{colour: 5}", "unknown field 'colour', expected one of image_bytes, audio_bytes"),
        ("{image_pixels: 0}", "image_pixels is 0, expected a whole number above 0"),
        ("{image_pixels: 1.5}", "image_pixels is 1.5, expected a whole number above 0"),
        ("{fps: .inf}", "fps is inf, expected a number above 0"),
        ("{fps: true}", "fps is True, expected a number above 0"),
        ("{frame_pixels: 700}", "frame_pixels is 700, expected at least 784"),
        ("{memory_bytes: 1000}", "memory_bytes is 1000, expected at least 134217728"),
        ("[1]", "media: "),
    ],
)
def test_a_limit_that_is_none_is_one_line_with_its_name(tmp_path, capsys, media, message):
    path = recipe(tmp_path, media)
    with pytest.raises(RecipeError) as error:
        load_recipe(path)
    assert message in str(error.value)
    assert str(error.value).startswith(f"{path}: media: ")
    assert "\n" not in str(error.value)
    assert run(["check", path]) == 2


def test_check_names_the_limits_that_a_recipe_sets(tmp_path, capsys):
    assert run(["check", recipe(tmp_path, "{fps: 2, image_pixels: 1000000}")]) == 0
    assert "media fps 2, image_pixels 1000000: ok" in capsys.readouterr().out


class Bare(ScriptedEngine):
    """An engine of one's own, which takes what it is given."""

    def __init__(self, model, *, decoder=None) -> None:
        super().__init__(lambda prompt: "")
        self.decoder = decoder


@pytest.mark.parametrize("engine", ["tests.flexreward.media.test_limits:Bare", "transformers"])
def test_an_engine_is_made_with_the_decoder_of_its_recipe(tmp_path, engine, vl):
    path = tmp_path / "judge.yaml"
    path.write_text(f"model: {vl}\nengine: {engine}\nmedia: {{image_pixels: 1000000, fps: 2}}\n")
    made = open_engine(load_recipe(path))
    decoder = made.reader.senses.decoder if engine == "transformers" else made.decoder
    assert (decoder.limits.image_pixels, decoder.caps.fps) == (1_000_000, 2)
    asyncio.run(made.close())


def test_rows_are_held_to_the_limits_of_the_judges_recipe(tmp_path, capsys):
    out = io.BytesIO()
    PIL.Image.new("RGB", (64, 64)).save(out, "PNG")
    (tmp_path / "a.png").write_bytes(out.getvalue())
    row = {"prompt": "q", "completions": ["a", "b"], "images": ["a.png"]}
    (tmp_path / "s.jsonl").write_text(json.dumps(row) + "\n")
    command = ["judge", str(tmp_path / "s.jsonl"), "--out", str(tmp_path / "o.jsonl"), "--no-store", "--judge"]
    assert run([*command, recipe(tmp_path, "{image_bytes: 50}")]) == 2
    assert "the limit image_bytes is 50" in capsys.readouterr().err
    assert run([*command, recipe(tmp_path, "{image_bytes: 5000}")]) == 0
