"""One copy of what stands at the port: it renders, votes, reads and answers, and holds no model."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from time import perf_counter
from typing import Any

from fastapi import FastAPI
from ray import serve

from flexreward.config import JudgeRecipe, open_judge
from flexreward.engines.base import Engine
from flexreward.engines.ray import About, RayEngine
from flexreward.engines.together import Which
from flexreward.errors import EngineError
from flexreward.serving import dialects
from flexreward.serving.admission import Admission
from flexreward.serving.app import Bounds, build_app
from flexreward.serving.board import Crowd, Delta
from flexreward.serving.callers import Traffic, admin_of, caller_of
from flexreward.serving.chat_routes import chat_routes
from flexreward.serving.gate import Gate
from flexreward.serving.grouping import Grouping
from flexreward.serving.judges import OpenJudge, usual_template
from flexreward.serving.keeper import Owner
from flexreward.serving.live import live_routes
from flexreward.serving.logs import log_with_serve
from flexreward.serving.phase_routes import phase_routes
from flexreward.serving.recipe import Scaling, ServedJudge, ServeRecipe
from flexreward.serving.reload_routes import reload_routes
from flexreward.serving.reloading import Reloader
from flexreward.serving.remote_ledger import RemoteCohorts, RemoteLedger, RemotePhases
from flexreward.serving.service import JudgeService
from flexreward.templates import load_template
from flexreward.types import JudgeRequest, Unscored

WARM_UP = "Is this answer right? 2 + 2 = 4"
log = logging.getLogger(__name__)


@serve.ingress()
class JudgeIngress:
    """Made by ``flexreward.serving.deployment``.

    Args:
        fields: Of the ``ServeRecipe``.
        ledger: Handle of the one ledger's keeper.
        engines: Handles of the judges' engines, by name.
    """

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, fields: dict[str, Any], ledger: Any, engines: dict[str, Any]
    ) -> None:
        log_with_serve()
        self.recipe = ServeRecipe.model_validate(fields)
        self.traffic = Traffic()
        gate = Gate(waits=self.recipe.asleep == "wait")
        self.ledger = RemoteLedger(
            Owner(ledger),
            num_open=lambda: self.traffic.num_open,
            on_door=self._close,
            on_crowd=self._crowded,
            gate=gate,
            counted=self._counted,
        )
        judges = {name: await _opened(one, engines[name], self.recipe) for name, one in self.recipe.judges.items()}
        self.service = JudgeService(
            judges,
            ledger=self.ledger,
            deadline_s=self.recipe.deadline_s,
            share_verdicts=self.recipe.share_verdicts,
            group_rewards=Grouping(
                RemoteCohorts(self.ledger),
                method=self.recipe.group_reward,
                others={name: one.group_reward for name, one in self.recipe.judges.items() if one.group_reward},
            ),
            gate=gate,
        )
        with suppress(EngineError):  # nobody is let in to a judge that sleeps
            await self.ledger.sign()
        self._cold = list(judges)
        self._tasks = [asyncio.create_task(self.ledger.beat()), asyncio.create_task(self._warm_up())]

    async def __serve_build_asgi_app__(self) -> FastAPI:
        reward_keys, admin_keys = self.recipe.keys()
        bounds = Bounds(
            reward_keys=reward_keys,
            admin_keys=admin_keys,
            max_body_bytes=self.recipe.max_body_bytes,
            max_requests=self.recipe.max_requests,
            max_open=self.recipe.ingress_in_flight,
            body_s=self.recipe.body_s,
            media_hosts=frozenset(self.recipe.media_hosts),
            limits=next(iter(self.recipe.judges.values())).judge.limits,
            others={name: one.judge.limits for name, one in self.recipe.judges.items()},
        )
        viewer = admin_of if reward_keys or admin_keys else caller_of
        spoken = dialects.routers(self.service, neutral=self.recipe.neutral)
        asleep = phase_routes(RemotePhases(self.ledger), tuple(self.recipe.judges))
        reload = reload_routes(Reloader(self.recipe, self.service, ledger=self.ledger))
        routers = [live_routes(self.ledger.board, viewer=viewer), asleep, reload, *spoken]
        if self.recipe.openai:
            routers.append(chat_routes(self.service, hosts=bounds.media_hosts, limits=bounds.limits))
        return build_app(self.service, bounds=bounds, ready=self._missing, traffic=self.traffic, routers=routers)

    def _counted(self) -> Delta:
        return self.service.tally.take(self.service.waiting())

    def _missing(self) -> str:
        if self.traffic.closing:
            return "the server ends"
        return f"no judgment has come back yet from {', '.join(self._cold)}" if self._cold else ""

    def _crowded(self, crowd: Crowd) -> None:
        for name, opened in self.service.judges.items():
            opened.admission.num, opened.admission.num_busy = crowd.num, max(crowd.busy.get(name, 0), 1)

    def _close(self) -> None:
        self.traffic.closing = True

    async def _warm_up(self) -> None:
        """One judgment by each judge that nothing is kept of: the first is slow, and proves that there are answers."""
        for name in list(self._cold):
            while self.service.gate.is_awake(name):  # one that sleeps proves itself when it wakes
                opened, began = self.service.judges[name], perf_counter()
                if (why := await _first(opened.recipe, opened.engine)) is None:
                    opened.admission.count(perf_counter() - began)
                    break
                if not self.service.judges.followed(name, opened.engine):
                    log.warning("the judge %s does not answer yet: %s", name, why)
                    await asyncio.sleep(1.0)
            self._cold.remove(name)


async def _opened(served: ServedJudge, handle: Any, recipe: ServeRecipe) -> OpenJudge:
    about: About = await handle.about.remote()
    lanes = served.max_replicas * served.max_in_flight
    return OpenJudge(
        recipe=served.judge,
        engine=RayEngine(handle, about, together=_together(served)),
        admission=Admission(lanes=lanes, max_waiting=recipe.max_waiting),
    )


def _together(served: ServedJudge) -> Which:
    """Where Serve decides by calls how many copies there are to be, each prompt is one."""
    if isinstance(served.replicas, Scaling):
        return "none"
    return "all" if served.replicas == 1 else "key"


async def _first(recipe: JudgeRecipe, engine: Engine) -> str | None:
    """Why no judgment came back, if none did. One that cannot be read is one."""
    if recipe.template and ((own := load_template(recipe.template)).media or own.num_molecules):
        recipe = recipe.model_copy(update={"template": None})
    template = usual_template(recipe)
    count = load_template(template).num_completions
    judge = open_judge(recipe, template=template, engine=engine)
    judgment = await judge.judge(JudgeRequest(prompt=WARM_UP, completions=("Yes.",) * (count or 2), rubric=WARM_UP))
    outcome = judgment.outcome
    if isinstance(outcome, Unscored) and outcome.reason.is_infrastructure:
        return outcome.detail or outcome.reason.value
    return None
