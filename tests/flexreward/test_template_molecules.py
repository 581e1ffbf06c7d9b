"""Where a molecule stands for a judge or a policy that is shown molecules, and what cannot move it."""

from dataclasses import replace

import pytest

from flexreward.context import cut_head
from flexreward.engines.base import Capabilities, Placed, Prompt
from flexreward.engines.scripted import ScriptedEngine
from flexreward.errors import RecipeError, RefusedError, SampleError
from flexreward.files.samples import Sample
from flexreward.judge import Judge
from flexreward.policy.asking import prompt_of
from flexreward.templates import load_template
from flexreward.types import JudgeRequest, Message, Molecule, Reason

PAIR = load_template("mol-pair")
ETHANOL, WATER = "CCO", "O"
REQUEST = JudgeRequest(prompt="What is it?", completions=("An alcohol.", "A salt."), molecules=(ETHANOL,))


def shown(prompt: Prompt, mark: str = "⟦%s⟧") -> str:
    """The user's turn with the SMILES of each molecule at its place."""
    text = prompt.user
    for placed in reversed(prompt.media):
        assert isinstance(placed.media, Molecule)
        text = text[: placed.at] + mark % placed.media.smiles + text[placed.at :]
    return text


def question(prompt: Prompt) -> str:
    return shown(prompt).partition("\n\n[Question]\n\n")[2].partition("\n\n[Assistant 1's Answer]")[0]


def asked(prompt, *molecules: str, template=PAIR) -> str:
    return question(template.render(replace(REQUEST, prompt=prompt, molecules=molecules)))


def test_each_mark_of_the_prompt_is_the_place_of_one_molecule_in_order():
    assert asked("Is <mol> or <mol> lighter?", ETHANOL, WATER) == "Is ⟦CCO⟧ or ⟦O⟧ lighter?"
    assert asked("<mol><mol>", WATER, ETHANOL) == "⟦O⟧⟦CCO⟧"


def test_without_marks_each_molecule_has_a_line_below_the_prompt():
    assert asked("Compare.", ETHANOL, WATER) == "Compare.\nMolecule ⟦CCO⟧.\nMolecule ⟦O⟧."
    assert asked("Which?") == "Which?"


def test_the_mark_is_gone_from_the_text_once_the_molecule_has_its_place():
    prompt = PAIR.render(replace(REQUEST, prompt="a <mol> b"))
    assert "<mol>" not in prompt.user
    assert prompt.media == (Placed(prompt.user.index("a  b") + 2, Molecule(smiles=ETHANOL)),)
    assert prompt.media[0].kind == "molecule"


@pytest.mark.parametrize("prompt", ["<mol> <mol>", (Message(role="user", content="<mol> and <mol>"),)])
def test_marks_and_molecules_of_different_number_are_one_error(prompt):
    with pytest.raises(SampleError, match=r"'mol-pair': the prompt has 2 <mol>, and 1 molecule\(s\) come with it"):
        PAIR.render(replace(REQUEST, prompt=prompt))


def test_only_what_users_say_in_the_prompt_has_places():
    turns = (
        Message(role="system", content="<mol>"),
        Message(role="user", content="First."),
        Message(role="assistant", content="It is <mol>."),
        Message(role="user", content="And <mol>?"),
    )
    request = replace(REQUEST, prompt=turns, completions=("<mol>", "<mol> <mol>"))
    prompt = PAIR.render(request)
    assert question(prompt) == "[System]\n<mol>\n\n[User]\nFirst.\n\n[Assistant]\nIt is <mol>.\n\n[User]\nAnd ⟦CCO⟧?"
    assert prompt.user.endswith("[Assistant 1's Answer]\n<mol>\n\n[Assistant 2's Answer]\n<mol> <mol>")
    assert len(prompt.media) == 1


def test_a_mark_in_pieces_around_a_place_stays_text():
    assert asked("<m<mol>ol>", ETHANOL) == "<m⟦CCO⟧ol>"


def test_the_line_stands_below_the_last_turn_of_a_user():
    turns = (Message(role="user", content="Hm?"), Message(role="assistant", content="Yes."))
    assert asked(turns, ETHANOL) == "[User]\nHm?\nMolecule ⟦CCO⟧.\n\n[Assistant]\nYes."
    with pytest.raises(SampleError, match="has no turn of a user"):
        asked(turns[1:], ETHANOL)


