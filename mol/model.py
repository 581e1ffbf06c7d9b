"""Mol-LLaMA: ``llama(insert(project(qformer(blend(encoders(batch))))))``.

Shapes: B rows of text, or molecules; L tokens of a row, Q queries of a molecule, D width of the LLaMA.

A folder of it holds ``config.json`` and ``model.safetensors`` (the molecule part alone), ``llm/`` (a plain LLaMA with
its tokenizer) and, where there is LoRA, ``adapter/`` (PEFT's): engines load the last two as they are, and the swap
exchanges ``llm/`` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import GenerationMixin, LlamaForCausalLM, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from flexreward.errors import JudgeError, WeightsError
from mol.blend import Blending
from mol.config import TARGETS, MolLlamaConfig
from mol.encoders.moleculestm import MoleculeSTM, Tokens
from mol.encoders.unimol import UniMol
from mol.qformer import build_qformer

if TYPE_CHECKING:
    from mol.batch import MoleculeBatch

WEIGHTS = "model.safetensors"


class MoleculeEncoder(nn.Module):
    """Molecules as rows of the LLaMA's input. Both encoders are frozen, the rest can be trained."""

    def __init__(self, config: MolLlamaConfig) -> None:
        super().__init__()
        self.config = config
        width = config.qformer.hidden_size
        self.encoders = nn.ModuleDict({"moleculestm": MoleculeSTM(config.moleculestm), "unimol": UniMol(config.unimol)})
        self.norms = nn.ModuleDict(
            {
                "moleculestm": nn.LayerNorm(config.moleculestm.hidden_size),
                "unimol": nn.LayerNorm(config.unimol.hidden_size),
            }
        )
        self.blending = Blending(config)
        self.queries = nn.Parameter(torch.randn(1, config.num_queries, width) * config.qformer.initializer_range)
        self.qformer = build_qformer(config.qformer)
        self.projection = nn.Linear(width, config.llm.hidden_size)

    def forward(self, batch: MoleculeBatch) -> Tensor:
        """(B, Q, D), in the order of the batch and the dtype of the projection."""
        return self.read(self.encoded(batch))

    def encoded(self, batch: MoleculeBatch) -> dict[str, Tokens]:
        """What the frozen encoders make of the molecules: the same in every epoch, so it can be kept."""
        return {name: encoder(batch) for name, encoder in self.encoders.items()}

    def read(self, encoded: Mapping[str, Tokens]) -> Tensor:
        """(B, Q, D) from ``encoded``; all of it can be trained."""
        dtype = self.projection.weight.dtype
        two, three = (
            Tokens(self.norms[name](encoded[name].tokens_BND.to(dtype)), encoded[name].mask_BN)
            for name in ("moleculestm", "unimol")
        )
        blended = self.blending(two, three)
        queries = self.queries.expand(len(blended.mask_BN), -1, -1)
        read = self.qformer(
            query_embeds=queries, encoder_hidden_states=blended.tokens_BND, encoder_attention_mask=blended.mask_BN
        )
        projected: Tensor = self.projection(read.last_hidden_state)
        return projected

    def save(self, folder: str | Path, *, state_dict: Mapping[str, Tensor] | None = None) -> None:
        """Write ``model.safetensors``."""
        tensors = self.state_dict() if state_dict is None else state_dict
        _save(tensors, Path(folder) / WEIGHTS)

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, *, config: MolLlamaConfig | None = None, dtype: torch.dtype | None = None
    ) -> Self:
        """The molecule part of a Mol-LLaMA folder, in evaluation mode. The LLaMA is not read.

        Args:
            dtype: By default that of the file.

        Raises:
            JudgeError: It is no such folder.
            WeightsError: A tensor is missing, too many, or of another shape; names it.
        """
        folder = Path(folder)
        config = config or read_config(folder)
        with torch.device("meta"):
            encoder = cls(config)
        encoder.load_state_dict(_read(folder / WEIGHTS, encoder.state_dict()), assign=True)
        # What is assigned takes the place of a parameter that was frozen.
        for frozen in encoder.encoders.values():
            frozen.freeze()
        return (encoder if dtype is None else encoder.to(dtype)).eval()


