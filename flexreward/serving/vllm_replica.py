"""A copy of vLLM as ``ray.serve.llm`` runs it, with the one method more that our engine needs.

What it is asked, and how its replies are read, is as in the embedded ``VLLMEngine``: the same reader, the same writer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from ray.serve import Application
from ray.serve.llm import LLMConfig, build_llm_deployment
from ray.serve.llm.deployment import LLMServer

from flexreward.config import JudgeRecipe, vllm_options
from flexreward.engines import orphans, vllm_models, vllm_start
from flexreward.engines.base import Prompt, Sampling
from flexreward.engines.ray import About, Failed, Other
from flexreward.engines.reading import Inbox
from flexreward.engines.vllm_opening import open_checkpoint
from flexreward.engines.vllm_writing import Writer
from flexreward.errors import EngineError
from flexreward.serving.copies import Copy, Found
from flexreward.serving.keeper import Owner
from flexreward.serving.pulse import Pulse
from flexreward.serving.recipe import ServedJudge
from flexreward.serving.replica import check_weights, warmed
from flexreward.serving.resting import PROBE, PROBED, Resting, first_words
from flexreward.types import Reply

OF_RAY = ("model", "tokenizer", "disable_log_stats")
"""Arguments of vLLM that ``ray.serve.llm`` sets: from the model's source, and for the metrics that it hands to Ray."""


class VLLMReplica(Copy, LLMServer):  # type: ignore[misc]  # ray.serve.llm is not typed
    """``LLMServer`` that takes our prompts.

    Args:
        llm_config: As ``vllm_deployment`` made it; what vLLM is started with is added here, where the checkpoint is.
        judge: Fields of the judge's recipe.
        sleeps: Whether its memory on a GPU can be given up.
        name: Of the judge.
        ledger: Handle of the keeper of the ledger, whose owner says where the judge is.
        weights: Digest that the model's must have.
        hang_s: Longest time without a reply while there are prompts.
    """

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self,
        llm_config: LLMConfig,
        *,
        judge: dict[str, Any],
        sleeps: bool,
        name: str,
        ledger: Any,
        weights: str | None,
        hang_s: float,
    ) -> None:
        self._pulse = Pulse(hang_s)
        self._resting = Resting(ledger and Owner(ledger), name, free=self.sleep, restore=self.wakeup, say=self._say)
        await self._resting.allowed()
        options = vllm_options(JudgeRecipe.model_validate(judge))
        self._opened = await asyncio.to_thread(open_checkpoint, **options)
        opened = self._opened
        self._about = About(can=opened.can, identity=opened.identity, max_context=opened.reader.max_context, parts=True)
        check_weights(self._about, weights)
        arguments = {name: value for name, value in self._opened.options.items() if name not in OF_RAY}
        config = LLMConfig(
            model_loading_config={
                "model_id": llm_config.model_id,
                "model_source": str(self._opened.view.folder),
            },
            accelerator_config=llm_config.accelerator_config,
            placement_group_config=llm_config.placement_group_config,
            deployment_config=llm_config.deployment_config,
            engine_kwargs={name: value for name, value in arguments.items() if value is not None}
            | ({"enable_sleep_mode": True} if sleeps else {}),
            log_engine_metrics=llm_config.log_engine_metrics,
        )
        vllm_start.prepare()
        with orphans.owned(), vllm_models.allowed():
            await super().__init__(config)
        self._writer = Writer(self._opened, self.engine._engine_client)
        self._model = self._about.name
        await warmed(self._say)
        self._resting.begin()

    async def check_health(self) -> None:
        if self._resting.broken:
            raise EngineError(self._resting.broken)
        self._pulse.check()
        await super().check_health()

    async def about(self) -> About:
        return self._about

    async def generate(
        self, key: str, prompt: Prompt, sampling: Sampling, model: str, numbers: range | None = None
    ) -> AsyncIterator[Found]:
        """The replies of these numbers, or all."""
        if model != self._model:
            yield Other(about=self._about)
            return
        async with self._resting.at_work(), aclosing(self._written(prompt, sampling, numbers)) as replies:
            with self._pulse.at_work():
                async for reply in replies:
                    self._pulse.beat()
                    yield reply

    async def _say(self) -> object:
        return self._opened.identity, await first_words(self._written(PROBE, PROBED))

    async def _written(
        self, prompt: Prompt, sampling: Sampling, numbers: range | None = None
    ) -> AsyncGenerator[Reply | Failed, None]:
        numbers = numbers or range(sampling.n)
        sampling = replace(sampling, n=len(numbers), at_once=None)
        inbox = Inbox()
        works: list[asyncio.Task[None]] = []
        try:
            self._writer.check(sampling)
            read = await self._opened.reader.read(prompt)

            def begin(places: range) -> None:
                of = numbers[places.start : places.stop]
                works.append(asyncio.create_task(self._writer.write(prompt, read, sampling, of, inbox.put)))

            async for reply in inbox.replies(sampling, begin):
                yield reply
        except EngineError as error:
            yield Failed(kind=type(error).__name__, message=str(error))
        finally:
            for work in works:
                work.cancel()

    async def count_tokens(self, key: str, prompt: Prompt) -> int | Failed:
        try:
            return await asyncio.to_thread(self._opened.reader.count_tokens, prompt)
        except EngineError as error:
            return Failed(kind=type(error).__name__, message=str(error))


def vllm_deployment(
    name: str, served: ServedJudge, options: dict[str, Any], ledger: Application, *, part: str = ""
) -> Application:
    """Copies of vLLM that run a judge.

    Args:
        part: What the deployment's name says after the judge's, where another stands in front of it.
        options: Of the Serve deployment.
        ledger: Which owns the judge's phase.
    """
    judge = served.judge
    workers = int(judge.options.get("tensor_parallel", 1))
    kind = "gpu" if served.gpus else "cpu"
    bundle = {"GPU": served.gpus, "CPU": served.cpus} if served.gpus else {"CPU": served.cpus}
    config = LLMConfig(
        model_loading_config={"model_id": name + part, "model_source": judge.model},
        accelerator_config={"kind": kind},
        placement_group_config={"bundles": [bundle] * workers},
        deployment_config={"ray_actor_options": {"num_cpus": 0}},
        engine_kwargs={"tensor_parallel_size": workers},
    )
    return build_llm_deployment(
        config,
        name_prefix="Engine-",
        bind_kwargs={
            "judge": judge.model_dump(),
            "sleeps": served.sleeps and bool(served.gpus),
            "name": name,
            "ledger": ledger,
            "weights": served.weights,
            "hang_s": served.hang_s,
        },
        override_serve_options=options,
        deployment_cls=VLLMReplica,
    )
