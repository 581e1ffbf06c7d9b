"""Pairs with images, from ``flexreward pairs`` to a trained Qwen2.5-VL. Its processor needs torchvision, which stands
in vLLM's environment."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from flexreward.errors import RecipeError
from tests.flexreward.test_pairs import command, load, write
from tests.flexreward.test_pairs_images import LONG, SHORT, picture
from tests.training.commands import trl
from training.recipe import DpoRecipe
from training.run import weights_digest

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]  # TRL's own
pytest.importorskip("vllm", reason="needs vLLM's environment")
pytest.importorskip("trl", reason="needs pip install 'flexreward[train]'")

KERNELS = Path(__file__).parents[1] / "without_torchvision_kernels"
if "torchvision" not in sys.modules and "without_torchvision_kernels" not in sys.modules:
    found = importlib.util.spec_from_file_location("without_torchvision_kernels", KERNELS / "sitecustomize.py")
    sys.modules[found.name] = importlib.util.module_from_spec(found)
    found.loader.exec_module(sys.modules[found.name])

from training import dpo  # noqa: E402


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """A folder of four pairs; the last prompt shows two images, one inside of its message."""
    folder = tmp_path_factory.mktemp("pairs")
    names = [picture(folder / f"{n}.png", seed=n, size=60 + 20 * n) for n in range(4)]
    rows = [
        {"prompt": f"What is shown in {n}?", "completions": [SHORT, LONG + "!" * n], "images": [names[n]]}
        for n in range(3)
    ]
    turn = {"role": "user", "content": [{"type": "text", "text": "Alike?"}, {"type": "image", "image": names[3]}]}
    rows.append({"prompt": [turn], "completions": [SHORT, LONG], "images": [names[0]]})
    told = ("--out", folder / "out", "--judge", "scripted:longer", "--no-store")
    assert command("pairs", write(folder / "s.jsonl", *rows), *told) == 0
    return folder / "out"


@pytest.fixture
def asked(tmp_path, vl, pairs):
    def make(name: str = "a", **changes):
        fields = {
            "model": str(vl),
            "data": str(pairs),
            "eval_share": 0.25,
            "output": tmp_path / name / "policy",
            "run_dir": tmp_path / name / "run",
            "batch_size": 2,
            "micro_batch_size": 1,
            "epochs": 1,
            "max_length": 400,
            "learning_rate": 1e-3,
        }
        return DpoRecipe(**(fields | changes))

    return make


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_policy_that_sees_is_trained_in_its_language_model_alone(asked, vl, method):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    recipe = asked(method=method)
    dpo.train(recipe)
    before, after = (AutoModelForImageTextToText.from_pretrained(folder).state_dict() for folder in (vl, recipe.output))
    assert before.keys() == after.keys()
    moved = {name for name in before if not before[name].equal(after[name])}
    assert moved
    assert not any(".visual." in name for name in moved)
    assert AutoProcessor.from_pretrained(recipe.output).image_token == "<|image_pad|>"
    rows = [json.loads(line) for line in (recipe.run_dir / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["eval_rewards/margins"] == 0
    assert rows[-1]["eval_rewards/margins"] != 0


def test_tokens_of_images_count_and_fewer_pixels_make_fewer_of_them(asked, capsys):
    recipe = asked(too_long="refuse", max_length=60)
    with pytest.raises(Exception, match="above max_length 60"):
        dpo.train(recipe)
    dpo.train(asked("b", too_long="refuse", max_length=110, max_pixels=56 * 56, eval_share=0))
    assert "4 pairs, 0 left out above 110 tokens" in capsys.readouterr().out


def test_what_cannot_be_had_with_images_is_one_line(asked, checkpoint):
    with pytest.raises(RecipeError, match="precompute_ref_log_probs: true cannot be had with images"):
        dpo.train(asked(precompute_ref_log_probs=True))
    with pytest.raises(RecipeError, match=r"brings images, and .* is a model of text"):
        dpo.train(asked(model=str(checkpoint)))


def test_trl_dpo_trains_on_the_folder_unchanged(tmp_path, vl, pairs):
    done = trl("dpo", pairs, vl, tmp_path / "out", "--max_length", "400", also=KERNELS)
    assert done.returncode == 0, done.stderr[-2000:]
    assert weights_digest(tmp_path / "out")
    assert len(load(pairs)) == 4
