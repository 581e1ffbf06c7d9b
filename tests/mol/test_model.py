import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close
from transformers import LlamaForCausalLM

from flexreward.errors import JudgeError, WeightsError
from mol.batch import collate
from mol.config import MolLlamaConfig
from mol.model import MoleculeEncoder, MolLlama
from mol.processing import MolLlamaProcessor
from tests.mol.hand import batch, molecule, moved, renumbered


@pytest.fixture(scope="module")
def model(mol_folder):
    return MolLlama.from_pretrained(mol_folder)


@pytest.fixture(scope="module")
def talk(mol_folder):
    """Three conversations about none, one and two molecules."""
    processor = MolLlamaProcessor.from_pretrained(mol_folder)
    texts = ("Hello", "What is <mol>?", "Which of <mol> and <mol> is larger?")
    return processor(
        [[{"role": "user", "content": text}] for text in texts], [[], [molecule(4)], [molecule(5), molecule(9)]]
    )


def row(inputs, i, molecules):
    """One conversation of several, without padding."""
    seen = inputs["attention_mask"][i].bool()
    return {
        "input_ids": inputs["input_ids"][i : i + 1, seen],
        "attention_mask": inputs["attention_mask"][i : i + 1, seen],
        "molecules": collate(molecules) if molecules else None,
    }


def test_the_queries_of_a_batch_are_those_of_its_members(model):
    sizes = (3, 17, 1, 8)
    together = model.molecules(batch(*sizes))
    for i, size in enumerate(sizes):
        assert_close(together[i], model.molecules(batch(size))[0], atol=1e-5, rtol=0)


def test_queries_do_not_depend_on_the_order_of_atoms_nor_on_the_place_in_space(model):
    turn, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))
    same = renumbered(molecule(9), np.random.default_rng(1).permutation(9))
    same = moved(same, turn_33=turn, shift_3=np.array([5.0, 1.0, -20.0]))
    assert_close(model.molecules(collate([same])), model.molecules(batch(9)), atol=1e-5, rtol=0)


def test_queries_tell_molecules_apart(model):
    one, other = model.molecules(batch(8, 9))
    assert (one - other).abs().max() > 1e-2


def test_logits_of_a_batch_are_those_of_its_members(model, talk):
    with torch.no_grad():
        together = model(**talk).logits
        for i, some in enumerate(([], [molecule(4)], [molecule(5), molecule(9)])):
            alone = model(**row(talk, i, some)).logits[0]
            seen = talk["attention_mask"][i].bool()
            assert_close(together[i][seen], alone, atol=1e-4, rtol=1e-5)


def test_each_molecule_takes_the_place_of_its_own_marks(model, talk):
    queries = model.molecules(talk["molecules"])
    rows = model.embeds(talk["input_ids"], queries_BQD=queries)
    marks = talk["input_ids"] == model.config.mol_token_id
    words = model.get_input_embeddings()(talk["input_ids"])
    assert torch.equal(rows[1][marks[1]], queries[0])
    assert torch.equal(rows[2][marks[2]], torch.cat([queries[1], queries[2]]))
    assert torch.equal(rows[~marks], words[~marks])


def test_queries_that_were_kept_give_the_same_as_their_molecules(model, talk):
    queries = model.molecules(talk["molecules"])
    with torch.no_grad():
        kept = model(talk["input_ids"], talk["attention_mask"], queries_BQD=queries).logits
        assert torch.equal(kept, model(**talk).logits)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((4,), "0, 8, 16 <mol> tokens for 1 molecules, expected 8 for each"),
        ((), "the text holds <mol>, and no molecules"),
    ],
)
def test_marks_without_molecules_are_refused(model, talk, sizes, message):
    with pytest.raises(ValueError, match=message):
        model(talk["input_ids"], talk["attention_mask"], batch(*sizes) if sizes else None)


def test_marks_that_are_enough_for_all_rows_and_wrong_in_one_are_refused(model):
    ids = torch.full((2, 8), model.config.mol_token_id)
    ids[0, :4] = 5
    ids = torch.cat([ids, torch.full((2, 4), 6)], dim=1)
    ids[1, 8:] = model.config.mol_token_id
    with pytest.raises(ValueError, match="rows with 4, 12 <mol> tokens for 2 molecules"):
        model(ids, molecules=batch(3, 4))


