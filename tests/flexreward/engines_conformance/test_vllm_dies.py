"""What becomes of a judge whose vLLM is gone: every request ends, and none of them in a score."""

import asyncio
from dataclasses import replace

import pytest

from flexreward.engines.base import Prompt, Sampling
from flexreward.errors import EngineError
from flexreward.judge import Judge
from flexreward.reward import rewards
from flexreward.templates import load_template
from flexreward.types import JudgeRequest, Reason, Unscored

pytestmark = pytest.mark.vllm

PAIR = JudgeRequest(prompt="Which?", completions=("this", "that"))
LONG = Sampling(temperature=1.0, max_tokens=380, n=2)


async def test_a_vllm_that_is_killed_ends_every_request_unscored_and_hangs_nobody(qwen, on_vllm):
    engine = on_vllm(qwen)
    short = Prompt(system="s", user="u")
    await anext(engine.generate(short, Sampling(max_tokens=1)))
    judge = Judge(engine, replace(load_template("pair"), system="Score both 1-10."), sampling=LONG, votes=4)
    under_way = asyncio.create_task(judge.judge(PAIR))
    await asyncio.sleep(0.1)
    assert not under_way.done()
    for process in engine._llm.engine_core.resources.engine_manager.processes:
        process.kill()
    judgment = await asyncio.wait_for(under_way, timeout=30)
    assert isinstance(judgment.outcome, Unscored)
    assert judgment.outcome.reason is Reason.ENGINE
    assert rewards(judgment) == (None, None)
    with pytest.raises(EngineError, match="vLLM's process has ended; start the judge again"):
        await asyncio.wait_for(anext(engine.generate(short, LONG)), timeout=30)
    await engine.close()
