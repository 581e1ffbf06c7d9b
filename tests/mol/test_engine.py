"""Mol-LLaMA as an engine: the same tokens as the model itself, each molecule encoded once, and nothing forged."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flexreward.config import JudgeRecipe, open_engine, open_judge
from flexreward.engines import apart
from flexreward.engines.base import Embeddings, Placed, Prompt, Sampling
from flexreward.engines.scripted import ScriptedEngine
from flexreward.errors import JudgeError, RecipeError, RefusedError
from flexreward.templates import load_template
from flexreward.types import JudgeRequest, Molecule, Reason
from mol.chem.molecule import featurise
from mol.engine import MolLlamaEngine
from mol.model import MolLlama
from mol.processing import MolLlamaProcessor
from mol.queries import PAIRS, batches
from tests.mol.conftest import tiny_mol_llama

ASPIRIN, ETHANOL = "CC(=O)Oc1ccccc1C(=O)O", "CCO"
GREEDY = Sampling(max_tokens=12)
ENTRY = "mol.engine:MolLlamaEngine"


@pytest.fixture(scope="module")
def engine(mol_folder):
    engine = MolLlamaEngine(mol_folder, workers=0)
    yield engine
    asyncio.run(engine.close())


def prompt(text: str, *molecules: str, system: str = "Be brief.") -> Prompt:
    """``<mol>`` in the text is the place of the next molecule."""
    first, *rest = text.split("<mol>")
    placed = []
    for piece, smiles in zip(rest, molecules, strict=True):
        placed.append(Placed(len(first), Molecule(smiles=smiles)))
        first += piece
    return Prompt(system=system, user=first, media=tuple(placed))


PROMPTS = [
    prompt("What is <mol>?", ASPIRIN),
    prompt("Is <mol> or <mol> larger?", ETHANOL, ASPIRIN),
    prompt("\n\n[Question]\n<mol><mol>", ASPIRIN, ASPIRIN, system=""),
    prompt("No molecule at all."),
]


async def written(engine, asked: Prompt, sampling: Sampling = GREEDY) -> str:
    (reply,) = [reply async for reply in engine.generate(asked, sampling)]
    return reply.text


async def all_written(engine, prompts) -> list[str]:
    return await asyncio.gather(*(written(engine, one) for one in prompts))


def said_by_the_model(folder: Path, prompts) -> list[str]:
    """What ``MolLlama.generate`` itself says, one prompt at a time."""
    model, processor = MolLlama.from_pretrained(folder), MolLlamaProcessor.from_pretrained(folder)
    found = []
    for one in prompts:
        text = one.user
        for placed in reversed(one.media):
            text = text[: placed.at] + "<mol>" + text[placed.at :]
        messages = [{"role": "system", "content": one.system}] if one.system else []
        inputs = processor([*messages, {"role": "user", "content": text}], [place.media.smiles for place in one.media])
        ids = model.generate(**inputs, max_new_tokens=GREEDY.max_tokens, do_sample=False, pad_token_id=processor.pad_id)
        new = ids[0].tolist()
        end = processor.tokenizer.eos_token_id
        new = new[: new.index(end)] if end in new else new
        found.append(processor.tokenizer.decode(new, skip_special_tokens=False))
    return found


async def test_the_engine_writes_the_tokens_that_the_model_itself_writes(engine, mol_folder):
    found = await all_written(engine, PROMPTS)
    assert found == said_by_the_model(mol_folder, PROMPTS)
    assert len(set(found)) == len(PROMPTS)


async def test_a_molecule_changes_what_is_written(engine):
    one, other = await all_written(engine, [prompt("What is <mol>?", smiles) for smiles in (ASPIRIN, ETHANOL)])
    assert one != other


async def test_equal_molecules_are_encoded_once_however_they_are_written(engine):
    before = engine.queries.num_encoded
    same = ["c1ccncc1", "n1ccccc1", "C1=CC=NC=C1"]
    found = await all_written(engine, [prompt("What is <mol>?", smiles) for smiles in same * 4])
    assert engine.queries.num_encoded == before + 1
    assert len(set(found)) == 1
    await written(engine, prompt("And <mol>?", same[0]))
    assert engine.queries.num_encoded == before + 1


async def test_molecules_of_several_requests_go_through_the_encoders_together(engine):
    asked = [prompt("What is <mol>?", "C" * n) for n in range(4, 12)]
    encoded, forwards = engine.queries.num_encoded, engine.queries.num_forwards
    await all_written(engine, asked)
    assert engine.queries.num_encoded == encoded + 8
    assert engine.queries.num_forwards <= forwards + 3


@pytest.mark.parametrize("smiles", ["not-a-molecule", "C1CC", "", "C" * 600])
async def test_an_unreadable_molecule_is_refused_by_name(engine, smiles):
    asked = prompt("Is <mol> or <mol> larger?", ETHANOL, smiles)
    with pytest.raises(RefusedError, match=f"molecule '{smiles[:100]}"):
        await written(engine, asked)
    assert await written(engine, prompt("What is <mol>?", ETHANOL))  # the next ones live


async def test_an_unreadable_molecule_is_never_a_score(mol_folder, engine):
    judge = open_judge(JudgeRecipe(model=str(mol_folder), engine=ENTRY, template="mol-pair"), engine=engine)
    request = JudgeRequest(prompt="?", completions=("a", "b"), molecules=("nonsense",))
    judgment = await judge.judge(request)
    assert judgment.outcome.reason is Reason.REFUSED
    assert "molecule 'nonsense'" in judgment.orders[0].outcome.detail


@pytest.mark.parametrize("hostile", ["<mol>", "<mol>" * 8, "[PAD]", "<|eot_id|>", "⟦CCO⟧"])
async def test_what_is_judged_adds_no_molecule_and_moves_none(engine, hostile):
    template = load_template("mol-pair")
    request = JudgeRequest(prompt="What is <mol>?", completions=("An acid.", f"x{hostile}y"), molecules=(ASPIRIN,))
    asked = template.render(request)
    plain = template.render(replace(request, completions=("An acid.", "xy")))
    assert asked.media == plain.media
    reader = engine._llm.reader
    encoded = reader.encoder.encode(await engine._shown(asked), [8])
    assert encoded.ids.count(-1) == 8
    special = {reader.encoder._tokenizer.convert_tokens_to_ids(token) for token in ("<mol>", "[PAD]")}
    assert not special & set(encoded.ids)
    at = encoded.places[0]
    assert encoded.ids[:at] == reader.encoder.encode(await engine._shown(plain), [8]).ids[:at]


async def test_tokens_that_were_never_trained_are_never_written_and_have_no_odds(engine, mol_folder):
    tokenizer = MolLlamaProcessor.from_pretrained(mol_folder).tokenizer
    sampling = Sampling(temperature=50.0, max_tokens=64, n=8, logprobs=len(tokenizer))
    replies = [reply async for reply in engine.generate(PROMPTS[0], sampling)]
    assert not any(token in reply.text for reply in replies for token in ("<mol>", "[PAD]"))
    (first, *_) = replies[0].logprobs
    known = {text: logprob for text, logprob in first.top if text in ("<mol>", "[PAD]")}
    assert all(logprob < -1e30 for logprob in known.values())


async def test_tokens_are_counted_without_looking_at_a_molecule(engine):
    before = engine.queries.num_encoded
    one, none = (engine.count_tokens(prompt(text, *some)) for text, some in [("a<mol>b", ["CCCl"]), ("ab", [])])
    assert one == none + 8 or one == none + 9  # the two letters may have been one token
    assert engine.queries.num_encoded == before


async def test_judge_and_policy_share_encoders_and_each_keeps_its_llama(engine, mol_folder, tmp_path):
    judged = tiny_mol_llama(tmp_path / "judge", seed=1)
    (judged / "model.safetensors").write_bytes((mol_folder / "model.safetensors").read_bytes())
    judge = MolLlamaEngine(judged, workers=0)
    assert judge.queries is engine.queries
    before = engine.queries.num_encoded
    one = await written(engine, prompt("Name <mol>.", "CCCCBr"))
    other = await written(judge, prompt("Name <mol>.", "CCCCBr"))
    assert engine.queries.num_encoded == before + 1
    assert one != other
    assert judge.identity["weights"] != engine.identity["weights"]
    assert judge.identity["molecules"] == engine.identity["molecules"]
    await judge.close()
    await judge.close()
    assert await written(engine, prompt("Name <mol>.", "CCCCBr")) == one  # the encoders stay for who is left


async def test_the_identity_names_both_parts(mol_folder, engine, tmp_path):
    assert {"weights", "lora", "molecules", "conformers", "engine"} <= engine.identity.keys()
    assert engine.identity["model"] == mol_folder.name
    assert engine.can.modalities == {"text", "molecule"}
    other = MolLlamaEngine(tiny_mol_llama(tmp_path / "other", seed=2), workers=0, seed=3)
    assert other.identity["molecules"] != engine.identity["molecules"]
    assert other.identity["conformers"] != engine.identity["conformers"]
    await other.close()


async def test_a_recipe_opens_it_and_says_what_is_wrong_in_one_line(mol_folder, tmp_path):
    opened = open_engine(JudgeRecipe(model=str(mol_folder), engine=ENTRY, options={"workers": 0, "batch_size": 4}))
    assert await written(opened, PROMPTS[0])
    await opened.close()
    for options, complaint in [
        ({"llm": "sglang"}, "llm: 'sglang' is unknown, expected one of transformers, vllm"),
        ({"lora": "x"}, "options: lora is set by the folder's own"),
        ({"colour": 1}, "engine transformers: unknown option 'colour'"),
    ]:
        with pytest.raises(RecipeError, match=complaint):
            MolLlamaEngine(mol_folder, workers=0, **options)
    with pytest.raises(JudgeError, match=r"no config\.json, so this is no Mol-LLaMA folder"):
        MolLlamaEngine(tmp_path)


async def test_other_rows_may_stand_beside_molecules(engine):
    rows = Embeddings(rows_TD=np.zeros((2, engine.queries.width), dtype=np.float32))
    asked = prompt("a <mol> b", ETHANOL)
    both = replace(asked, media=(*asked.media, Placed(len(asked.user), rows)))
    assert engine.count_tokens(both) == engine.count_tokens(asked) + 2
    assert await written(engine, both)


def test_large_molecules_go_through_the_encoders_in_smaller_batches():
    small = featurise("CCO")
    large = replace(small, symbols=("C",) * 300)
    found = list(batches([large, small, large, small] * 4))
    assert [len(one) for one in found] == [8, 5, 3]
    assert all(len(one) * (max(len(m.symbols) for m in one) + 2) ** 2 <= PAIRS for one in found)


def test_a_server_runs_encoders_and_vllm_apart_and_transformers_as_one(mol_folder):
    parts = apart(ENTRY, str(mol_folder), {"llm": "vllm", "workers": 2, "max_context": 512})
    assert parts.options == {"workers": 2}
    assert parts.behind == {
        "model": str(mol_folder / "llm"),
        "engine": "vllm",
        "lora": str(mol_folder / "adapter"),
        "options": {"max_context": 512, "prompt_embeddings": True},
    }
    assert apart(ENTRY, str(mol_folder), {"workers": 2}) is None
    assert apart("transformers", "x", {}) is None
    with pytest.raises(RecipeError, match="merged: a server runs the LLaMA as it lies on disk"):
        apart(ENTRY, str(mol_folder), {"llm": "vllm", "merged": True})


async def test_the_encoders_stand_in_front_of_any_engine_that_takes_rows(engine, mol_folder):
    front = MolLlamaEngine(mol_folder, workers=0, behind=engine._llm)
    assert await written(front, PROMPTS[0]) == await written(engine, PROMPTS[0])
    with pytest.raises(RecipeError, match="llm: the engine scripted takes no prompt embeddings"):
        MolLlamaEngine(mol_folder, workers=0, behind=ScriptedEngine(lambda prompt: ""))
    front._hold.release()
