"""Routes in which other frameworks' own clients ask for rewards: one module each, and what they share in ``asking``.

a framework's JSON -> decode -> [RewardItem] -> Service.rewards -> [Rewarded] -> encode -> that framework's JSON

    OpenRLHF    POST /get_reward    {query, prompts, labels} -> {rewards, scores, extra_logs}
    slime       POST /remote_rm     {prompt, response, label} -> the reward itself
    verl        POST /classify      {model, input} -> {data: [{probs}]}
    NeMo Gym    POST /compare       {conversation_history, response_objs} -> {rewards, comparison_results, metrics}

What these cannot say is said in the URL: ``/get_reward?judge=strict&group_size=8``. None of them has a word for
"unscored": each sends a finite number in its place, and beside it, wherever the framework has room, that it is one.
"""

from __future__ import annotations

from fastapi import APIRouter

from flexreward.serving.contract import Service
from flexreward.serving.dialects import nemo_gym, openrlhf, slime, verl

NEUTRAL = 0.5


def routers(service: Service, *, neutral: float = NEUTRAL) -> list[APIRouter]:
    """The routes of all dialects.

    Args:
        neutral: What stands for an unscored completion whose group has no mean.
    """
    return [module.router(service, neutral=neutral) for module in (openrlhf, slime, verl, nemo_gym)]
