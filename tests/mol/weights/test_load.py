"""Small-width files in exactly the published layouts become the model that they were made of."""

import argparse
import json

import pytest
import torch
from peft import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from flexreward.errors import JudgeError, OutputError, WeightsError
from mol.config import MolLlamaConfig
from mol.model import MolLlama
from mol.processing import MolLlamaProcessor
from mol.weights import names
from mol.weights.__main__ import main, make
from tests.mol.conftest import llama_tokenizer
from tests.mol.hand import molecule

TEXT_SIDE = {
    "encoder.Qformer.cls.predictions.bias": torch.ones(8),
    "encoder.Qformer.bert.embeddings.word_embeddings.weight": torch.ones(8, 24),
    "encoder.Qformer.bert.embeddings.position_embeddings.weight": torch.ones(8, 24),
    "encoder.Qformer.bert.encoder.layer.0.intermediate.dense.weight": torch.ones(48, 24),
    "encoder.Qformer.bert.encoder.layer.0.output.dense.weight": torch.ones(24, 48),
    "encoder.graph_proj.weight": torch.ones(4, 24),
    "encoder.text_proj.weight": torch.ones(4, 24),
    "encoder.gtm_head.weight": torch.ones(2, 24),
}
HEADS = {
    "lm_head.weight": torch.ones(31, 16),
    "pair2coord_proj.linear1.weight": torch.ones(4, 4),
    "dist_head.dense.weight": torch.ones(4, 4),
    "encoder.final_head_layer_norm.weight": torch.ones(4),
}


class Published:
    """A random model, and its tensors under their published names."""

    def __init__(self, folder):
        torch.manual_seed(5)
        tokenizer = llama_tokenizer()
        rows = len(tokenizer)
        self.config = MolLlamaConfig.tiny(vocab_size=rows + 2, eos_token_id=tokenizer.eos_token_id)
        self.model = MolLlama(self.config).eval()
        for name, parameter in self.model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.2)
        molecules = self.model.molecules.state_dict()
        encoders = self.model.molecules.encoders
        self.trained = self._named(names.MOLECULES, molecules)
        self.trained["encoder.Qformer.bert.embeddings.position_ids"] = torch.arange(512)[None]
        self.lora = self._named(names.LORA, get_peft_model_state_dict(self.model.llm))
        plain = {
            name.replace(".base_layer.", "."): tensor
            for name, tensor in self.model.base.state_dict().items()
            if ".lora_" not in name
        }
        self.base = self._named(names.LLAMA, plain)
        self.moleculestm = self._named(names.MOLECULESTM, encoders["moleculestm"].state_dict())
        self.moleculestm |= {"graph_pred_linear.weight": torch.ones(1, 12), "graph_pred_linear.bias": torch.ones(1)}
        self.unimol = self._named(names.UNIMOL, encoders["unimol"].state_dict()) | HEADS

        self.llm = folder / "llama"
        told = {name: value for name, value in self.config.llm.to_dict().items() if name != "pad_token_id"}
        llama = LlamaForCausalLM(LlamaConfig(**(told | {"vocab_size": rows})))
        llama.load_state_dict(
            {n: t[:rows] if n in ("model.embed_tokens.weight", "lm_head.weight") else t for n, t in plain.items()}
        )
        llama.save_pretrained(self.llm)
        tokenizer.save_pretrained(self.llm)
        torch.save(self.moleculestm, folder / "molecule_model.pth", _use_new_zipfile_serialization=False)
        torch.save({"args": argparse.Namespace(arch="unimol"), "model": self.unimol}, folder / "mol_pre_no_h.pt")
        self.files = {
            "llm": self.llm,
            "moleculestm": folder / "molecule_model.pth",
            "unimol": folder / "mol_pre_no_h.pt",
            "config": self.config,
        }

    def _named(self, table, ours):
        return {theirs: ours[name].detach().clone() for theirs, name in names.expand(table, self.config).items()}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return Published(tmp_path_factory.mktemp("published"))


def hub(folder, tensors):
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text('{"model_type": "mol_llama"}')
    return folder


