"""Mol-LLaMA on vLLM: its LLaMA gets rows in place of molecules, the adapter is applied beside them."""

import asyncio
import warnings
from dataclasses import replace

import pytest

from flexreward.engines import vllm_start
from flexreward.engines.base import Sampling
from tests.flexreward.engines_conformance.conftest import CACHE

pytestmark = pytest.mark.vllm
GREEDY = Sampling(max_tokens=12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from tests.mol.conftest import tiny_mol_llama

    return tiny_mol_llama(tmp_path_factory.mktemp("mol") / "mol", hidden_size=128)  # heads of 32, as vLLM wants them


@pytest.fixture(scope="module")
def embedded(folder):
    from mol.engine import MolLlamaEngine

    engine = MolLlamaEngine(folder, workers=0)
    yield engine
    asyncio.run(engine.close())


@pytest.fixture(scope="module")
def on_vllm_too(folder, with_vllm):
    from mol.engine import MolLlamaEngine

    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(vllm_start, "cache_bytes", lambda memory: CACHE)
        warnings.simplefilter("ignore")  # what vLLM and its dependencies think of each other
        engine = MolLlamaEngine(folder, llm="vllm", workers=0)
    yield engine
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        asyncio.run(engine.close())


async def test_both_engines_write_the_same_tokens_with_the_adapter_beside_the_rows(embedded, on_vllm_too):
    from tests.mol.test_engine import PROMPTS, all_written

    found = await all_written(on_vllm_too, PROMPTS)
    assert found == await all_written(embedded, PROMPTS)
    assert len(set(found)) == len(PROMPTS)
    assert on_vllm_too.identity["lora"] == embedded.identity["lora"]
    assert on_vllm_too.queries is embedded.queries


async def test_tokens_that_were_never_trained_are_never_written_there_and_have_no_odds(embedded, on_vllm_too):
    from tests.mol.test_engine import PROMPTS

    sampling = Sampling(temperature=2.0, max_tokens=32, n=4, logprobs=20)
    replies = [reply async for reply in on_vllm_too.generate(PROMPTS[0], sampling)]
    assert not any(token in reply.text for reply in replies for token in ("<mol>", "[PAD]"))
    greedy = replace(GREEDY, logprobs=20)
    (ours,) = [reply async for reply in embedded.generate(PROMPTS[0], greedy)]
    (theirs,) = [reply async for reply in on_vllm_too.generate(PROMPTS[0], greedy)]
    assert [one.text for one in theirs.logprobs] == [one.text for one in ours.logprobs]
    assert [one.logprob for one in theirs.logprobs] == pytest.approx([one.logprob for one in ours.logprobs], abs=0.02)
    assert all(len(one.top) == 20 for one in theirs.logprobs)
    assert not any(text in ("<mol>", "[PAD]") for one in theirs.logprobs for text, _ in one.top)
