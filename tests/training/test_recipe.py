import pytest

from flexreward.errors import RecipeError
from training.recipe import SftRecipe, load

WHOLE = "model: m\ndata: rows.jsonl\noutput: out\nrun_dir: run\n"


def recipe(tmp_path, text: str) -> SftRecipe:
    (tmp_path / "r.yaml").write_text(text)
    return load(tmp_path / "r.yaml", SftRecipe)


def test_what_a_recipe_leaves_out_is_as_published(tmp_path):
    found = recipe(tmp_path, WHOLE)
    assert (found.learning_rate, found.epochs, found.schedule, found.warmup) == (1e-5, 1, "cosine", 0.05)
    assert (found.betas, found.weight_decay, found.batch_size, found.max_length) == ((0.9, 0.95), 1e-4, 32, 4096)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (WHOLE + "learning_rat: 1\n", "r.yaml: unknown field 'learning_rat', expected learning_rate"),
        (WHOLE + "zzz: 1\n", "unknown field 'zzz', expected one of model, data"),
        ("model: m\n", "field 'data' is missing"),
        (WHOLE + "method: qlora\n", "field 'method': Input should be 'full' or 'lora', found 'qlora'"),
        (WHOLE + "lora: {rank: 0}\n", "field 'lora.rank': Input should be greater than 0, found 0"),
        (WHOLE + "keep_checkpoints: 1\n", "field 'keep_checkpoints'"),
        ("- a\n", "expected fields and values, found list"),
        ("a: [\n", "not YAML"),
    ],
)
def test_a_wrong_recipe_gets_one_line_that_says_what_would_fit(tmp_path, text, complaint):
    with pytest.raises(RecipeError) as caught:
        recipe(tmp_path, text)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_recipe_that_is_not_there_is_said_to_be(tmp_path):
    with pytest.raises(RecipeError, match=r"none\.yaml: cannot be read \(No such file"):
        load(tmp_path / "none.yaml", SftRecipe)
