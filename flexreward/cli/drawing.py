"""Completions for a job: those of the file, or a policy's, drawn beside the judging."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from flexreward.cli import job as jobs
from flexreward.cli.options import SampledOptions
from flexreward.config import EngineRecipe, parse_as
from flexreward.errors import RecipeError, SampleError
from flexreward.files.outcomes import Item
from flexreward.files.samples import Sample
from flexreward.policy.recipe import PolicyRecipe, resolve_policy
from flexreward.policy.sampled import FIELDS, read_sampled, sample_to_file
from flexreward.right import Right, right_named
from flexreward.templates.text import as_text
from flexreward.types import Text

if TYPE_CHECKING:
    from flexreward.policy.policy import Policy

ItemsOf = Callable[[Iterable[Sample]], Iterator[Item]]

SHARED = ("model", "engine", "dtype", "attention", "batch_size", "device", "media", "options")
"""Policy and judge that agree in these are one model, which is loaded once."""


def policy_recipe(job: SampledOptions, **defaults: Any) -> PolicyRecipe | None:
    """The policy's recipe with what the flags change, or ``None`` where none is asked for.

    Args:
        defaults: What the command takes where neither recipe nor flag says it.

    Raises:
        RecipeError: It is wrong, or a flag of a policy stands without ``--policy``.
    """
    flags = {
        "temperatures": _temperatures(job.temperatures),
        "completions": job.completions,
        "max_tokens": job.max_completion_tokens,
        "seed": job.policy_seed,
    }
    changes = {name: value for name, value in flags.items() if value is not None}
    if job.policy is None:
        if changes:
            raise RecipeError("--temperatures, --completions, --max-completion-tokens, --policy-seed: need a --policy")
        return None
    recipe = resolve_policy(job.policy)
    said = recipe.model_dump(exclude_unset=True) | {"model": recipe.model}
    return parse_as(PolicyRecipe, defaults | said | changes, f"the policy {job.policy}")


def source_of(job: SampledOptions, recipe: PolicyRecipe | None, path: Path, *, reserved: Collection[str]) -> Source:
    """Where the samples come from.

    Args:
        path: For what a policy draws.
        reserved: Columns that the output has of its own.

    Raises:
        RecipeError: ``--right`` is wrong, or stands without a policy.
    """
    if job.right is not None and recipe is None:
        raise RecipeError("--right: tells of completions that a --policy draws; of others give the column, and --truth")
    own = {*FIELDS, "right"} if recipe else ()

    def prompts() -> Iterator[Sample]:
        return jobs.read(job, reserved={*reserved, *own}, completed=recipe is None)

    return Source(
        prompts=prompts, recipe=recipe, path=path, right=right_named(job.right, "--right") if job.right else None
    )


def _temperatures(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise RecipeError(f"--temperatures {text}: expected numbers between commas, such as 0.8,1.2") from error


@dataclass(slots=True, kw_only=True)
class Source:
    """Where the samples of a job come from.

    Args:
        prompts: Reads the rows of the file: whole samples, or prompts where there is a policy.
        recipe: The policy's.
        path: What the policy draws is kept there.
    """

    prompts: Callable[[], Iterator[Sample]]
    recipe: PolicyRecipe | None
    path: Path
    right: Right | None = None
    """Tells whether a completion that was drawn is right, for the column ``right``."""
    failures: Counter[str] = field(default_factory=Counter)
    """Why prompts have no completions, of those that this run came by."""

    def first(self) -> Sample:
        """The first row; a prompt of which nothing is drawn yet has two texts in place of completions."""
        found = jobs.first_of(self.prompts())
        if self.recipe is None:
            return found
        return self._stand_in(found, 2)

    def read(self) -> Iterator[Sample]:
        """The samples, once all of them are drawn."""
        if self.recipe is None:
            return self.prompts()
        return map(self.told, read_sampled(self.prompts(), self.path, system=self.recipe.system))

    def draw(self, job: SampledOptions, opened: jobs.Opened) -> None:
        """All completions, before anything is judged; nothing where there is no policy."""
        if self.recipe is None:
            return

        async def run() -> None:
            async with aclosing(cast(Any, self._drawn(job, opened))) as drawn:
                async for _ in drawn:
                    pass

        try:
            asyncio.run(run())
        except KeyboardInterrupt:
            print(
                f"flexreward: interrupted; {self.path} keeps what was drawn: run the same again to go on",
                file=sys.stderr,
            )
            raise

    def policy(self, opened: jobs.Opened) -> tuple[Policy, bool]:
        """The policy, and whether its model is the judge's, which is then loaded once."""
        from flexreward.policy.policy import Policy

        assert self.recipe is not None
        shared = _part(self.recipe) == _part(opened.recipe)
        return Policy(self.recipe, engine=opened.engine if shared else None, ledger=opened.ledger), shared

    def judge_into(
        self,
        job: SampledOptions,
        opened: jobs.Opened,
        items_of: ItemsOf,
        out: Path,
        **more: Any,
    ) -> jobs.Done:
        """Judge all items of all samples (see ``flexreward.cli.job.judge_into``), each sample as it is drawn.

        Args:
            items_of: Of one sample, what is to be judged; of several, one after the other.
            more: As ``flexreward.cli.job.judge_into`` takes it.
        """
        if self.recipe is None:
            return jobs.judge_into(job, opened, lambda: items_of(self.read()), out, **more)
        count = self.recipe.completions * len(self.recipe.temperatures)
        most = sum(1 for _ in items_of([self._stand_in(jobs.first_of(self.prompts()), count)]))
        total = most * sum(1 for _ in self.prompts())

        async def items() -> AsyncIterator[Item]:
            async with aclosing(cast(Any, self._drawn(job, opened))) as drawn:
                async for sample in drawn:
                    for item in items_of([sample]):
                        yield item

        return jobs.judge_into(job, opened, items, out, total=total, **more)

    async def _drawn(self, job: SampledOptions, opened: jobs.Opened) -> AsyncIterator[Sample]:
        """The samples as they are drawn, those without completions left out and counted."""
        policy, shared = self.policy(opened)
        try:
            drawn = sample_to_file(policy, self.prompts(), self.path, overwrite=job.overwrite)
            async with aclosing(cast(Any, drawn)) as stream:
                async for one in stream:
                    if one.failure:
                        self.failures[one.failure.reason] += 1
                    else:
                        yield self.told(one.sample)
        finally:
            if not shared:
                await policy.engine.close()

    def _stand_in(self, prompt: Sample, count: int) -> Sample:
        """A prompt with so many texts that differ in place of completions."""
        return self.told(replace(prompt, completions=tuple(map(str, range(count)))))

    def told(self, sample: Sample) -> Sample:
        """With whether each completion is right."""
        if self.right is None:
            return sample
        if sample.reference is None:
            raise SampleError(f"{sample.where}: has no reference, which --right compares completions with")
        texts = [as_text(text, role="assistant", sees="final") for text in cast(tuple[Text, ...], sample.completions)]
        right = [self.right(text, sample.reference) for text in texts]
        return replace(sample, extra={**sample.extra, "right": right})

    def lines(self) -> list[str]:
        """What became of the prompts, for a terminal."""
        if self.recipe is None:
            return []
        lines = [f"completions of the policy {self.recipe.model}: {self.path}"]
        return lines + [f"  {count:>7}  prompts have none, {reason}" for reason, count in self.failures.most_common()]


def _part(recipe: EngineRecipe) -> dict[str, Any]:
    return {name: getattr(recipe, name) for name in SHARED}
