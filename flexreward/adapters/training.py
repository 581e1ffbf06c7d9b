"""One training's view of its judge: made ready once, asked batch by batch, watched over."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

from flexreward.adapters.cuts import Cuts
from flexreward.adapters.recipe import RewardRecipe
from flexreward.adapters.rows import group_name, item_of
from flexreward.adapters.source import source_of
from flexreward.adapters.vigil import Vigil
from flexreward.adapters.watch import Figures, Patience, Scored
from flexreward.errors import SampleError
from flexreward.serving.contract import Rewarded, RewardItem
from flexreward.types import Reason

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What a trainer hands over: one entry a completion."""

    prompts: Sequence[Any]
    completions: Sequence[Any]
    completion_ids: Sequence[Sequence[int]] | None = None
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    step: int | None = None
    """Optimizer steps so far; ``None`` where the trainer does not tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What became of a batch, one entry a completion, and its figures."""

    results: Sequence[Rewarded]
    figures: Mapping[str, float]

    @property
    def rewards(self) -> list[float | None]:
        return [result.reward for result in self.results]


class Training:
    """Keeps what lasts for a training: the source of rewards, what was learned of cuts, how long nothing was scored."""

    def __init__(self, recipe: RewardRecipe, *, where: str) -> None:
        self.recipe = recipe
        self.where = where
        self._source = source_of(recipe)
        self._rank = os.environ.get("RANK", "0")
        self._run = recipe.run or _run_name()
        self._ready = False
        self._begin()

    def _begin(self) -> None:
        recipe = self.recipe
        self._cuts = Cuts(limit=recipe.max_completion_length, ends=recipe.eos_token_ids)
        self._figures = Figures()
        self._patience = Patience(recipe.patience)
        withholds = recipe.health == "break"
        self._vigil = (
            None if recipe.health == "off" else Vigil(every=recipe.canary_every, withholds=withholds, where=self.where)
        )
        self._step = -1
        self._calls = 0

    async def probe(self) -> None:
        """See once that the judge answers. Raises UserError with one line that says what to do."""
        if not self._ready:
            await self._source.probe()
            self._ready = True

    async def judge(self, batch: Batch) -> Judged:
        """A result for every completion.

        Raises:
            UserError: At first, the judge does not answer; later, nothing was scored for too many steps.
        """
        await self.probe()
        began = perf_counter()
        self._turn_to(batch.step)
        rows = await asyncio.to_thread(self._rows, batch)
        sent = [row for row in rows if row.item is not None and row.is_sent]
        extras = self._extras()
        asked = await self._source.rewards([*(row.item for row in sent if row.item is not None), *extras])
        for row, result in zip(sent, asked, strict=False):
            row.result = row.result or result
        found = [row.result for row in rows if row.result is not None]
        scored = [Scored(row.group, row.length, result) for row, result in zip(rows, found, strict=True)]
        figures = self._figures.of(scored, seconds=perf_counter() - began)
        if self._vigil is not None:
            self._vigil.hear(extras, asked[len(sent) :])
            health, found = self._vigil.see([row.item if row.is_sent else None for row in rows], found)
            figures |= {f"health/{name}": value for name, value in health.items()}
        self._patience.see(self._step, found, where=self.where)
        return Judged(results=found, figures=figures)

    def _extras(self) -> list[RewardItem]:
        """Canaries and probes, once a step, asked by one process for all."""
        if self._vigil is None or self._rank != "0" or self._calls > 0:
            return []
        return self._vigil.extras(self._step)

    def _turn_to(self, step: int | None) -> None:
        """Count the calls of a step. A step that lies behind the last begins another training."""
        if step is None:
            self._step, self._calls = self._step + 1, 0
            return
        if step < self._step:
            self._begin()
        self._calls = self._calls + 1 if step == self._step else 0
        self._step = step

    def _rows(self, batch: Batch) -> list[_Row]:
        """The batch as it is to be judged, with what is settled before a judge is asked."""
        rows = [self._row(batch, place) for place in range(len(batch.prompts))]
        self._name(rows, step=batch.step)
        if self.recipe.cut == "unscored" and batch.completion_ids is not None:
            self._leave_out(rows, self._cuts.of(batch.completion_ids))
        return rows

    def _row(self, batch: Batch, place: int) -> _Row:
        prompt, completion = batch.prompts[place], batch.completions[place]
        ids = batch.completion_ids
        row = _Row(length=_characters(completion) if ids is None else len(ids[place]))
        columns = {name: values[place] for name, values in batch.columns.items()}
        where, all_of_it = f"{self.where}: row {place}", self.recipe.judge_sees == "all"
        try:
            row.item = item_of(prompt, completion, columns, sees_thought=all_of_it, where=where)
        except SampleError as error:
            row.result = Rewarded(reward=None, reason=Reason.REFUSED, detail=str(error))
        return row

    def _name(self, rows: Sequence[_Row], *, step: int | None) -> None:
        """Give each item its group, named alike on every process, and a name of its own."""
        size = self.recipe.num_generations
        call = self._step if step is None else self._calls
        seen: Counter[str] = Counter()
        for place, row in enumerate(rows):
            if row.item is None:
                continue
            prompt = group_name(row.item)
            nth = seen[prompt] // size if size else 0  # a prompt that stands in a batch twice has two groups
            seen[prompt] += 1
            row.group = f"{prompt}.{call}.{nth}"
            name = f"{self._rank}.{place}.{_digest(row.item)}"
            row.item = replace(row.item, id=name, group=row.group, group_size=size, run=self._run, step=step)

    def _leave_out(self, rows: Sequence[_Row], cut: Sequence[bool]) -> None:
        """Settle what was cut. Where a group is split over processes it is judged all the same, so that nobody waits
        for it, and its reward is not used."""
        size = self.recipe.num_generations
        groups: dict[str, list[int]] = {}
        for place, row in enumerate(rows):
            groups.setdefault(row.group, []).append(place)
        for places in groups.values():
            left = sum(not cut[place] for place in places)
            whole = size is None or len(places) == size
            for place in places:
                row = rows[place]
                if cut[place]:
                    row.result = row.result or Rewarded(reward=None, reason=Reason.CUT_COMPLETION)
                    row.is_sent = not whole
                elif row.item is not None and whole and size is not None:
                    row.item = replace(row.item, group_size=left)


@dataclass(slots=True, kw_only=True)
class _Row:
    """One completion on its way."""

    length: int
    item: RewardItem | None = None
    group: str = ""
    is_sent: bool = True
    result: Rewarded | None = None
    """What is settled already, whatever the judge says."""


def _characters(completion: Any) -> int:
    return len(completion) if isinstance(completion, str) else sum(len(str(turn)) for turn in completion)


def _digest(item: RewardItem) -> str:
    """A step that is run again after a restart has members of its own."""
    return hashlib.sha256(repr(item.completion).encode("utf-8", "replace")).hexdigest()[:8]


def _run_name() -> str:
    """What all processes of one launch share; a name at random where there is one process."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return secrets.token_hex(8)
    launch = ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID")
    return ":".join(os.environ.get(name, "") for name in launch)
