"""vLLM, run from here: its model lives in processes of its own, gets token ids and is asked for whole replies."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import weakref
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from time import time
from typing import Any

from flexreward.engines import vllm_start
from flexreward.engines.base import Prompt, Sampling
from flexreward.engines.checkpoint import Checkpoint, read_checkpoint
from flexreward.engines.encoding import Encoded
from flexreward.engines.loops import LoopThread
from flexreward.engines.reading import Deliver, Inbox, Read, Reader
from flexreward.engines.vllm_inputs import as_they_are, by_kind, longer_by, medium_of, paced, with_rows
from flexreward.engines.vllm_models import View
from flexreward.errors import EngineError, JudgeError, RefusedError
from flexreward.media.decoder import Decoder
from flexreward.types import Reply, TokenLogprob


class VLLMEngine:
    """Runs a local folder or hub id with vLLM's AsyncLLM; see the Engine protocol.

    Args:
        model: Folder that ``save_pretrained`` wrote, or hub id.
        dtype: ``auto`` is float32 on the CPU, bfloat16 on a GPU.
        quantization: vLLM's name of a method (``fp8``, ``awq`` ...); by default what the checkpoint says.
        tensor_parallel: GPUs that share the model.
        max_context: Tokens of prompt and reply together; by default what the model's config says.
        lora: Folder of an adapter that peft saved, applied to every reply.
        min_pixels: Smallest image that is shown as it is, smaller ones being enlarged; by default the checkpoint's.
        max_pixels: The largest; larger ones are made smaller.
        processor: Folder or hub id of a base model, for the settings of image and sound processors that a checkpoint
            came without.
        decoder: What decodes media, and within which limits; by default one that all engines share.
        prompt_embeddings: Whether prompts may hold rows that stand for no token (``Embeddings``).
        engine_args: Further arguments of vLLM's ``AsyncEngineArgs``, such as ``gpu_memory_utilization``.

    Raises:
        JudgeError: vLLM is not installed, or cannot run this model.
        RecipeError: ``engine_args`` holds what vLLM does not know or what has a name here.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        dtype: str = "auto",
        quantization: str | None = None,
        tensor_parallel: int = 1,
        max_context: int | None = None,
        lora: str | Path | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        processor: str | Path | None = None,
        decoder: Decoder | None = None,
        prompt_embeddings: bool = False,
        engine_args: Mapping[str, Any] | None = None,
    ) -> None:
        cpu = vllm_start.on_cpu()
        import vllm

        checkpoint = read_checkpoint(model)
        adapter = None if lora is None else _Adapter(Path(lora))
        self.reader = Reader(
            checkpoint.config,
            checkpoint.tokenizer,
            checkpoint.folder,
            name=str(model),
            max_context=min(max_context or checkpoint.max_context, checkpoint.max_context),
            processor=processor,
            decoder=decoder,
            min_pixels=min_pixels,
            max_pixels=max_pixels,
        )
        self.can = self.reader.can(prompt_embeddings=prompt_embeddings)
        self.ends = checkpoint.ends
        further = dict(engine_args or {})
        view = View(checkpoint, self.reader.settings)
        self.options = vllm_start.arguments(
            view.folder,
            cpu=cpu,
            dtype=("float32" if cpu else "bfloat16") if dtype == "auto" else dtype,
            quantization=quantization,
            tensor_parallel=tensor_parallel,
            max_context=self.max_context,
            lora_rank=adapter.rank if adapter else None,
            prompt_embeddings=prompt_embeddings,
            sees=bool(self.reader.senses.kinds),
            further=further,
        )
        """What vLLM was started with."""
        self.identity = {
            **_identity(checkpoint, vllm.__version__, self.options["dtype"], quantization, adapter, further),
            **self.reader.identity,
        }
        self.can_sleep = not cpu and bool(further.get("enable_sleep_mode"))
        """Whether ``sleep`` frees the GPU: with ``engine_args: {enable_sleep_mode: true}``, never on a CPU."""
        self._max_logprobs = further.get("max_logprobs", 20)
        self._adapter = adapter.request() if adapter else None
        self._numbers = itertools.count()
        self._under_way: set[Deliver] = set()
        self._loop = LoopThread("flexreward-vllm")
        try:
            self._llm = self._loop.submit(_start(self.options)).result()
        except BaseException:
            self._loop.stop()
            view.close()
            raise
        # Also runs when the interpreter ends; orphans.py is for when it is not asked.
        self._stop = weakref.finalize(self, _shut_down, self._llm, self._loop, view)

    @property
    def max_context(self) -> int:
        """Tokens of prompt and reply together."""
        return self.reader.max_context

    def count_tokens(self, prompt: Prompt) -> int:
        """How many tokens the model reads of it, those of its media included, which are decoded for it."""
        return self.reader.count_tokens(prompt)

    async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncIterator[Reply]:
        if sampling.logprobs > self._max_logprobs:
            raise RefusedError(
                f"logprobs: {sampling.logprobs} were asked for, vLLM was started for {self._max_logprobs}; "
                "set engine_args: {max_logprobs: ...}"
            )
        read = await self.reader.read(prompt)
        inbox = Inbox()
        works: list[Future[None]] = []

        def begin(numbers: range) -> None:
            works.append(self._loop.submit(self._write(prompt, read, sampling, numbers, inbox.put)))

        self._under_way.add(inbox.put)
        try:
            async for reply in inbox.replies(sampling, begin):
                yield reply
        finally:
            self._under_way.discard(inbox.put)
            for work in works:
                work.cancel()

    async def sleep(self) -> None:
        """Let what is under way end, then free the GPU: weights go to main memory, keys and values are forgotten.

        Raises:
            RefusedError: This engine cannot (see ``can_sleep``).
        """
        await self._on_loop("sleep")

    async def wake(self) -> None:
        """Bring the weights back. Raises RefusedError where it cannot sleep."""
        await self._on_loop("wake_up")

    async def close(self) -> None:
        for deliver in tuple(self._under_way):
            deliver(EngineError("the engine was closed"))
        await asyncio.to_thread(self._stop)

    async def _on_loop(self, what: str) -> None:
        if not self.can_sleep:
            raise RefusedError(
                "this vLLM cannot sleep: that needs a GPU and engine_args: {enable_sleep_mode: true}; close the engine "
                "to free its memory"
            )
        work = self._llm.sleep(mode="wait") if what == "sleep" else self._llm.wake_up()
        await asyncio.wrap_future(self._loop.submit(work))

    async def _write(self, prompt: Prompt, read: Read, sampling: Sampling, numbers: range, deliver: Deliver) -> None:
        """These replies. Each is a request of its own: vLLM reads their prompt once, and each comes as it ends."""
        try:
            given = await self._input(prompt, read)
            async with asyncio.TaskGroup() as replies:
                for index in numbers:
                    replies.create_task(self._reply(prompt, read, given, sampling, index, deliver))
        except* EngineError as errors:
            deliver(_first(errors))

    async def _input(self, prompt: Prompt, read: Read) -> Any:
        """The prompt in vLLM's own terms, its media processed once for all replies."""
        from vllm.inputs import embeds_input, tokens_input

        encoded, shown = read.encoded, read.shown
        if not shown:
            return tokens_input(list(encoded.ids))
        if all(one.rows_TD is not None for one in shown):
            return embeds_input(**with_rows(encoded, shown, self.reader.width, self.options["dtype"]))
        if any(one.rows_TD is not None for one in shown):
            raise RefusedError("vLLM takes no embeddings beside images, videos or sounds")
        asked = {
            "prompt_token_ids": list(self.reader.encoder.encode(prompt).ids),  # vLLM makes the room for media itself
            "multi_modal_data": by_kind(shown, medium_of),
            "multi_modal_uuids": by_kind(shown, lambda one: f"{one.kind} {one.digest}"),
            "mm_processor_kwargs": as_they_are(shown),
        }
        try:
            found = await self._llm.renderer.process_for_engine_async(asked, time())
        except Exception as error:  # of the processors that vLLM runs here, on bytes that somebody gave
            raise EngineError(f"vLLM cannot process the media: {type(error).__name__}: {error}") from error
        if found["prompt_token_ids"] != list(encoded.ids):
            raise EngineError("vLLM shows the media in another number of tokens than the model's own processor")
        sight = self.reader.senses.sight
        return found if sight is None else paced(found, shown, sight.frames)

    async def _reply(
        self, prompt: Prompt, read: Read, given: Any, sampling: Sampling, index: int, deliver: Deliver
    ) -> None:
        written = await self._written(given, self._params(sampling, min(sampling.max_tokens, read.room), index))
        places = written.logprobs
        if sampling.pattern is not None and sampling.logprobs:
            places = await self._free(given, written.token_ids, sampling.logprobs)
        deliver(self._read(prompt, read.encoded, sampling, written, places, index))

    async def _written(self, given: Any, params: Any) -> Any:
        """What vLLM writes after an input."""
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            async for output in self._llm.generate(
                {**given}, params, str(next(self._numbers)), lora_request=self._adapter
            ):
                last = output
        except EngineDeadError as error:
            raise EngineError("vLLM's process has ended; start the judge again") from error
        except Exception as error:  # vLLM raises whatever it likes; the other requests and the next ones must live
            raise EngineError(f"vLLM failed: {type(error).__name__}: {error}") from error
        written = last.outputs[0]
        if written.finish_reason not in ("stop", "length"):
            raise EngineError(f"vLLM ended the reply early: {written.finish_reason}")
        return written

    async def _free(self, given: Any, tokens: Sequence[int], num: int) -> list[Any]:
        """Log-probabilities of ``tokens`` after an input for a judge that may write anything.

        vLLM reports those of what a pattern lets through. So each place is asked for by itself, with the token that
        stands there as the only one allowed, which vLLM applies after it has taken down the log-probabilities; the
        prompt is in its cache by then.
        """
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        def one(token: int) -> Any:
            return SamplingParams(
                temperature=0.0,
                max_tokens=1,
                logprobs=num,
                allowed_token_ids=[token],
                detokenize=False,
                output_kind=RequestOutputKind.FINAL_ONLY,
            )

        async with asyncio.TaskGroup() as places:
            asked = [
                places.create_task(self._written(longer_by(given, tokens[:at]), one(token)))
                for at, token in enumerate(tokens)
            ]
        return [task.result().logprobs[0] for task in asked]

    def _params(self, sampling: Sampling, max_tokens: int, index: int) -> Any:
        from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

        held = sampling.pattern is not None
        return SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p if sampling.temperature > 0 else 1.0,
            max_tokens=max_tokens,
            seed=_seed(sampling.seed, index) if sampling.temperature > 0 else None,
            stop=list(sampling.stop),
            stop_token_ids=sorted(self.ends),
            logprobs=None if held else sampling.logprobs or None,
            structured_outputs=StructuredOutputsParams(regex=sampling.pattern) if held else None,
            # Text is needed there only to look for stop strings; here it is decoded the way every local engine does.
            detokenize=bool(sampling.stop),
            skip_special_tokens=False,
            include_stop_str_in_output=True,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    def _read(
        self, prompt: Prompt, encoded: Encoded, sampling: Sampling, written: Any, places: Any, index: int
    ) -> Reply:
        tokens = list(written.token_ids)
        ids = tokens[:-1] if tokens and tokens[-1] in self.ends else tokens
        text = self.reader.encoder.decode(ids, after=encoded.started)
        if ends := [at + len(stop) for stop in sampling.stop if (at := text.find(stop)) >= 0]:
            text = text[: min(ends)]
        return Reply(
            text=prompt.prefix + text,
            index=index,
            finish_reason="stop" if sampling.is_whole(text) else written.finish_reason,
            prompt_tokens=len(encoded.ids),
            completion_tokens=len(tokens),
            logprobs=self._logprobs(tokens, places, sampling.logprobs),
        )

    def _logprobs(self, tokens: list[int], places: Any, num: int) -> tuple[TokenLogprob, ...]:
        if not num:
            return ()

        def top(place: Any) -> tuple[tuple[str, float], ...]:
            best = sorted((found.rank, token, found.logprob) for token, found in place.items() if found.rank <= num)
            return tuple((self.reader.encoder.decode([token]), logprob) for _, token, logprob in best[:num])

        return tuple(
            TokenLogprob(text=self.reader.encoder.decode([token]), logprob=place[token].logprob, top=top(place))
            for token, place in zip(tokens, places, strict=True)
        )


