import functools
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer

from flexreward.errors import OutputError, RecipeError, SampleError
from tests.training.runs import apart, killed, losses, starts, untimed, weights
from training import judge_sft
from training.data import lesson
from training.examples import IGNORED, Framer
from training.recipe import SftRecipe
from training.run import Run

SYSTEM = "Score assistants 1-10 (higher=better)."


def rows(count: int, *, first: int = 0) -> list[dict[str, str]]:
    made = []
    for n in range(first, first + count):
        a, b = n * 7 % 90 + 10, n * 13 % 80 + 11
        scores = (9, 2) if a > b else (2, 9)
        thought = f"<think>\n{max(a, b)}.</think> "
        made.append(
            {
                "system": SYSTEM,
                "user": f"{n}: {a} or {b}?",
                "reply": thought + "".join(f"<answer>{s}</answer>" for s in scores),
            }
        )
    return made


def recipe(folder: Path, checkpoint: Path, *, count: int = 8, **fields) -> SftRecipe:
    folder.mkdir(exist_ok=True)
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows(count)))
    small = {
        "model": str(checkpoint),
        "data": str(data),
        "output": folder / "judge",
        "run_dir": folder / "run",
        "learning_rate": 1e-2,
        "epochs": 4,
        "batch_size": 4,
        "micro_batch_size": 2,
        "gradient_checkpointing": False,
        "save_every": 3,
    }
    return SftRecipe(**(small | fields))


def test_eight_rows_are_learned_by_heart_and_every_turn_is_ended(tmp_path, checkpoint):
    asked = recipe(tmp_path, checkpoint, epochs=150, batch_size=8, micro_batch_size=8, log_every=10, save_every=1000)
    judge_sft.train(asked)
    model = AutoModelForCausalLM.from_pretrained(asked.output)
    tokenizer = AutoTokenizer.from_pretrained(asked.output)
    framer = Framer(tokenizer)
    assert model.generation_config.eos_token_id[0] == framer.end_of_turn
    for row in rows(8):
        example = framer.example(lesson(row))
        start = example.labels.count(IGNORED)
        asked_ids = torch.tensor(example.input_ids[:start])[None]
        said = model.generate(asked_ids, attention_mask=torch.ones_like(asked_ids), max_new_tokens=60, do_sample=False)
        assert said[0].tolist() == example.input_ids


