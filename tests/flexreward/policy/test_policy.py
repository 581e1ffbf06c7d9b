"""A policy draws completions once, in order, and says of each how it came about."""

from __future__ import annotations

import json
import resource
import signal

import pytest

from flexreward.engines.base import Prompt, Turn
from flexreward.engines.scripted import ScriptedEngine
from flexreward.errors import ContextError, EngineError, JudgeError, OutputError, RecipeError, SampleError
from flexreward.files.samples import Origin, Sample, read_samples
from flexreward.ledger import Ledger
from flexreward.ledger.store import Store
from flexreward.policy.asking import prompt_of
from flexreward.policy.policy import Policy
from flexreward.policy.recipe import PolicyRecipe, resolve_policy
from flexreward.policy.sampled import read_sampled, sample_to_file
from flexreward.types import Media, Message, Reply

RECIPE = PolicyRecipe(model="scripted", engine="scripted", completions=2)


def asked(prompt="Why?", id="q", **fields) -> Sample:
    return Sample(id=id, prompt=prompt, completions=(), where="p.jsonl: line 1", **fields)


def script(prompt: Prompt) -> list[str]:
    return [f"{prompt.user} one", f"{prompt.user} two"]


def policy(answers=script, **more) -> Policy:
    return Policy(RECIPE.model_copy(update=more), engine=ScriptedEngine(answers))


def said(text: str) -> tuple[Message, ...]:
    return (Message(role="assistant", content=text),)


async def drawn(policy, prompts, path, **more):
    return [one async for one in sample_to_file(policy, prompts, path, **more)]


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_completions_come_temperature_by_temperature_with_where_they_are_from():
    found = (await policy().complete(asked())).sample
    assert found.prompt == (Message(role="user", content="Why?"),)
    assert found.completions == (said("Why? one"), said("Why? two")) * 2
    assert [one.temperature for one in found.origins] == [0.8, 0.8, 1.2, 1.2]
    assert len({one.seed for one in found.origins}) == 2
    assert {one.finish_reason for one in found.origins} == {"stop"}


async def test_what_was_cut_at_the_limit_says_so():
    found = await policy(lambda prompt: [Reply(text="whole"), Reply(text="cu", finish_reason="length")]).complete(
        asked()
    )
    assert [one.cut for one in found.sample.origins] == [False, True] * 2


async def test_a_prompt_that_the_model_cannot_read_has_a_reason_and_no_completions():
    def too_long(prompt):
        raise ContextError("the prompt has 9,000 tokens")

    found = await policy(too_long).complete(asked())
    assert found.sample.completions == ()
    assert (found.failure.reason, found.failure.detail) == ("context", "the prompt has 9,000 tokens")


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("Why?", Prompt(system="", user="Why?")),
        ([("system", "Be brief."), ("user", "Why?")], Prompt(system="Be brief.", user="Why?")),
        (
            [("user", "Hi"), ("assistant", "Hello"), ("user", "Why?")],
            Prompt(system="", user="Why?", turns=(Turn("user", "Hi"), Turn("assistant", "Hello"))),
        ),
    ],
)
def test_a_conversation_is_put_as_the_turns_that_it_has(prompt, expected):
    turns = prompt if isinstance(prompt, str) else tuple(Message(role=r, content=c) for r, c in prompt)
    assert prompt_of(asked(turns)) == expected


def test_the_recipes_system_text_stands_only_where_the_prompt_has_none():
    own = (Message(role="system", content="Own."), Message(role="user", content="Why?"))
    assert prompt_of(asked(), "Be brief.").system == "Be brief."
    assert prompt_of(asked(own), "Be brief.").system == "Own."


