import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from flexreward.engines.base import Embeddings, Placed, Prompt, Sampling
from flexreward.engines.transformers import TransformersEngine
from flexreward.errors import JudgeError, OutputError, WeightsError
from mol import swap as module
from mol.config import TARGETS
from mol.model import MolLlama
from mol.processing import MolLlamaProcessor
from mol.swap import digests, main, swap
from mol.weights import stream
from tests.mol.conftest import llama_tokenizer
from tests.mol.hand import molecule


def judge_like(mol_folder, folder, *, rows=None, seed=7, dtype=torch.float32, shard="1GB", tokenizer=None, **config):
    """A LLaMA of the same shape with other weights, as training.judge_sft would leave it."""
    sizes = LlamaConfig.from_pretrained(mol_folder / "llm").to_dict()
    rows = rows or sizes["vocab_size"] - 2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(LlamaConfig(**(sizes | {"vocab_size": rows, "pad_token_id": None} | config)))
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    model.to(dtype).save_pretrained(folder, max_shard_size=shard)
    (tokenizer or llama_tokenizer()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def judge(mol_folder, tmp_path_factory):
    return judge_like(mol_folder, tmp_path_factory.mktemp("judge") / "judge")


@pytest.fixture(scope="module")
def swapped(mol_folder, judge, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "flex"
    swap(mol_folder, judge, out)
    return out


def test_encoders_blending_qformer_projection_and_lora_are_byte_for_byte_mol_llamas(mol_folder, swapped):
    for path in (
        "model.safetensors",
        "config.json",
        "adapter/adapter_model.safetensors",
        "adapter/adapter_config.json",
    ):
        assert (swapped / path).read_bytes() == (mol_folder / path).read_bytes()
    kept = json.loads((swapped / "swap.json").read_text())["kept"]
    assert kept == digests(mol_folder) == digests(swapped)
    assert set(kept) == {
        *("encoders.moleculestm", "encoders.unimol", "norms", "blending", "queries", "qformer", "projection", "lora")
    }


def test_every_other_tensor_of_the_llama_is_the_judges(judge, swapped):
    ours, theirs = load_file(swapped / "llm" / "model.safetensors"), load_file(judge / "model.safetensors")
    assert ours.keys() == theirs.keys()
    tables = {"model.embed_tokens.weight", "lm_head.weight"}
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs.keys() - tables)
    assert all(torch.equal(ours[name][:-2], theirs[name]) for name in tables)


def test_the_rows_of_pad_and_mol_are_mol_llamas(mol_folder, swapped):
    before, after = (load_file(folder / "llm" / "model.safetensors") for folder in (mol_folder, swapped))
    for table in ("model.embed_tokens.weight", "lm_head.weight"):
        assert torch.equal(after[table][-2:], before[table][-2:])


def test_each_targeted_matrix_is_the_judges_and_four_times_b_a(mol_folder, judge, swapped):
    model = MolLlama.from_pretrained(swapped)
    theirs = load_file(judge / "model.safetensors")
    adapter = load_file(mol_folder / "adapter" / "adapter_model.safetensors")
    merged = model.llm.merge_and_unload().state_dict()
    targeted = [name for name in merged if name.split(".")[-2] in TARGETS]
    assert len(targeted) == 7 * model.config.llm.num_hidden_layers
    for name in targeted:
        layer = f"base_model.model.{name.removesuffix('.weight')}"
        added = 4 * adapter[f"{layer}.lora_B.weight"] @ adapter[f"{layer}.lora_A.weight"]
        assert added.abs().max() > 1e-3
        torch.testing.assert_close(merged[name], theirs[name] + added, atol=1e-6, rtol=0)


def test_the_swapped_folder_generates_about_molecules_and_writes_neither_pad_nor_mol(swapped):
    model, processor = MolLlama.from_pretrained(swapped), MolLlamaProcessor.from_pretrained(swapped)
    inputs = processor([{"role": "user", "content": "Judge <mol>."}], [molecule(5)])
    written = model.generate(**inputs, max_new_tokens=20, do_sample=True, temperature=10.0)
    assert not set(written.flatten().tolist()) & set(model.config.silenced)


async def test_the_embedded_engine_loads_what_was_written_and_writes_what_the_model_does(swapped):
    model, processor = MolLlama.from_pretrained(swapped), MolLlamaProcessor.from_pretrained(swapped)
    inputs = processor(
        [{"role": "user", "content": "A: <mol>, B: <mol>."}], [molecule(4), molecule(9)], prefix="<think>"
    )
    expected = processor.decode(model.generate(**inputs, max_new_tokens=16, do_sample=False))
    with torch.no_grad():
        first, second = (Embeddings(rows_TD=rows.numpy()) for rows in model.molecules(inputs["molecules"]))
    engine = TransformersEngine(swapped / "llm", lora=swapped / "adapter", device="cpu")
    prompt = Prompt(system="", user="A: , B: .", prefix="<think>", media=(Placed(3, first), Placed(8, second)))
    replies = [reply.text async for reply in engine.generate(prompt, Sampling(max_tokens=16))]
    await engine.close()
    assert replies == [f"<think>{expected[0]}"]


def test_the_swap_is_the_same_bytes_again(mol_folder, judge, swapped, tmp_path):
    swap(mol_folder, judge, tmp_path / "again")
    for path in sorted(path.relative_to(swapped) for path in swapped.rglob("*") if path.is_file()):
        assert (tmp_path / "again" / path).read_bytes() == (swapped / path).read_bytes(), path


def test_a_judge_in_several_files_and_half_precision_stays_so(mol_folder, tmp_path):
    judge = judge_like(mol_folder, tmp_path / "judge", dtype=torch.bfloat16, shard="50KB")
    swap(mol_folder, judge, tmp_path / "out")
    files = sorted(path.name for path in (tmp_path / "out" / "llm").glob("*.safetensors"))
    assert files == sorted(path.name for path in judge.glob("*.safetensors"))
    assert len(files) > 1
    model = MolLlama.from_pretrained(tmp_path / "out")
    theirs = LlamaForCausalLM.from_pretrained(judge, dtype=torch.bfloat16).state_dict()
    ours = {name.replace(".base_layer", ""): tensor for name, tensor in model.base.state_dict().items()}
    assert {tensor.dtype for name, tensor in ours.items() if "lora" not in name} == {torch.bfloat16}
    assert all(torch.equal(ours[name][: len(tensor)], tensor) for name, tensor in theirs.items())


def test_a_judge_trained_with_pad_and_mol_gives_all_rows_but_these(mol_folder, tmp_path):
    rows = LlamaConfig.from_pretrained(mol_folder / "llm").vocab_size
    tokenizer = AutoTokenizer.from_pretrained(mol_folder / "llm")
    judge = judge_like(mol_folder, tmp_path / "judge", rows=rows, tokenizer=tokenizer)
    swap(mol_folder, judge, tmp_path / "out")
    ours = load_file(tmp_path / "out" / "llm" / "model.safetensors")["lm_head.weight"]
    theirs = load_file(judge / "model.safetensors")["lm_head.weight"]
    before = load_file(mol_folder / "llm" / "model.safetensors")["lm_head.weight"]
    assert torch.equal(ours, torch.cat([theirs[:-2], before[-2:]]))


def test_memory_does_not_grow_with_the_llama(mol_folder, tmp_path):
    """41 MB of weights; at most a chunk of 64 KB and a header is held."""
    import tracemalloc

    big = tmp_path / "mol"
    shutil.copytree(mol_folder, big)
    told = json.loads((big / "llm" / "config.json").read_text()) | {"intermediate_size": 65536}
    config = json.loads((big / "config.json").read_text())
    (big / "llm" / "config.json").write_text(json.dumps(told))
    (big / "config.json").write_text(json.dumps(config | {"llm": told}))
    judge = judge_like(big, tmp_path / "judge")
    tracemalloc.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "CHUNK", 1 << 16)
        swap(big, judge, tmp_path / "warm")
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        swap(big, judge, tmp_path / "out")
        _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (tmp_path / "out" / "llm" / "model.safetensors").stat().st_size > 40_000_000
    assert peak - before < 4_000_000