def loud(model):
    """A copy in which ``[PAD]`` and ``<mol>`` would win every time."""
    loud = MolLlama(model.config)
    loud.load_state_dict(model.state_dict())
    head = loud.get_output_embeddings().weight.data
    head[list(model.config.silenced)] = 100 * head.sum(0)
    return loud.eval()


def test_pad_and_mol_are_never_written(model, talk):
    for options in ({"do_sample": False}, {"do_sample": True, "temperature": 5.0}, {"num_beams": 2}):
        written = loud(model).generate(**talk, max_new_tokens=6, pad_token_id=0, **options)
        assert not set(written.flatten().tolist()) & set(model.config.silenced)


def test_pad_and_mol_take_no_probability_from_others(model, talk):
    labels = torch.where(talk["attention_mask"].bool() & (talk["input_ids"] < 256), talk["input_ids"], -100)
    with torch.no_grad():
        loss = model(**talk, labels=labels).loss
        assert_close(loud(model)(**talk, labels=labels).loss, loss)
        assert model(**talk).logits.softmax(-1)[..., list(model.config.silenced)].max() == 0


def test_a_trainer_that_counts_labels_over_several_batches_gets_the_sum_over_its_count(model, talk):
    labels = torch.where(talk["input_ids"] < 256, talk["input_ids"], -100)
    num_labels = (labels[:, 1:] != -100).sum()
    with torch.no_grad():
        mean = model(**talk, labels=labels).loss
        assert_close(model(**talk, labels=labels, num_items_in_batch=2 * num_labels).loss, mean / 2)


def test_generate_writes_the_argmax_token_by_token(model, talk):
    written = model.generate(**talk, max_new_tokens=5, do_sample=False, eos_token_id=None)
    inputs = {name: talk[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        for i in range(5):
            token = model(**inputs, molecules=talk["molecules"], position_ids=places(inputs)).logits[:, -1].argmax(-1)
            assert token.tolist() == written[:, i].tolist()
            inputs = {
                "input_ids": torch.cat([inputs["input_ids"], token[:, None]], 1),
                "attention_mask": torch.nn.functional.pad(inputs["attention_mask"], (0, 1), value=1),
            }


def places(inputs):
    return (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)


def test_several_replies_to_one_prompt_are_drawn_from_its_molecule(model, talk):
    one = row(talk, 1, [molecule(4)])
    drawn = model.generate(**one, max_new_tokens=4, do_sample=True, num_return_sequences=3)
    assert len(drawn) == 3


def test_what_trains_is_all_but_the_encoders_and_the_llama(mol_folder):
    model = MolLlama.from_pretrained(mol_folder, is_trainable=True).train()
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name.split(".")[1] for name in trained} == {
        "queries",
        "norms",
        "blending",
        "qformer",
        "projection",
        "base_model",
    }
    assert all("lora_" in name for name in trained if name.startswith("llm."))
    assert not any(encoder.training for encoder in model.molecules.encoders.values())


def test_gradients_reach_everything_that_trains_and_nothing_else(mol_folder, talk):
    model = MolLlama.from_pretrained(mol_folder, is_trainable=True).train()
    labels = torch.where(talk["input_ids"] < 256, talk["input_ids"], -100)
    model(**talk, labels=labels).loss.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_a_saved_model_is_the_same_again(model, talk, tmp_path):
    model.save_pretrained(tmp_path)
    again = MolLlama.from_pretrained(tmp_path)
    before, after = model.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(again(**talk).logits, model(**talk).logits)


def test_a_folder_without_lora_is_a_model_without_lora(tmp_path):
    MolLlama(MolLlamaConfig.tiny(lora=False)).save_pretrained(tmp_path)
    again = MolLlama.from_pretrained(tmp_path)
    assert not (tmp_path / "adapter").exists()
    assert isinstance(again.llm, LlamaForCausalLM)


def test_what_a_trainer_gathered_is_saved_in_place_of_the_models_own(model, tmp_path):
    gathered = {name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items()}
    model.save_pretrained(tmp_path, state_dict=gathered)
    again = MolLlama.from_pretrained(tmp_path).state_dict()
    assert all(not tensor.any() for tensor in again.values())


def test_llm_is_a_plain_llama_and_adapter_one_of_peft(mol_folder):
    keys = set(load_file(mol_folder / "llm" / "model.safetensors"))
    assert keys == set(LlamaForCausalLM.from_pretrained(mol_folder / "llm").state_dict())
    adapter = json.loads((mol_folder / "adapter" / "adapter_config.json").read_text())
    assert (adapter["r"], adapter["lora_alpha"], adapter["base_model_name_or_path"]) == (8, 32, "llm")


def test_the_llama_alone_knows_what_is_never_written(mol_folder):
    told = json.loads((mol_folder / "llm" / "generation_config.json").read_text())
    config = json.loads((mol_folder / "config.json").read_text())
    assert told["suppress_tokens"] == [config["pad_token_id"], config["mol_token_id"]]


def test_the_molecule_part_is_loaded_without_the_llama(mol_folder, tmp_path, model):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(mol_folder / name, tmp_path)
    alone = MoleculeEncoder.from_pretrained(tmp_path)
    assert torch.equal(alone(batch(6)), model.molecules(batch(6)))
    assert not any(p.requires_grad for p in alone.encoders.parameters())


def test_the_llama_is_loaded_in_the_dtype_asked_for_and_the_molecules_in_float32(mol_folder, talk):
    half = MolLlama.from_pretrained(mol_folder, dtype=torch.bfloat16)
    assert {p.dtype for name, p in half.llm.named_parameters() if "lora_" not in name} == {torch.bfloat16}
    assert {p.dtype for p in half.molecules.parameters()} == {torch.float32}
    assert half(**talk).logits.dtype == torch.bfloat16


def test_the_whole_model_moves_to_another_dtype(mol_folder, talk):
    moved = MolLlama.from_pretrained(mol_folder).to(torch.bfloat16)
    assert {p.dtype for p in moved.parameters()} == {torch.bfloat16}
    assert torch.isfinite(moved(**talk).logits.float()).all()


def test_the_whole_model_moves_to_another_device(mol_folder):
    moved = MolLlama.from_pretrained(mol_folder).to("meta")
    assert {p.device.type for p in moved.parameters()} == {"meta"}
    assert moved.device.type == "meta"


def changed(folder, tmp_path, change):
    shutil.copytree(folder, tmp_path / "changed")
    path = tmp_path / "changed" / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    return tmp_path / "changed"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("queries"), "1 tensors are missing, queries first"),
        (lambda t: t.update(other=torch.zeros(1)), "1 tensors belong to nothing, other first"),
        (
            lambda t: t.update(queries=torch.zeros(1, 4, 24)),
            r"queries is \(1, 4, 24\), and config.json asks for",
        ),
    ],
)
def test_a_molecule_part_that_does_not_fit_is_named(mol_folder, tmp_path, change, message):
    with pytest.raises(WeightsError, match=message):
        MolLlama.from_pretrained(changed(mol_folder, tmp_path, change))