def test_images_stand_before_the_text_and_in_a_message_where_they_are():
    image = Media(kind="image", data=b"x")
    parts = (Message(role="user", content=("Look: ", image, " Why?")),)
    found = prompt_of(asked(parts, media=(Media(kind="image", data=b"y"),)))
    assert found.user == "Look:  Why?"
    assert [(placed.at, placed.media.data) for placed in found.media] == [(0, b"y"), (6, b"x")]


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ([("user", "Hi"), ("assistant", "Hello")], "the prompt ends with a turn of 'assistant'"),
        ([("system", "Be brief.")], "the prompt ends with its system turn"),
    ],
)
def test_what_no_policy_can_go_on_with_is_refused_in_one_line(turns, message):
    with pytest.raises(SampleError, match=rf"^p\.jsonl: line 1: {message}"):
        prompt_of(asked(tuple(Message(role=role, content=content) for role, content in turns)))


async def test_a_molecular_policy_draws_of_molecules_and_the_file_says_of_which(tmp_path):
    asked_of = asked("What is <mol>?", molecules=("CCO",))
    seen = []
    (one,) = await drawn(policy(lambda prompt: [seen.append(prompt) or "a", "b"]), [asked_of], tmp_path / "s.jsonl")
    assert seen[0].user == "What is ?"
    assert [placed.media.smiles for placed in seen[0].media] == ["CCO"]
    assert one.sample.molecules == ("CCO",)
    assert lines(tmp_path / "s.jsonl")[1]["molecules"] == ["CCO"]
    assert next(read_sampled([asked_of], tmp_path / "s.jsonl")) == one.sample


def test_molecules_are_not_left_out_in_silence():
    with pytest.raises(SampleError, match="brings molecules"):
        prompt_of(asked(molecules=("CCO",)))


async def test_a_file_is_gone_on_with_and_ends_in_the_same_bytes(tmp_path):
    prompts = [asked(f"p{i}", id=str(i)) for i in range(6)]
    whole = tmp_path / "whole.jsonl"
    await drawn(policy(), prompts, whole)
    cut = tmp_path / "cut.jsonl"
    cut.write_bytes(whole.read_bytes()[:-60])
    again = policy()
    found = await drawn(again, prompts, cut)
    assert cut.read_bytes() == whole.read_bytes()
    assert [one.cached for one in found] == [True] * 5 + [False]
    assert again.engine.num_calls == 2  # of one prompt, at two temperatures
    assert [one.sample for one in found] == list(read_sampled(prompts, whole))


async def test_what_the_store_holds_is_drawn_without_the_engine(tmp_path):
    ledger = Ledger(Store(tmp_path / "store.sqlite"))
    one, two = (Policy(RECIPE, engine=ScriptedEngine(script), ledger=ledger) for _ in range(2))
    assert (await one.complete(asked())).sample == (found := await two.complete(asked())).sample
    assert found.cached
    assert two.engine.num_calls == 0


async def test_completions_of_another_policy_or_for_other_prompts_are_not_mixed_in(tmp_path):
    out = tmp_path / "s.jsonl"
    await drawn(policy(), [asked()], out)
    with pytest.raises(OutputError, match="was written by another policy"):
        await drawn(policy(seed=1), [asked()], out)
    with pytest.raises(OutputError, match="where the input now has another 'q'"):
        await drawn(policy(), [asked("Else?")], out)
    with pytest.raises(OutputError, match="holds no completions of 'r'"):
        list(read_sampled([asked(), asked(id="r")], out))
    await drawn(policy(seed=1), [asked()], out, overwrite=True)


async def test_an_engine_that_dies_ends_the_run_in_one_line_and_what_was_drawn_is_kept(tmp_path):
    def dies(prompt):
        if prompt.user == "p3":
            raise EngineError("out of memory")
        return script(prompt)

    prompts = [asked(f"p{i}", id=str(i)) for i in range(6)]
    out = tmp_path / "s.jsonl"
    with pytest.raises(JudgeError, match=r"the policy scripted failed: out of memory; .* run the same again to go on"):
        await drawn(policy(dies), prompts, out)
    assert [line["id"] for line in lines(out)[1:]] == ["0", "1", "2"]
    await drawn(policy(), prompts, out)
    assert [line["id"] for line in lines(out)[1:]] == [str(i) for i in range(6)]


