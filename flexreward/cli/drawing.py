"""Completions for a job: those of the file, or a policy's, drawn beside the judging."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from flexreward.cli import job as jobs
from flexreward.cli.options import SampledOptions
from flexreward.config import EngineRecipe, parse_as
from flexreward.errors import RecipeError
from flexreward.files.outcomes import Item
from flexreward.files.samples import Sample
from flexreward.policy.recipe import PolicyRecipe, resolve_policy
from flexreward.policy.sampled import read_sampled, sample_to_file

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
    failures: Counter[str] = field(default_factory=Counter)
    """Why prompts have no completions, of those that this run came by."""

    def first(self) -> Sample:
        """The first row; a prompt of which nothing is drawn yet has two texts in place of completions."""
        found = jobs.first_of(self.prompts())
        return replace(found, completions=("", "")) if self.recipe else found

    def read(self) -> Iterator[Sample]:
        """The samples, once all of them are drawn."""
        if self.recipe is None:
            return self.prompts()
        return read_sampled(self.prompts(), self.path, system=self.recipe.system)

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
        items_of: Callable[[Iterable[Sample]], Iterator[Item]],
        out: Path,
    ) -> jobs.Done:
        """Judge all items of all samples (see ``flexreward.cli.job.judge_into``), each sample as it is drawn.

        Args:
            items_of: Of one sample, what is to be judged; of several, one after the other.
        """
        if self.recipe is None:
            return jobs.judge_into(job, opened, lambda: items_of(self.read()), out)
        policy, shared = self.policy(opened)
        total = _most(policy.num_completions, items_of, self.first()) * sum(1 for _ in self.prompts())

        async def items() -> AsyncIterator[Item]:
            drawn = sample_to_file(policy, self.prompts(), self.path, overwrite=job.overwrite)
            try:
                async with aclosing(cast(Any, drawn)) as stream:
                    async for one in stream:
                        if one.failure:
                            self.failures[one.failure.reason] += 1
                        else:
                            for item in items_of([one.sample]):
                                yield item
            finally:
                if not shared:
                    await policy.engine.close()

        return jobs.judge_into(job, opened, items, out, total=total)

    def lines(self) -> list[str]:
        """What became of the prompts, for a terminal."""
        if self.recipe is None:
            return []
        lines = [f"completions of the policy {self.recipe.model}: {self.path}"]
        return lines + [f"  {count:>7}  prompts have none, {reason}" for reason, count in self.failures.most_common()]


def _most(count: int, items_of: ItemsOf, sample: Sample) -> int:
    """Items of a prompt, where no two completions are alike."""
    return sum(1 for _ in items_of([replace(sample, completions=tuple(map(str, range(count))))]))


def _part(recipe: EngineRecipe) -> dict[str, Any]:
    return {name: getattr(recipe, name) for name in SHARED}