def test_the_first_loss_is_the_mean_over_the_replies_alone(tmp_path, checkpoint):
    asked = recipe(tmp_path, checkpoint, count=4, epochs=1)
    judge_sft.train(asked)
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    framer = Framer(AutoTokenizer.from_pretrained(checkpoint))
    total, number = 0.0, 0
    for row in rows(4):
        example = framer.example(lesson(row))
        with torch.no_grad():
            logits = model(torch.tensor(example.input_ids)[None]).logits[0, :-1]
        labels = torch.tensor(example.labels[1:])
        total += float(torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum"))
        number += int((labels != IGNORED).sum())
    assert losses(asked)[0] == pytest.approx(total / number, abs=1e-4)


def test_the_same_seed_gives_the_same_losses_and_weights(tmp_path, checkpoint):
    one, two, three = (recipe(tmp_path / name, checkpoint, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    for asked in (one, two, three):
        judge_sft.train(asked)
    assert losses(one) == losses(two)
    assert apart(one, two) == 0
    assert losses(one) != losses(three)


def test_killed_wherever_it_is_and_run_again_it_ends_in_the_same_judge(tmp_path, checkpoint):
    whole, broken = recipe(tmp_path / "a", checkpoint), recipe(tmp_path / "b", checkpoint)
    judge_sft.train(whole)
    again = functools.partial(judge_sft.train, broken)
    killed(again, Run, "log", when=lambda run, row: row["step"] == 5)
    killed(again, Trainer, "_save_rng_state", when=lambda trainer, folder: folder.endswith("checkpoint-6"))
    assert (broken.run_dir / "checkpoint-6").exists()
    killed(again, judge_sft, "put_in_place")
    assert not broken.output.exists()
    judge_sft.train(broken)
    assert starts(broken) == [0, 3, 3, 8]
    assert untimed(broken) == untimed(whole)
    assert apart(whole, broken) == 0


def test_a_finished_run_is_not_run_again(tmp_path, checkpoint, capsys):
    asked = recipe(tmp_path, checkpoint, epochs=1)
    judge_sft.train(asked)
    before = (asked.output / "model.safetensors").stat().st_mtime_ns
    judge_sft.train(asked)
    assert (asked.output / "model.safetensors").stat().st_mtime_ns == before
    assert "done already" in capsys.readouterr().out
    other = recipe(tmp_path, checkpoint, epochs=1, run_dir=tmp_path / "other")
    with pytest.raises(OutputError, match="already there"):
        judge_sft.train(other)


def test_the_run_folder_tells_what_was_trained(tmp_path, checkpoint, capsys):
    asked = recipe(tmp_path, checkpoint, epochs=1, max_length=180)
    long = rows(1, first=50)[0] | {"user": "x" * 180}
    with Path(asked.data).open("a") as file:
        file.write(json.dumps(long) + "\n")
    judge_sft.train(asked)
    assert {path.name for path in asked.run_dir.iterdir()} >= {"recipe.yaml", "run.json", "metrics.jsonl", "loss.png"}
    assert {path.name for path in tmp_path.iterdir()} == {"rows.jsonl", "judge", "run"}
    printed = capsys.readouterr().out
    assert "parameters: embed_tokens" in printed
    assert "8 rows, 1 left out above 180 tokens" in printed
    assert "left" in printed


def test_adapters_are_merged_into_a_plain_checkpoint(tmp_path, checkpoint):
    asked = recipe(tmp_path, checkpoint, method="lora", gradient_checkpointing=True, save_dtype="bfloat16")
    judge_sft.train(asked)
    base, trained = load_file(checkpoint / "model.safetensors"), weights(asked)
    assert base.keys() == trained.keys()
    moved = {name for name in base if not torch.equal(base[name].bfloat16(), trained[name])}
    assert moved == {name for name in base if "proj.weight" in name}
    assert (asked.run_dir / "trained" / "adapter_model.safetensors").exists()
    assert losses(asked)[-1] < losses(asked)[0]


def test_held_out_rows_are_measured_and_never_trained_on(tmp_path, checkpoint):
    held_out = tmp_path / "held_out.jsonl"
    held_out.write_text("".join(json.dumps(row) + "\n" for row in rows(3, first=100)))
    asked = recipe(tmp_path, checkpoint, epochs=2, eval_data=str(held_out), eval_every=2)
    judge_sft.train(asked)
    lines = [json.loads(line) for line in (asked.run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in lines if "eval_loss" in row] == [2, 4]

    held_out.write_text(json.dumps(rows(1)[0]))
    with pytest.raises(SampleError, match="is among the training rows too"):
        judge_sft.train(
            recipe(tmp_path, checkpoint, eval_data=str(held_out), run_dir=tmp_path / "b", output=tmp_path / "o")
        )


def test_arithmetic_in_bfloat16_learns_and_saves_what_its_base_was_saved_in(tmp_path, checkpoint):
    asked = recipe(tmp_path, checkpoint, arithmetic="bfloat16", group_by_length=True, attention="eager")
    judge_sft.train(asked)
    assert losses(asked)[-1] < losses(asked)[0]
    assert {tensor.dtype for tensor in weights(asked).values()} == {torch.float32}


def test_a_batch_that_cannot_be_shared_out_is_refused(tmp_path, checkpoint):
    with pytest.raises(RecipeError, match="batch_size 4 is no multiple of micro_batch_size 3 x 1 processes"):
        judge_sft.train(recipe(tmp_path, checkpoint, micro_batch_size=3))


def test_a_users_mistake_is_one_line_and_exit_2(tmp_path, checkpoint, capsys):
    (tmp_path / "r.yaml").write_text("model: m\n")
    assert judge_sft.main([str(tmp_path / "r.yaml")]) == 2
    assert capsys.readouterr().err == f"{tmp_path / 'r.yaml'}: field 'data' is missing\n"
