"""TRL: ``judge_reward`` for GRPOTrainer, RLOOTrainer and AsyncGRPOTrainer, ``judge_reward_pairs`` for OnlineDPOTrainer.

    GRPOTrainer(reward_funcs=functools.partial(judge_reward, url="http://localhost:8000"), ...)
    FLEXREWARD_RECIPE=reward.yaml trl grpo --reward_funcs flexreward.adapters.trl.judge_reward ...

A partial of a coroutine function pickles, and TRL awaits it beside the other reward functions. ``None`` is a completion
without a score: GRPO and RLOO leave it out of its group (TRL 1.16 and newer). TRL calls reward functions without a
timeout and without a guard, so nothing here outlasts its deadline, and what is raised stops the training on purpose: at
the first batch, when the judge does not answer; later, when nothing was scored for three steps.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from flexreward.adapters.recipe import FIELDS, RewardRecipe, recipe_of
from flexreward.adapters.training import Batch, Judged, Training
from flexreward.errors import UserError

log = logging.getLogger(__name__)

Rewards = list[float | None]

_trainings: dict[tuple[str, RewardRecipe], Training] = {}
"""Of this process. A reward function that pickles cannot hold them."""


async def judge_reward(
    prompts: Sequence[Any],
    completions: Sequence[Any],
    completion_ids: Sequence[Sequence[int]] | None = None,
    trainer_state: Any = None,
    log_extra: Callable[[str, list[Any]], None] | None = None,
    log_metric: Callable[[str, float], None] | None = None,
    **more: Any,
) -> Rewards:
    """A reward in [0, 1] for each completion; ``None`` where there is none.

    Args:
        more: The options of ``flexreward.adapters.recipe.RewardRecipe``, given through ``functools.partial``; without
            ``url`` and ``judge`` they are those of the recipe that FLEXREWARD_RECIPE names. All else are columns of the
            data set: ``rubric``, ``reference``, ``molecules``, ``image``, ``images``, ... are shown to the judge.

    Raises:
        UserError: The training is to be stopped; one line that says why.
    """
    return (
        await _judged("judge_reward", prompts, completions, completion_ids, trainer_state, log_extra, log_metric, more)
    ).rewards


def judge_reward_pairs(
    prompts: Sequence[Any],
    completions: Sequence[Any],
    completion_ids: Sequence[Sequence[int]] | None = None,
    trainer_state: Any = None,
    log_extra: Callable[[str, list[Any]], None] | None = None,
    log_metric: Callable[[str, float], None] | None = None,
    **more: Any,
) -> Rewards:
    """As ``judge_reward``, for OnlineDPOTrainer, which calls without awaiting and takes ``None`` for 0.

    It hands over the first completions of all prompts, then the second ones. Where one of a pair has no reward, neither
    gets one: a completion must not lose because nobody could judge the other. TRL then takes the first for the chosen
    one, as with any tie; how many pairs that were is said in the log.
    """
    work = _judged(
        "judge_reward_pairs", prompts, completions, completion_ids, trainer_state, log_extra, log_metric, more
    )
    with ThreadPoolExecutor(1) as other:  # the caller's thread may run a loop already, as in a notebook
        rewards = other.submit(asyncio.run, work).result().rewards
    half, odd = divmod(len(rewards), 2)
    if odd or list(prompts[:half]) != list(prompts[half:]):
        raise UserError("judge_reward_pairs: expected each prompt twice, as OnlineDPOTrainer calls; use judge_reward")
    pairs = [(rewards[i], rewards[i + half]) for i in range(half)]
    kept = [pair if None not in pair else (None, None) for pair in pairs]
    if unscored := sum(None in pair for pair in kept):
        log.warning("judge_reward_pairs: %d of %d pairs without a score, trained on as ties", unscored, half)
    return [first for first, _ in kept] + [second for _, second in kept]


def options_of(config: Any, tokenizer: Any) -> dict[str, Any]:
    """What a trainer's configuration says that its calls do not: ``partial(judge_reward, url=..., **options_of(...))``.

    Args:
        config: A GRPOConfig, RLOOConfig, AsyncGRPOConfig or OnlineDPOConfig.
        tokenizer: The policy's.
    """
    ends = {tokenizer.eos_token_id, tokenizer.pad_token_id} - {None}
    length = getattr(config, "max_completion_length", None) or getattr(config, "max_new_tokens", None)
    return {
        "num_generations": getattr(config, "num_generations", 2),
        "max_completion_length": length,
        "eos_token_ids": tuple(sorted(ends)),
    }


async def probe(**options: Any) -> None:
    """See before a trainer is made that the judge answers; ``options`` as for ``judge_reward``.

    Raises:
        UserError: It does not; one line that says what to do.
    """
    await _training("judge_reward", options).probe()


async def _judged(
    name: str,
    prompts: Sequence[Any],
    completions: Sequence[Any],
    completion_ids: Sequence[Sequence[int]] | None,
    trainer_state: Any,
    log_extra: Callable[[str, list[Any]], None] | None,
    log_metric: Callable[[str, float], None] | None,
    more: dict[str, Any],
) -> Judged:
    options = {field: value for field, value in more.items() if field in FIELDS}
    count = len(prompts)
    columns = {
        column: values
        for column, values in more.items()
        if column not in FIELDS and isinstance(values, Sequence) and len(values) == count
    }
    training = _training(name, options)
    batch = Batch(
        prompts=prompts,
        completions=completions,
        completion_ids=completion_ids,
        columns=columns,
        step=None if trainer_state is None else trainer_state.global_step,
    )
    judged = await training.judge(batch)
    prefix = training.recipe.name
    if log_metric is not None:
        for figure, value in judged.figures.items():
            log_metric(f"{prefix}/{figure}", value)
    if log_extra is not None:
        log_extra(f"{prefix}_reasoning", [result.reasoning for result in judged.results])
        log_extra(f"{prefix}_unscored", [result.reason.value if result.reason else "" for result in judged.results])
    return judged


def _training(name: str, options: dict[str, Any]) -> Training:
    recipe = recipe_of(options, where=name)
    key = (name, recipe)
    if key not in _trainings:
        _trainings[key] = Training(recipe, where=name)
    return _trainings[key]
