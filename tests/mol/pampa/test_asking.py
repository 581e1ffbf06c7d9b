import asyncio
from math import log

import pytest

from flexreward.engines.base import Capabilities
from flexreward.engines.scripted import ScriptedEngine
from flexreward.errors import EngineError, JudgeError, RecipeError
from flexreward.ledger import Ledger
from flexreward.types import Reason, Reply, TokenLogprob
from mol.pampa.asking import Asker, Scorer, without_answer
from mol.pampa.recipe import parse_recipe
from mol.pampa.sources import read_source


def first(recipe):
    return read_source(recipe.data).rows[0]


def asker(recipe, engine):
    return Asker("m", recipe.models["m"], recipe, engine, Ledger(None))


def changed(fields, **parts):
    return parse_recipe(fields | {name: fields.get(name, {}) | part for name, part in parts.items()}, "toy.yaml")


async def test_the_molecule_stands_where_the_text_says_and_nothing_marks_its_place(recipe, molecular, smiles_shown):
    engine = molecular(lambda prompt: "Final answer: High")
    await asker(recipe, engine).greedy(first(recipe), recipe.styles["plain"])
    prompt = engine.prompts[0]
    assert (prompt.system, prompt.user) == ("You know.", "How is it?\nMolecule .")
    assert prompt.media[0].at == len("How is it?\nMolecule ")
    assert smiles_shown(prompt) == first(recipe).molecule.smiles


async def test_an_answer_is_read_and_asked_once_more_for_its_probability(recipe, molecular):
    engine = molecular(lambda prompt: "It is small.\nFinal answer: **Low**.", chance=lambda smiles: 0.2)
    answer = await asker(recipe, engine).greedy(first(recipe), recipe.styles["plain"])
    assert (answer.label, answer.published, answer.probability) == (0, 0, pytest.approx(0.2))
    assert engine.prompts[1].prefix == "It is small.\nFinal answer: **"


async def test_an_unread_reply_has_a_probability_behind_a_marker_of_ours(recipe, molecular):
    engine = molecular(lambda prompt: "It is small.", chance=lambda smiles: 0.9)
    answer = await asker(recipe, engine).greedy(first(recipe), recipe.styles["plain"])
    assert (answer.label, answer.reason, answer.probability) == (-1, Reason.NO_ANSWER, pytest.approx(0.9))
    assert engine.prompts[1].prefix == "It is small.\n\nFinal answer:"


async def test_the_published_continuation_goes_on_where_the_marker_is_missing(fields, molecular):
    recipe = changed(fields, answers={"continued": True, "probability": "none"})
    engine = molecular(lambda prompt: "Low" if prompt.prefix else "It is small.")
    answer = await asker(recipe, engine).greedy(first(recipe), recipe.styles["plain"])
    assert engine.prompts[1].prefix == "It is small.\n\nFinal answer: "
    assert (answer.text, answer.label, answer.published) == ("It is small.\n\nFinal answer: Low", 0, 0)


async def test_what_was_cut_is_unread(fields, molecular):
    recipe = changed(fields, answers={"probability": "none"})
    engine = molecular(lambda prompt: Reply(text="Final answer: High", finish_reason="length"))
    answer = await asker(recipe, engine).greedy(first(recipe), recipe.styles["plain"])
    assert (answer.label, answer.reason) == (-1, Reason.TRUNCATED)


async def test_candidates_are_drawn_from_one_prefill(recipe, molecular):
    engine = molecular(lambda prompt: ["Final answer: High", "Final answer: Low", "?", "Final answer: Low"])
    found = await asker(recipe, engine).candidates(first(recipe), recipe.styles["plain"])
    assert [one.label for one in found] == [1, 0, -1, 0]
    assert engine.num_calls == 1


async def test_smiles_can_be_written_for_a_model_that_reads_only_text(fields):
    recipe = changed(fields, answers={"probability": "none", "shown": "smiles"})
    seen = []

    def script(prompt):
        seen.append(prompt)
        return "Final answer: High"

    await asker(recipe, ScriptedEngine(script)).greedy(first(recipe), recipe.styles["plain"])
    assert seen[0].user == f"How is it?\nMolecule {first(recipe).molecule.smiles}."
    assert not seen[0].media