MISTAKES = {
    "another architecture": (
        {"hidden_size": 64},
        "hidden_size is 64, Mol-LLaMA's is 32; train the judge from the same",
    ),
    "other positions": ({"rope_parameters": {"rope_type": "default", "rope_theta": 5.0}}, "rope_parameters is"),
    "another vocabulary": ({"rows": 300}, r"lm_head.weight is \(300, 32\), expected \d+ rows as in Mol-LLaMA, or"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_judge_of_another_shape_is_refused_with_a_remedy(mol_folder, tmp_path, mistake):
    options, message = MISTAKES[mistake]
    judge = judge_like(mol_folder, tmp_path / "judge", **options)
    with pytest.raises(JudgeError, match=message):
        swap(mol_folder, judge, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_judge_with_other_tokens_is_refused(mol_folder, tmp_path):
    tokenizer = llama_tokenizer(words=("assistant", "system", "user", "ĊĊ", "think"))
    judge = judge_like(mol_folder, tmp_path / "judge", tokenizer=tokenizer)
    with pytest.raises(JudgeError, match=r"token \d+ is '\w+', Mol-LLaMA's is '\w+'; train the judge"):
        swap(mol_folder, judge, tmp_path / "out")


def test_a_judge_of_another_family_is_refused(mol_folder, checkpoint, tmp_path):
    with pytest.raises(JudgeError, match="a model of type qwen2, expected llama; train the judge from one"):
        swap(mol_folder, checkpoint, tmp_path / "out")


def broken(judge, folder, change):
    shutil.copytree(judge, folder)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("model.norm.weight"), "1 tensors are missing, model.norm.weight first; save the whole LLaMA"),
        (
            lambda t: t.update(value_head=torch.ones(2)),
            "1 tensors belong to no LLaMA, value_head first; save the LLaMA",
        ),
        (lambda t: t.update({"model.norm.weight": torch.ones(5)}), r"model.norm.weight is \(5,\), expected \(32,\)"),
    ],
)
def test_a_judge_with_other_tensors_is_refused_by_name(mol_folder, judge, tmp_path, change, message):
    with pytest.raises(WeightsError, match=message):
        swap(mol_folder, broken(judge, tmp_path / "judge", change), tmp_path / "out")