def same(published, out, *, but=()):
    """Whether what was written is the model that was published, to the last bit, the two new rows aside."""
    before, after = published.model.state_dict(), MolLlama.from_pretrained(out).state_dict()
    rows = published.config.llm.vocab_size - 2
    assert before.keys() == after.keys()
    return all(
        torch.equal(before[name][:rows], after[name][:rows])
        if before[name].ndim
        else torch.equal(before[name], after[name])
        for name in before
        if not name.startswith(tuple(but))
    )


def test_a_hub_folder_with_the_trained_parts_becomes_the_model(published, tmp_path):
    mol = hub(tmp_path / "hub", published.trained | published.lora)
    found = make(tmp_path / "out", mol=mol, **published.files)
    assert same(published, tmp_path / "out")
    assert set(found.left) == {
        "encoder.Qformer.bert.embeddings.position_ids",
        *HEADS,
        "graph_pred_linear.weight",
        "graph_pred_linear.bias",
    }


def test_a_hub_folder_with_everything_in_it_needs_no_other_weights(published, tmp_path):
    (tmp_path / "hub").mkdir()
    graph = {f"encoder.graph_encoder.moleculestm.{name}": tensor for name, tensor in published.moleculestm.items()}
    graph |= {f"encoder.graph_encoder.unimol.{name}": tensor for name, tensor in published.unimol.items()}
    whole = published.trained | published.lora | published.base | graph
    torch.save(whole, tmp_path / "hub" / "pytorch_model.bin")
    files = published.files | {"moleculestm": None, "unimol": None}
    make(tmp_path / "out", mol=tmp_path / "hub", **files)
    assert same(published, tmp_path / "out")
    rows = load_file(tmp_path / "out" / "llm" / "model.safetensors")["lm_head.weight"]
    assert torch.equal(rows, published.base["llm.base_model.model.lm_head.weight"])


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_dpo_checkpoint_becomes_the_model(published, tmp_path, zipped):
    tensors = {f"mol_llama.{name}": tensor for name, tensor in (published.trained | published.lora).items()}
    whole = {"state_dict": tensors, "hyper_parameters": argparse.Namespace(config=published.config), "epoch": 3}
    torch.save(whole, tmp_path / "dpo_mol_llama.ckpt", _use_new_zipfile_serialization=zipped)
    make(tmp_path / "out", mol=tmp_path / "dpo_mol_llama.ckpt", **published.files)
    assert same(published, tmp_path / "out")


def test_a_stage_1_file_begins_projection_and_lora_anew_when_asked(published, tmp_path):
    tensors = {name: tensor for name, tensor in published.trained.items() if not name.startswith("llm_proj")}
    torch.save({"state_dict": tensors | TEXT_SIDE}, tmp_path / "stage1.ckpt")
    with pytest.raises(WeightsError, match=r"2 tensors of molecules are missing, llm_proj.weight first; .*--fresh"):
        make(tmp_path / "out", mol=tmp_path / "stage1.ckpt", **published.files)
    found = make(tmp_path / "out", mol=tmp_path / "stage1.ckpt", fresh=True, **published.files)
    assert set(TEXT_SIDE) <= set(found.left)
    assert {name.split(".")[0] for name in found.fresh} == {"projection", "base_model"}
    assert same(published, tmp_path / "out", but=("molecules.projection", "llm.base_model"))
    adapter = load_file(tmp_path / "out" / "adapter" / "adapter_model.safetensors")
    assert all(bool(tensor.any()) == (".lora_A." in name) for name, tensor in adapter.items())


def test_what_is_written_is_a_folder_that_answers(published, tmp_path):
    make(tmp_path / "out", mol=hub(tmp_path / "hub", published.trained | published.lora), **published.files)
    model, processor = MolLlama.from_pretrained(tmp_path / "out"), MolLlamaProcessor.from_pretrained(tmp_path / "out")
    inputs = processor([{"role": "user", "content": "<mol>?"}], [molecule(4)])
    published.model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    assert torch.equal(
        model.generate(**inputs, max_new_tokens=8),
        published.model.generate(**inputs, max_new_tokens=8, do_sample=False),
    )
    told = json.loads((tmp_path / "out" / "llm" / "generation_config.json").read_text())
    assert told["suppress_tokens"] == list(published.config.silenced)