def test_the_pampa_judge_has_the_molecule_in_its_own_question_whatever_was_asked():
    pampa = load_template("mol-pampa")
    prompt = pampa.render(JudgeRequest(prompt="<mol> <mol>?", completions=("High.",), molecules=(ETHANOL,)))
    assert shown(prompt, "<mol>%.0s") == (
        "\n\n[Question]\n\nPredict the permeability of a given molecule to the artificial membrane in the Parallel "
        "Artificial Membrane Permeability Assay (PAMPA), high or low-to-moderate.\nMolecule <mol>.\n\n"
        "[Assistant's Answer]\nHigh."
    )
    for molecules in [(), (ETHANOL, WATER)]:
        with pytest.raises(SampleError, match=rf"expected 1 molecule\(s\), found {len(molecules)}"):
            pampa.render(JudgeRequest(prompt="", completions=("High.",), molecules=molecules))


def test_the_started_turns_are_the_published_ones():
    assert PAIR.render(REQUEST, prefill=True).prefix == "<think>"
    pampa = JudgeRequest(prompt="", completions=("High.",), molecules=(ETHANOL,))
    assert load_template("mol-pampa").render(pampa, prefill=True).prefix == ""


def test_a_text_template_shows_smiles_below_the_prompt_as_before():
    prompt = load_template("pair").render(replace(REQUEST, prompt="<mol>?"))
    assert "[Question]\n<mol>?\n\n[Molecules]\n1. CCO\n\n[Assistant 1's Answer]" in prompt.user
    assert prompt.media == ()


def test_how_molecules_are_shown_is_part_of_the_digest_only_where_they_are_placed():
    text = replace(PAIR, molecules="text")
    assert text.digest != PAIR.digest
    assert replace(text, id="x").digest == text.digest
    # As it was before templates could place molecules: verdicts that were bought stay known.
    assert load_template("pair").digest.startswith("777ab976c0c09001")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"user": "{completion_1} <molecule_1>"}, "<molecule_1>: molecules are of the prompt; write <molecule>"),
        ({"molecules": "text"}, "<molecule> is a place for one; set molecules to placed"),
    ],
)
def test_a_template_that_misplaces_molecules_is_refused_in_one_line(changes, complaint):
    with pytest.raises(RecipeError, match=complaint):
        replace(load_template("mol-pampa"), **changes)


def test_a_molecule_stays_when_the_text_before_it_is_cut():
    placed = PAIR.with_places(replace(REQUEST, prompt="long text <mol> end"))
    cut = replace(placed, prompt=cut_head(placed.prompt, len("long text ") + 2))
    assert question(PAIR.render(cut)) == "⟦CCO⟧nd"


async def test_an_engine_that_is_not_shown_molecules_says_so_and_gives_no_score():
    engine = ScriptedEngine(lambda prompt: "<answer>8</answer><answer>3</answer>")
    engine.can = Capabilities()
    judge = Judge(engine, PAIR)
    judgment = await judge.judge(REQUEST)
    assert judgment.outcome.reason is Reason.REFUSED
    assert judgment.orders[0].outcome.detail == "the engine reads text, and the prompt shows molecule"


def test_capabilities_name_molecules_like_any_other_kind():
    prompt = PAIR.render(REQUEST)
    Capabilities(modalities=frozenset({"text", "molecule"})).check(prompt)
    with pytest.raises(RefusedError, match="the engine reads image, text, and the prompt shows molecule"):
        Capabilities(modalities=frozenset({"text", "image"}), prompt_embeddings=True).check(prompt)


# A policy


def sample(prompt, *molecules: str) -> Sample:
    return Sample(id="q", prompt=prompt, completions=(), where="p.jsonl: line 1", molecules=molecules)


def test_a_molecular_policy_is_shown_them_where_its_prompt_says_or_below_it():
    assert shown(prompt_of(sample("Describe <mol>!", ETHANOL), molecules=True)) == "Describe ⟦CCO⟧!"
    assert shown(prompt_of(sample("Describe!", ETHANOL), molecules=True)) == "Describe!\nMolecule ⟦CCO⟧."
    assert prompt_of(sample("No marks."), molecules=True).user == "No marks."


@pytest.mark.parametrize(
    ("prompt", "complaint"),
    [
        ("<mol> <mol>", "line 1: the prompt has 2 <mol>, and 1"),
        (
            (
                Message(role="user", content="<mol>"),
                Message(role="assistant", content="."),
                Message(role="user", content="?"),
            ),
            "line 1: brings molecules in a turn of 'user' before the last",
        ),
    ],
)
def test_a_prompt_that_no_molecular_policy_can_go_on_with_is_named(prompt, complaint):
    with pytest.raises(SampleError, match=complaint):
        prompt_of(sample(prompt, ETHANOL), molecules=True)