def test_a_judge_that_was_cut_is_refused(mol_folder, judge, tmp_path):
    shutil.copytree(judge, tmp_path / "judge")
    path = tmp_path / "judge" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="no whole file of safetensors"):
        swap(mol_folder, tmp_path / "judge", tmp_path / "out")


def test_an_adapter_and_other_formats_are_refused_with_a_remedy(mol_folder, judge, tmp_path):
    with pytest.raises(JudgeError, match="this is an adapter; merge it into its base model first"):
        swap(mol_folder, mol_folder / "adapter", tmp_path / "out")
    shutil.copytree(judge, tmp_path / "judge")
    (tmp_path / "judge" / "model.safetensors").rename(tmp_path / "judge" / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"pytorch_model.bin where model.safetensors is needed; save it with"):
        swap(mol_folder, tmp_path / "judge", tmp_path / "out")


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ("mol", "none: no folder; MOL is a Mol-LLaMA folder"),
        ("judge", "none: no folder; JUDGE is the folder of a LLaMA"),
    ],
)
def test_what_is_no_folder_is_named(mol_folder, judge, tmp_path, which, message):
    given = {"mol": mol_folder, "judge": judge} | {which: tmp_path / "none"}
    with pytest.raises(JudgeError, match=message):
        swap(given["mol"], given["judge"], tmp_path / "out")


def test_a_folder_that_is_there_is_never_written_over(mol_folder, judge, tmp_path):
    with pytest.raises(OutputError, match="is there already; name a folder that is not"):
        swap(mol_folder, judge, tmp_path)


def test_what_changed_on_the_way_is_named_and_nothing_is_left(mol_folder, judge, tmp_path, monkeypatch):
    def meddling(mol, made):
        shutil.copytree(mol, made, dirs_exist_ok=True)
        tensors = load_file(made / "model.safetensors")
        tensors["projection.bias"] += 1
        save_file(tensors, made / "model.safetensors")

    monkeypatch.setattr(module, "_copy_all_but_the_weights", meddling)
    with pytest.raises(WeightsError, match="projection changed on its way"):
        swap(mol_folder, judge, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_it_kept_and_wrote(mol_folder, judge, tmp_path, capsys):
    assert main([str(mol_folder), str(judge), str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert "kept lora" in told
    assert f"wrote {tmp_path / 'out'}" in told


def test_a_mistake_is_one_line_and_exit_2(mol_folder, tmp_path, capsys):
    assert main([str(mol_folder), str(tmp_path / "none"), str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_help_teaches(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    told = capsys.readouterr().out
    assert "python -m training.judge_sft" in told
    assert "example: python -m mol.swap models/mol-llama runs/judge models/flex-mol-llama" in told