def test_the_same_files_give_the_same_bytes(published, tmp_path):
    mol = hub(tmp_path / "hub", published.trained | published.lora)
    for name in ("one", "two"):
        make(tmp_path / name, mol=mol, **published.files)
    for path in (path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()):
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes(), path


WRONG = {
    "a key that is unknown": (
        lambda t: t.update({"encoder.other": torch.ones(1)}),
        "model.safetensors: encoder.other has no place in Mol-LLaMA",
    ),
    # The published loader's pattern "llm." lets this one pass.
    "no projection": (lambda t: t.pop("llm_proj.weight"), "1 tensors of molecules are missing, llm_proj.weight first"),
    "no queries": (lambda t: t.pop("encoder.query_tokens"), "1 tensors of molecules are missing, encoder.query_tokens"),
    "another shape": (
        lambda t: t.update({"encoder.query_tokens": torch.ones(1, 4, 24)}),
        r"encoder.query_tokens is \(1, 4, 24\), expected \(1, 8, 24\); give --config sizes that fit",
    ),
    "half an adapter": (
        lambda t: t.pop("llm.base_model.model.model.layers.1.mlp.up_proj.lora_B.default.weight"),
        r"1 tensors of lora are missing, llm.base_model.model.model.layers.1.mlp.up_proj.lora_B.default.weight first",
    ),
    "half a LLaMA": (
        lambda t: t.update({"llm.base_model.model.model.norm.weight": torch.ones(32)}),
        "tensors of llama are missing, .* fetch all files of the folder",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_files_that_do_not_hold_what_they_should_are_named_and_nothing_is_written(published, tmp_path, wrong):
    change, message = WRONG[wrong]
    tensors = published.trained | published.lora
    change(tensors)
    with pytest.raises(WeightsError, match=message):
        make(tmp_path / "out", mol=hub(tmp_path / "hub", tensors), **published.files)
    assert [path.name for path in tmp_path.iterdir()] == ["hub"]


@pytest.mark.parametrize(("part", "file"), [("moleculestm", "--moleculestm"), ("unimol", "--unimol")])
def test_an_encoder_that_was_not_given_is_named_with_its_flag(published, tmp_path, part, file):
    mol = hub(tmp_path / "hub", published.trained | published.lora)
    with pytest.raises(WeightsError, match=rf"tensors of {part} are missing, .* first; give its file with {file}"):
        make(tmp_path / "out", mol=mol, **(published.files | {part: None}))


def test_files_swapped_by_mistake_are_named(published, tmp_path):
    mol = hub(tmp_path / "hub", published.trained | published.lora)
    files = published.files | {"moleculestm": published.files["unimol"], "unimol": published.files["moleculestm"]}
    with pytest.raises(WeightsError, match=r"mol_pre_no_h.pt: embed_tokens.weight has no place in Mol-LLaMA"):
        make(tmp_path / "out", mol=mol, **files)


def test_a_folder_without_weights_and_one_that_is_there_are_named(published, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match=r"empty: no \*.safetensors, pytorch_model\*.bin or \*.ckpt"):
        make(tmp_path / "out", mol=tmp_path / "empty", **published.files)
    with pytest.raises(OutputError, match="is there already; name a folder that is not"):
        make(tmp_path / "empty", mol=tmp_path / "empty", **published.files)


def test_another_model_as_the_llama_is_refused(published, checkpoint, tmp_path):
    with pytest.raises(JudgeError, match=r"no token <\|begin_of_text\|>; take that of Llama-3.1-8B-Instruct"):
        make(tmp_path / "out", mol=tmp_path, **(published.files | {"llm": checkpoint}))


def test_the_command_says_what_it_used_and_left(published, tmp_path, capsys):
    mol = hub(tmp_path / "hub", published.trained | published.lora)
    published.config.save_pretrained(tmp_path / "sizes")
    given = ["--mol", mol, "--llm", published.llm, "--config", tmp_path / "sizes"]
    given += ["--moleculestm", published.files["moleculestm"], "--unimol", published.files["unimol"]]
    assert main([str(tmp_path / "out"), *map(str, given)]) == 0
    told = capsys.readouterr().out
    assert "which have no place: dist_head.dense.weight" in told
    assert main([str(tmp_path / "out"), *map(str, given)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_help_teaches(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "molecule_model.pth" in capsys.readouterr().out