class _Adapter:
    """A LoRA adapter's folder, as peft saves it."""

    def __init__(self, folder: Path) -> None:
        config, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
        for path in (config, weights):
            if not path.is_file():
                raise JudgeError(f"{folder}: no {path.name}; name the folder that peft's save_pretrained wrote")
        self.folder = folder
        self.rank = int(json.loads(config.read_text())["r"])
        self.digest = hashlib.sha256(config.read_bytes() + weights.read_bytes()).hexdigest()

    def request(self) -> Any:
        from vllm.lora.request import LoRARequest

        return LoRARequest(lora_name="judge", lora_int_id=1, lora_path=str(self.folder.absolute()))


async def _start(options: Mapping[str, Any]) -> Any:
    return vllm_start.start(options)


def _shut_down(llm: Any, loop: LoopThread, view: View) -> None:
    llm.shutdown(timeout=2)
    loop.stop()
    view.close()


def _identity(
    checkpoint: Checkpoint,
    version: str,
    dtype: str,
    quantization: str | None,
    adapter: _Adapter | None,
    further: Mapping[str, Any],
) -> dict[str, str]:
    identity = {"engine": "vllm", "version": version, "model": checkpoint.name, "weights": checkpoint.digest}
    identity["dtype"] = dtype
    if quantization:
        identity["quantization"] = quantization
    if adapter:
        identity["lora"] = adapter.digest
    if further:
        # Which of them change a reply, vLLM alone knows.
        identity["engine_args"] = json.dumps(further, sort_keys=True, default=str)
    return identity


def _seed(seed: int, index: int) -> int:
    """One for each reply, 63 bits; those of neighbouring seeds are not neighbours."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {index}".encode(), digest_size=8).digest()) >> 1


def _first(errors: BaseExceptionGroup[EngineError]) -> EngineError:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, EngineError)
    return error
