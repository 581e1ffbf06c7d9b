"""verl: ``compute_score`` as its custom reward function.

    echo "from flexreward.adapters.verl import compute_score" > judge.py
    reward.custom_reward_function.path=judge.py
    reward.custom_reward_function.name=compute_score
    +reward.custom_reward_function.reward_kwargs.url=http://localhost:8000

verl asks for one sample at a time, and takes the keys of all samples from the first: they are always the same. It has
no word for an unscored sample: such a one has the mean of its group where the judge compares and so knows it, else
``neutral``, and ``unscored`` is 1. Watch ``unscored``: its mean is the share of rewards that are no rewards.

verl hands over no prompt. It is read from ``extra_info``, where the data set's preparation puts what it likes, and so
are ``images``, ``molecules``, ``rubric`` and ``reference``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flexreward.adapters.recipe import RewardRecipe, recipe_of
from flexreward.adapters.rows import item_of
from flexreward.adapters.source import Source, source_of
from flexreward.errors import RecipeError, SampleError, UserError
from flexreward.serving.contract import Rewarded, RewardItem
from flexreward.types import Reason

WHERE = "compute_score"
PROMPTS = ("prompt", "question", "problem", "query")
"""Where prompts are looked for in ``extra_info``."""

_sources: dict[tuple[RewardRecipe, asyncio.AbstractEventLoop], asyncio.Future[Source]] = {}
"""Of this process."""


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    reward_router_address: str | None = None,
    reward_model_tokenizer: Any = None,
    *,
    prompt_key: str = "",
    neutral: float = 0.5,
    **options: Any,
) -> dict[str, float]:
    """The reward of one completion under ``score``, and how it came about, always under the same keys.

    Args:
        ground_truth: Shown as the reference, by templates that have a slot for one, where ``extra_info`` has none.
        reward_router_address: verl's own model server, which is not asked; nor is ``reward_model_tokenizer``.
        prompt_key: Where in ``extra_info`` the prompt stands, text or messages.
        neutral: What stands for an unscored sample whose group has no mean.
        options: Those of ``flexreward.adapters.recipe.RewardRecipe``, such as ``url`` and ``num_generations``; without
            ``url`` and ``judge`` those of the recipe that FLEXREWARD_RECIPE names.

    Raises:
        UserError: At the first call the judge does not answer; or ``extra_info`` holds no prompt.
    """
    recipe = recipe_of(options, where=WHERE)
    info = dict(extra_info or {})
    prompt = _prompt(info, prompt_key)
    source = await _ready(recipe)
    try:
        item = _item(prompt, solution_str, ground_truth, info, recipe)
    except SampleError as error:
        return encode(Rewarded(reward=None, reason=Reason.REFUSED, detail=str(error)), neutral=neutral)
    return encode((await source.rewards([item]))[0], neutral=neutral)


def encode(found: Rewarded, *, neutral: float) -> dict[str, float]:
    """Finite numbers alone."""
    instead = neutral if found.group_mean is None else found.group_mean
    return {
        "score": instead if found.reward is None else found.reward,
        "unscored": float(found.reward is None),
        "flipped": float(found.flipped is True),
        "judge_tokens": float(found.tokens),
    }


async def _ready(recipe: RewardRecipe) -> Source:
    """The recipe's source, which was seen to answer; made ready once, however many ask for it at the start."""
    key = (recipe, asyncio.get_running_loop())
    if key not in _sources:
        _sources[key] = asyncio.ensure_future(_opened(recipe))
    try:
        return await asyncio.shield(_sources[key])
    except UserError:
        _sources.pop(key, None)
        raise


async def _opened(recipe: RewardRecipe) -> Source:
    source = source_of(recipe)
    await source.probe()
    return source


def _prompt(info: Mapping[str, Any], key: str) -> Any:
    for name in (key,) if key else PROMPTS:
        found: Any = info.get(name)
        if isinstance(found, str) and found:
            return found
        if hasattr(found, "__len__") and not isinstance(found, str | Mapping) and len(found):
            return [dict(turn) for turn in found]  # an array, where it comes out of a Parquet file
    expected = repr(key) if key else f"one of {', '.join(PROMPTS)}"
    raise RecipeError(
        f"{WHERE}: extra_info holds no prompt, expected {expected}; put it there when the data set is prepared, or "
        "name its place with reward_kwargs.prompt_key"
    )


def _item(prompt: Any, solution: str, truth: Any, info: dict[str, Any], recipe: RewardRecipe) -> RewardItem:
    """Raises SampleError where it cannot be shown."""
    plain = isinstance(truth, str | int | float) and not isinstance(truth, bool)
    columns = ({"reference": truth} if plain else {}) | info
    item = item_of(prompt, solution, columns, sees_thought=recipe.judge_sees == "all", where=WHERE)
    return replace(item, group_size=recipe.num_generations, run=recipe.run)