class MolLlama(PreTrainedModel, GenerationMixin):
    """Mol-LLaMA, which is saved, loaded, moved and asked to generate as any model of transformers is.

    Args:
        molecules: The molecule part; by default a fresh one.
        llm: A ``LlamaForCausalLM``, or PEFT's model over one; by default a fresh one, with LoRA where the config has
            it.
    """

    config_class = MolLlamaConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _no_split_modules = ("LlamaDecoderLayer",)

    def __init__(
        self,
        config: MolLlamaConfig,
        *,
        molecules: MoleculeEncoder | None = None,
        llm: LlamaForCausalLM | PeftModel | None = None,
    ) -> None:
        super().__init__(config)
        self.molecules = MoleculeEncoder(config) if molecules is None else molecules
        self.llm = _fresh_llm(config) if llm is None else llm
        self.generation_config = self.base.generation_config
        self.generation_config.suppress_tokens = list(config.silenced)
        self.post_init()

    @property
    def base(self) -> LlamaForCausalLM:
        """The LLaMA itself, within PEFT's model where there is one."""
        return self.llm.get_base_model() if isinstance(self.llm, PeftModel) else self.llm

    def initialize_weights(self) -> None:
        """Nothing: every part came with its weights, fresh or read, and transformers would take those for missing."""

    def get_input_embeddings(self) -> nn.Module:
        return self.base.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        return self.base.get_output_embeddings()

    def get_decoder(self) -> nn.Module:
        return self.base.get_decoder()

    def embeds(self, input_ids: Tensor, *, queries_BQD: Tensor | None) -> Tensor:
        """(B, L, D): the rows of tokens, and in place of every ``<mol>`` the next row of the queries.

        Args:
            input_ids: (B, L) int64.
            queries_BQD: Of the molecules of all rows, in reading order; ``None`` where no row names one.

        Raises:
            ValueError: The number of ``<mol>`` in a row is no multiple of Q, or that of all rows is not Q times M.
        """
        rows_BLD = self.get_input_embeddings()(input_ids)
        flags_BL = input_ids == self.config.mol_token_id
        if queries_BQD is None:
            if bool(flags_BL.any()):
                raise ValueError("the text holds <mol>, and no molecules were given")
            return rows_BLD
        M, Q, D = queries_BQD.shape
        counts = flags_BL.sum(1).tolist()
        if sum(counts) != M * Q or any(count % Q for count in counts):
            raise ValueError(
                f"rows with {', '.join(map(str, counts))} <mol> tokens for {M} molecules, expected {Q} for each"
            )
        return rows_BLD.masked_scatter(flags_BL[..., None], queries_BQD.reshape(M * Q, D).to(rows_BLD))

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        molecules: MoleculeBatch | None = None,
        queries_BQD: Tensor | None = None,
        labels: Tensor | None = None,
        **llm: Any,
    ) -> CausalLMOutputWithPast:
        """Logits and, given labels, the mean loss over those that are not -100. ``[PAD]`` and ``<mol>`` have no chance.

        Args:
            input_ids: (B, L) int64; Q times ``<mol>`` for every molecule.
            molecules: Those of all rows, in reading order.
            queries_BQD: What ``self.molecules`` made of them, where that was kept; instead of ``molecules``.
            labels: (B, L) int64.
            llm: Arguments of ``LlamaForCausalLM.forward``, and a trainer's ``num_items_in_batch``.
        """
        if input_ids is not None:
            llm["inputs_embeds"] = self.embeds(input_ids, queries_BQD=self._queries(molecules, queries_BQD))
        out = self.llm(attention_mask=attention_mask, **llm)
        # The smallest number, not minus infinity: 0 times it is 0, where an entropy is computed of it.
        out.logits[..., list(self.config.silenced)] = torch.finfo(out.logits.dtype).min
        if labels is not None:
            counted = {name: llm[name] for name in ("num_items_in_batch",) if name in llm}
            out.loss = self.base.loss_function(
                logits=out.logits, labels=labels, vocab_size=out.logits.shape[-1], **counted
            )
        return out

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        molecules: MoleculeBatch | None = None,
        queries_BQD: Tensor | None = None,
        **generation: Any,
    ) -> Any:
        """(B, new tokens) int64, the new tokens alone, as from ``LlamaForCausalLM.generate`` with input embeddings.

        Args:
            attention_mask: (B, L); needed where rows are padded, which is on the left.
            generation: As of transformers, such as ``max_new_tokens`` and ``do_sample``.
        """
        if input_ids is not None:
            generation["inputs_embeds"] = self.embeds(input_ids, queries_BQD=self._queries(molecules, queries_BQD))
            if attention_mask is None:
                attention_mask = torch.ones_like(input_ids)
        silenced = sorted({*self.config.silenced, *(generation.pop("suppress_tokens", None) or ())})
        return self.llm.generate(attention_mask=attention_mask, suppress_tokens=silenced, **generation)

    def _queries(self, molecules: MoleculeBatch | None, queries_BQD: Tensor | None) -> Tensor | None:
        return self.molecules(molecules) if molecules is not None and queries_BQD is None else queries_BQD

    def save_pretrained(
        self, save_directory: str | Path, *, state_dict: Mapping[str, Tensor] | None = None, **options: Any
    ) -> None:
        """Write the folder described at the top of this file, without the tokenizer, which is the processor's.

        Args:
            state_dict: The whole model's, where a trainer gathered it.
            options: For the LLaMA, such as ``max_shard_size``.
        """
        folder = Path(save_directory)
        tensors = dict(self.state_dict() if state_dict is None else state_dict)
        whole = {name.removeprefix("molecules."): tensors[name] for name in tensors if name.startswith("molecules.")}
        llm = {name.removeprefix("llm."): tensors[name] for name in tensors if name.startswith("llm.")}
        folder.mkdir(parents=True, exist_ok=True)
        self.config.architectures = [type(self).__name__]
        self.config.save_pretrained(folder)
        self.molecules.save(folder, state_dict=whole)
        if not isinstance(self.llm, PeftModel):
            self.llm.save_pretrained(folder / "llm", state_dict=llm, **options)
            return
        adapted = get_peft_model_state_dict(self.llm, state_dict=llm, save_embedding_layers=False)
        self.llm.peft_config["default"].base_model_name_or_path = "llm"
        (folder / "adapter").mkdir(exist_ok=True)
        _save(adapted, folder / "adapter" / "adapter_model.safetensors")
        self.llm.peft_config["default"].save_pretrained(folder / "adapter")
        self.base.save_pretrained(folder / "llm", state_dict=_plain(llm), **options)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        dtype: torch.dtype | str = "auto",
        molecules_dtype: torch.dtype | None = torch.float32,
        device_map: Any = None,
        is_trainable: bool = False,
        **llm: Any,
    ) -> Self:
        """A folder that ``save_pretrained`` wrote, or its hub id, in evaluation mode.

        Args:
            dtype: Of the LLaMA; by default that of its files.
            molecules_dtype: Of the molecule part. Its weights are trained in float32, and it is small.
            is_trainable: Whether LoRA is loaded to be trained on.
            llm: For ``LlamaForCausalLM.from_pretrained``, such as ``attn_implementation``.

        Raises:
            JudgeError: It is no such folder.
            WeightsError: A tensor is missing, too many, or of another shape; names it.
        """
        folder = find_folder(pretrained_model_name_or_path)
        config = read_config(folder)
        molecules = MoleculeEncoder.from_pretrained(folder, config=config, dtype=molecules_dtype)
        model: Any
        model, report = LlamaForCausalLM.from_pretrained(
            folder / "llm", dtype=dtype, device_map=device_map, output_loading_info=True, local_files_only=True, **llm
        )
        if missing := sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"]):
            raise WeightsError(f"{folder}/llm: {len(missing)} weights do not fit its config.json, {missing[0]} first")
        config.llm = model.config
        if config.lora is not None:
            if not (folder / "adapter" / "adapter_config.json").is_file():
                raise WeightsError(f"{folder}: config.json names an adapter, and there is none; it stands in adapter/")
            model = PeftModel.from_pretrained(model, folder / "adapter", is_trainable=is_trainable)
        whole = cls(config, molecules=molecules.to(model.device), llm=model)
        return whole.eval()


