"""What is asked of a running vLLM, wherever it runs: a request for each reply, read the way every local engine does."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import math
from collections.abc import Sequence
from time import time
from typing import Any

from flexreward.engines.base import Prompt, Sampling
from flexreward.engines.encoding import Encoded
from flexreward.engines.reading import Deliver, Read
from flexreward.engines.vllm_inputs import as_they_are, by_kind, longer_by, medium_of, paced, with_rows
from flexreward.engines.vllm_opening import Opened
from flexreward.errors import EngineError, RefusedError
from flexreward.types import Reply, TokenLogprob

SILENT = -100.0
"""What is added to the logit of a token that is never to be written: as much as vLLM allows."""


class Writer:
    """Asks one ``AsyncLLM``, on the event loop that it belongs to."""

    def __init__(self, opened: Opened, llm: Any) -> None:
        self._reader = opened.reader
        self._ends = opened.ends
        self._silenced = frozenset(opened.silenced)
        self._dtype = opened.options["dtype"]
        self._max_logprobs = opened.max_logprobs
        self._llm = llm
        self._adapter = opened.adapter.request() if opened.adapter else None
        self._numbers = itertools.count()

    def check(self, sampling: Sampling) -> None:
        """Refuse what vLLM was not started for.

        Raises:
            RefusedError: It was started for fewer log-probabilities.
        """
        if sampling.logprobs > self._max_logprobs:
            raise RefusedError(
                f"logprobs: {sampling.logprobs} were asked for, vLLM was started for {self._max_logprobs}; "
                "set engine_args: {max_logprobs: ...}"
            )

    async def write(self, prompt: Prompt, read: Read, sampling: Sampling, numbers: range, deliver: Deliver) -> None:
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
            return embeds_input(**with_rows(encoded, shown, self._reader.width, self._dtype))
        if any(one.rows_TD is not None for one in shown):
            raise RefusedError("vLLM takes no embeddings beside images, videos or sounds")
        asked = {
            "prompt_token_ids": list(self._reader.encoder.encode(prompt).ids),  # vLLM makes the room for media itself
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
        sight = self._reader.senses.sight
        return found if sight is None else paced(found, shown, sight.frames)

    async def _reply(
        self, prompt: Prompt, read: Read, given: Any, sampling: Sampling, index: int, deliver: Deliver
    ) -> None:
        try:
            params = self._params(sampling, min(sampling.max_tokens, read.room), index)
        except Exception as error:  # vLLM's own, of no base that every version has; such as a temperature above 2
            raise RefusedError(f"vLLM does not draw so: {error}") from error
        written = await self._written(given, params)
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
                logprobs=self._num_logprobs(num),
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
            stop_token_ids=sorted(self._ends),
            logprobs=None if held else self._num_logprobs(sampling.logprobs),
            logit_bias=dict.fromkeys(self._silenced, SILENT) if self._silenced else None,
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
        ids = tokens[:-1] if tokens and tokens[-1] in self._ends else tokens
        text = self._reader.encoder.decode(ids, after=encoded.started)
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

        def top(place: Any, missing: float) -> tuple[tuple[str, float], ...]:
            reported = num + len(self._silenced)
            best = sorted(
                (found.rank, token, found.logprob)
                for token, found in place.items()
                if found.rank <= reported and token not in self._silenced
            )
            return tuple((self._reader.encoder.decode([token]), logprob - missing) for _, token, logprob in best[:num])

        def one(token: int, place: Any) -> TokenLogprob:
            missing = self._missing(place)
            text = self._reader.encoder.decode([token])
            return TokenLogprob(text=text, logprob=place[token].logprob - missing, top=top(place, missing))

        return tuple(one(token, place) for token, place in zip(tokens, places, strict=True))

    def _num_logprobs(self, num: int) -> int | None:
        """How many to ask for, so that ``num`` are left without the silenced."""
        return num + len(self._silenced) if num else None

    def _missing(self, place: Any) -> float:
        """Logarithm of the share that is not silenced. One that is not among the likeliest is not reported, and counts
        as nothing."""
        share = sum(math.exp(found.logprob) for token, found in place.items() if token in self._silenced)
        return math.log1p(-share) if 0 < share < 1 else 0.0


def _seed(seed: int, index: int) -> int:
    """One for each reply, 63 bits; those of neighbouring seeds are not neighbours."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {index}".encode(), digest_size=8).digest()) >> 1


def _first(errors: BaseExceptionGroup[EngineError]) -> EngineError:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, EngineError)
    return error