def test_a_missing_adapter_is_named(mol_folder, tmp_path):
    folder = changed(mol_folder, tmp_path, lambda tensors: None)
    shutil.rmtree(folder / "adapter")
    with pytest.raises(WeightsError, match="names an adapter, and there is none; it stands in adapter/"):
        MolLlama.from_pretrained(folder)


def test_another_models_folder_is_refused(checkpoint):
    with pytest.raises(JudgeError, match=r"its config\.json is of a qwen2 model, expected mol_llama"):
        MolLlama.from_pretrained(checkpoint)


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(JudgeError, match=r"no config\.json, so this is no Mol-LLaMA folder"):
        MolLlama.from_pretrained(tmp_path)
    with pytest.raises(JudgeError, match=r"no such folder; python -m mol\.weights makes one"):
        MolLlama.from_pretrained(tmp_path / "none")


def test_a_tiny_model_learns_to_tell_four_molecules_apart(processor):
    torch.manual_seed(0)
    config = MolLlamaConfig.tiny(vocab_size=len(processor.tokenizer), num_hidden_layers=1)
    model = MolLlama(config).eval()  # without dropout
    talks = [[{"role": "user", "content": "<mol>"}, {"role": "assistant", "content": letter}] for letter in "abcd"]
    inputs = processor(talks, [[molecule(5, seed=i)] for i in range(4)], labels=True)
    encoded = model.molecules.encoded(inputs.pop("molecules"))
    optimizer = torch.optim.Adam([parameter for parameter in model.parameters() if parameter.requires_grad], lr=1e-2)
    labels = inputs["labels"][:, 1:]
    for _ in range(100):
        out = model(**inputs, queries_BQD=model.molecules.read(encoded))
        if told := bool((out.logits[:, :-1].argmax(-1) == labels)[labels != -100].all()):
            break
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
    assert told