def read_config(folder: Path) -> MolLlamaConfig:
    """The config of a Mol-LLaMA folder.

    Raises:
        JudgeError: It is none.
    """
    if not (folder / "config.json").is_file():
        raise JudgeError(f"{folder}: no config.json, so this is no Mol-LLaMA folder; python -m mol.weights makes one")
    config = MolLlamaConfig.get_config_dict(folder)[0]
    if config.get("model_type") != MolLlamaConfig.model_type:
        raise JudgeError(
            f"{folder}: its config.json is of a {config.get('model_type')} model, expected {MolLlamaConfig.model_type}"
        )
    return MolLlamaConfig.from_dict(config)


def find_folder(name: str | Path) -> Path:
    """The local folder of a Mol-LLaMA, fetched from the hub if it has to be.

    Raises:
        JudgeError: There is none.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise JudgeError(f"{name}: a Mol-LLaMA is a folder with config.json, llm/ and adapter/, not a file")
    if str(name).startswith((".", "/", "~")) or str(name).count("/") != 1:
        raise JudgeError(f"{name}: no such folder; python -m mol.weights makes one from the published weights")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    patterns = ["*.json", "*.safetensors", "*.jinja", "llm/*", "adapter/*"]
    try:
        return Path(snapshot_download(str(name), allow_patterns=patterns))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise JudgeError(f"{name}: no such folder here, and the hub does not give it: {reason}") from error


def lora_config(config: MolLlamaConfig) -> LoraConfig:
    """PEFT's config of the adapter."""
    return LoraConfig(
        r=config.lora.r,
        lora_alpha=config.lora.alpha,
        lora_dropout=config.lora.dropout,
        target_modules=list(TARGETS),
        bias="none",
        task_type="CAUSAL_LM",
    )


def _fresh_llm(config: MolLlamaConfig) -> LlamaForCausalLM | PeftModel:
    llm = LlamaForCausalLM(config.llm)
    return llm if config.lora is None else get_peft_model(llm, lora_config(config))


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The LLaMA's own tensors out of PEFT's, under their own names."""
    return {
        name.removeprefix("base_model.model.").replace(".base_layer.", "."): tensor
        for name, tensor in tensors.items()
        if ".lora_" not in name
    }


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, {"format": "pt"})


def _read(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file, which must be those expected by name and shape."""
    if not path.is_file():
        raise WeightsError(f"{path.parent}: no {path.name}, which holds the molecule part")
    with safe_open(path, framework="pt") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    if missing := sorted(expected.keys() - found.keys()):
        raise WeightsError(f"{path}: {len(missing)} tensors are missing, {missing[0]} first")
    if extra := sorted(found.keys() - expected.keys()):
        raise WeightsError(f"{path}: {len(extra)} tensors belong to nothing, {extra[0]} first")
    for name, tensor in found.items():
        if tensor.shape != expected[name].shape:
            raise WeightsError(
                f"{path}: {name} is {tuple(tensor.shape)}, and config.json asks for {tuple(expected[name].shape)}"
            )
    return found