def test_an_engine_that_lacks_something_is_refused_with_the_remedy(recipe, fields, molecular):
    class Blind(molecular):
        can = Capabilities()

    with pytest.raises(RecipeError, match=r"reports no log-probabilities; set answers\.probability to none"):
        asker(recipe, ScriptedEngine(lambda prompt: ""))
    with pytest.raises(RecipeError, match=r"is shown no molecules; set answers\.shown to smiles"):
        asker(changed(fields, answers={"probability": "none"}), Blind(lambda prompt: ""))

    class Unstarted(molecular):
        can = Capabilities(logprobs=True, modalities=frozenset({"text", "molecule"}))

    with pytest.raises(RecipeError, match=r"continues no started turn; set answers\.probability to reply or none"):
        asker(recipe, Unstarted(lambda prompt: ""))


async def test_a_dead_engine_is_no_wrong_answer(recipe, molecular):
    def dies(prompt):
        raise EngineError("gone")

    with pytest.raises(JudgeError, match=r"models\.m: m failed: gone; what was answered is kept: run the same again"):
        await asker(recipe, molecular(dies)).greedy(first(recipe), recipe.styles["plain"])


async def test_an_answer_that_did_not_come_in_time_is_no_wrong_answer(fields, molecular):
    recipe = changed(fields, models={"m": {"model": "m", "engine": "scripted", "deadline_s": 0.01}})

    class Slow(molecular):
        async def generate(self, prompt, sampling):
            await asyncio.sleep(5)
            yield Reply(text="")

    with pytest.raises(JudgeError, match=r"models\.m: m failed: .* time"):
        await asker(recipe, Slow(lambda prompt: "")).greedy(first(recipe), recipe.styles["plain"])


async def test_the_judge_sees_the_molecule_and_the_grounds_and_not_the_answer(recipe, molecular, smiles_shown):
    writer = molecular(lambda prompt: "It is small.\nFinal answer: High")
    answer = await asker(recipe, writer).greedy(first(recipe), recipe.styles["plain"])
    judge = molecular(lambda prompt: "<think>fits</think><answer>8.5</answer>")
    found = await Scorer(recipe, recipe.best_of_n, judge, Ledger(None)).score(first(recipe), answer)
    assert judge.prompts[0].user == "Molecule .\nIt is small.\n"
    assert smiles_shown(judge.prompts[0]) == first(recipe).molecule.smiles
    assert (found.score, found.published_score, found.reason) == (8.5, 8.5, None)


async def test_a_score_that_cannot_be_read_is_none_and_the_published_reading_takes_the_first_number(recipe, molecular):
    writer = molecular(lambda prompt: "It is small.\nFinal answer: High")
    answer = await asker(recipe, writer).greedy(first(recipe), recipe.styles["plain"])
    judge = molecular(lambda prompt: "<answer>8.5</answer>")
    found = await Scorer(recipe, recipe.best_of_n, judge, Ledger(None)).score(first(recipe), answer)
    assert (found.score, found.published_score, found.reason) == (None, 8.5, Reason.NO_END)


def test_the_answer_is_cut_at_its_first_marker(recipe):
    assert without_answer("So. Final Answer: High. Final answer: Low", recipe.labels) == "So. "


async def test_the_probability_can_be_read_from_the_reply_itself(fields, molecular):
    recipe = changed(fields, answers={"probability": "reply"})
    parts = ("So.\n", "Final answer:", " High", ".")
    tokens = [TokenLogprob(text=part, logprob=0.0, top=((part, 0.0),)) for part in parts]
    tokens[2] = TokenLogprob(text=" High", logprob=log(0.6), top=((" High", log(0.6)), (" Low", log(0.2))))

    class Telling(molecular):
        async def generate(self, prompt, sampling):
            assert sampling.logprobs
            yield Reply(text="".join(parts), logprobs=tuple(tokens))

    answer = await asker(recipe, Telling(lambda prompt: "")).greedy(first(recipe), recipe.styles["plain"])
    assert (answer.label, answer.probability) == (1, pytest.approx(0.75))


async def test_a_reply_without_a_label_has_no_probability_of_its_own(fields, molecular):
    recipe = changed(fields, answers={"probability": "reply"})

    class Telling(molecular):
        async def generate(self, prompt, sampling):
            yield Reply(text="So.", logprobs=(TokenLogprob(text="So.", logprob=0.0),))

    answer = await asker(recipe, Telling(lambda prompt: "")).greedy(first(recipe), recipe.styles["plain"])
    assert (answer.label, answer.probability) == (-1, None)