async def test_a_line_holds_the_row_and_the_settings_stand_in_the_header(tmp_path):
    out = tmp_path / "s.jsonl"
    await drawn(policy(), [asked(reference="42", extra={"level": 3})], out)
    header, line = lines(out)
    assert [one["temperature"] for one in header["policy"]["sampling"]] == [0.8, 1.2]
    assert (line["reference"], line["level"]) == ("42", 3)
    assert line["prompt"] == [{"role": "user", "content": "Why?"}]
    assert line["origins"][0].keys() == {"finish_reason", "temperature", "seed"}


def test_a_row_of_samples_may_say_where_its_completions_are_from(tmp_path):
    path = tmp_path / "s.jsonl"
    row = {"prompt": "x", "completions": ["a", "b"], "origins": [{"finish_reason": "length"}, {"temperature": 1}]}
    path.write_text(json.dumps(row))
    assert next(read_samples(str(path))).origins == (Origin(finish_reason="length"), Origin(temperature=1))


@pytest.mark.parametrize("origins", [[{}], "x", [{}, {"cut": True}], [{}, {"finish_reason": 1}], [{}, {"seed": True}]])
def test_origins_that_are_none_are_refused_in_one_line(tmp_path, origins):
    path = tmp_path / "s.jsonl"
    path.write_text(json.dumps({"prompt": "x", "completions": ["a", "b"], "origins": origins}))
    with pytest.raises(SampleError, match=r"line 1: origins.*--map origins="):
        next(read_samples(str(path)))


@pytest.mark.parametrize(
    ("name", "model", "engine"),
    [
        ("http://localhost:8000", "http://localhost:8000/v1", "openai"),
        ("http://localhost:8000/v1", "http://localhost:8000/v1", "openai"),
        ("my-org/policy", "my-org/policy", "transformers"),
    ],
)
def test_a_policy_is_named_by_a_hub_id_or_a_server(name, model, engine):
    found = resolve_policy(name)
    assert (found.model, found.engine) == (model, engine)


def test_a_recipe_of_a_policy_names_the_wrong_field(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text("model: my-org/policy\ntemperature: [1.0]\n")
    with pytest.raises(RecipeError, match=r"p\.yaml: unknown field 'temperature', did you mean 'temperatures'\?"):
        resolve_policy(str(path))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temperatures": [1.0, 1.0]}, "one stands there twice"),
        ({"temperatures": [0.0], "completions": 2, "engine": "vllm"}, "draws the same completion each time"),
    ],
)
def test_a_recipe_that_would_draw_the_same_twice_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        PolicyRecipe(**({"model": "m"} | fields))


async def test_a_broken_row_is_told_after_the_rows_before_it_were_drawn_and_kept(tmp_path):
    source, out = tmp_path / "p.jsonl", tmp_path / "s.jsonl"
    source.write_text('{"id": "a", "prompt": "x"}\n{"id": "b", "prompt": "y"}\n{broken\n')
    with pytest.raises(SampleError, match=r"p\.jsonl: line 3: broken JSON"):
        await drawn(policy(), read_samples(str(source), completed=False), out)
    assert [line["id"] for line in lines(out)[1:]] == ["a", "b"]


async def test_a_full_disk_is_one_line_and_the_rerun_draws_what_is_missing(tmp_path):
    prompts, out, whole = [asked(f"p{i}", id=str(i)) for i in range(6)], tmp_path / "s.jsonl", tmp_path / "whole.jsonl"
    await drawn(policy(), prompts, whole)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (whole.stat().st_size // 2, limits[1]))
    try:
        with pytest.raises(
            OutputError, match=r"cannot be written: .*; what is there stays: make room and run the same"
        ):
            await drawn(policy(), prompts, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert 0 < len(lines(out)) - 1 < 6
    await drawn(policy(), prompts, out)
    assert out.read_bytes() == whole.read_bytes()
