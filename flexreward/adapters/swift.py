"""ms-swift: a reward class for ``--external_plugins``, whose file holds

    from swift.rewards import orms
    from flexreward.adapters.swift import JudgeReward

    orms["judge"] = JudgeReward

and ``--reward_funcs judge``, with FLEXREWARD_RECIPE in the environment. ms-swift runs every step in an event loop of
its own; nothing here outlives one. ``None`` is a completion without a score, and ms-swift leaves it out where it has
another reward for the same completion; where it has none, it would count 0. So where this is the only reward function,
the mean of the group stands for what is unscored, and the log says how many that were.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from flexreward.adapters.recipe import FIELDS, recipe_of
from flexreward.adapters.training import Batch, Training
from flexreward.serving.contract import Rewarded

NEUTRAL = 0.5
log = logging.getLogger(__name__)


class JudgeReward:
    """ms-swift makes it with its arguments and calls it with the completions and columns of a step.

    Args:
        args: ms-swift's; ``num_generations`` and ``max_completion_length`` are read, and ``reward_funcs``.
        alone: Whether no other reward function stands beside it; by default as ``args`` has it.
        options: Those of ``flexreward.adapters.recipe.RewardRecipe``; without ``url`` and ``judge`` those of the recipe
            that FLEXREWARD_RECIPE names.

    Raises:
        RecipeError: No judge is named, or an option is wrong.
    """

    __name__ = "JudgeReward"

    def __init__(self, args: Any = None, *, alone: bool | None = None, **options: Any) -> None:
        named = {field: getattr(args, field, None) for field in ("num_generations", "max_completion_length")}
        known = {field: value for field, value in named.items() if isinstance(value, int)}
        self._recipe = recipe_of(known | options, where=self.__name__)
        functions = getattr(args, "reward_funcs", None) or ()
        models = getattr(args, "reward_model", None) or ()
        self._alone = len(functions) == 1 and not models if alone is None else alone
        self._training: Training | None = None

    async def __call__(self, completions: Sequence[Any], **columns: Any) -> list[float | None]:
        """A reward in [0, 1] for each completion.

        Args:
            columns: Of the data set. The prompt is ``messages`` without the completion that ends them.

        Raises:
            UserError: The training is to be stopped; one line that says why.
        """
        if self._training is None:  # in the process that trains, which may not be the one that made it
            self._training = Training(self._recipe, where=self.__name__)
        state = columns.pop("trainer_state", None)
        lists = {
            name: values
            for name, values in columns.items()
            if name not in FIELDS and isinstance(values, Sequence) and len(values) == len(completions)
        }
        messages = lists.pop("messages", None) or lists.pop("prompts", None) or [""] * len(completions)
        prompts = [_prompt(turns) for turns in messages]
        step = getattr(state, "global_step", None)
        batch = Batch(prompts=prompts, completions=completions, columns=lists, step=step)
        judged = await self._training.judge(batch)
        unscored = sum(reward is None for reward in judged.rewards)
        if unscored:
            log.warning("%s: %d of %d completions without a score", self.__name__, unscored, len(completions))
        if not self._alone or not unscored:
            return list(judged.rewards)
        return list(filled(judged.results, [repr(prompt) for prompt in prompts]))


def filled(found: Sequence[Rewarded], prompts: Sequence[str]) -> list[float]:
    """The rewards, with the mean of its group for each that is unscored; of equal prompts here, if the judge did not
    say it; and with 0.5 where nothing of a group is scored."""
    known: dict[str, list[float]] = defaultdict(list)
    for one, prompt in zip(found, prompts, strict=True):
        if one.reward is not None:
            known[prompt].append(one.reward)

    def mean(one: Rewarded, prompt: str) -> float:
        if one.group_mean is not None:
            return one.group_mean
        return sum(known[prompt]) / len(known[prompt]) if known[prompt] else NEUTRAL

    return [mean(one, p) if one.reward is None else one.reward for one, p in zip(found, prompts, strict=True)]


def _prompt(turns: Any) -> Any:
    """Messages without the completion, which ms-swift puts at their end."""
    if not isinstance(turns, list) or not turns:
        return turns
    last = turns[-1]
    return turns[:-1] if isinstance(last, dict) and last.get("role") == "assistant" else turns
