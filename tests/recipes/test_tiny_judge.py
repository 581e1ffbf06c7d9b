"""The bundled judge judges: every bar is measured here by running the model on problems that no training has seen."""

import pytest

from flexreward.config import BUNDLED
from flexreward.engines import load_engine
from recipes.tiny import measure

SEED = 0


@pytest.fixture(scope="module")
def judge_model():
    return BUNDLED / "tiny-judge"


@pytest.fixture
async def judge(judge_model):
    engine = load_engine("transformers", model=str(judge_model), threads=1)
    yield engine
    await engine.close()


@pytest.fixture
async def policy():
    engine = load_engine("transformers", model=str(BUNDLED / "tiny-policy"), threads=1)
    yield engine
    await engine.close()


def test_both_models_together_are_small():
    sizes = [path.stat().st_size for name in ("tiny-judge", "tiny-policy") for path in (BUNDLED / name).iterdir()]
    assert sum(sizes) <= 25 * 2**20


async def test_a_right_answer_beats_a_near_miss_in_both_orders(judge):
    figures = await measure.pairwise(judge, measure.held_out(24, seed=SEED), seed=SEED)
    assert figures["parse_rate"] == 1.0
    assert figures["right_in_both_orders"] >= 0.8


@pytest.mark.slow
async def test_pairwise_bars(judge):
    figures = await measure.pairwise(judge, measure.held_out(160, seed=SEED), seed=SEED)
    assert figures["parse_rate"] >= 0.99
    assert figures["right_shown_first"] >= 0.95
    assert figures["right_shown_second"] >= 0.95
    assert figures["right_in_both_orders"] >= 0.93
    assert figures["equal_completions_tie"] >= 0.99


@pytest.mark.slow
async def test_pointwise_bars(judge):
    figures = await measure.pointwise(judge, measure.held_out(160, seed=SEED), seed=SEED)
    assert figures["parse_rate"] >= 0.99
    assert figures["auroc"] >= 0.95


@pytest.mark.slow
async def test_a_corrupted_thought_changes_the_verdict(judge):
    figures = await measure.corrupted_thoughts(judge, measure.held_out(80, seed=SEED), seed=SEED)
    assert figures["tried"] >= 70
    assert figures["verdict_changed"] >= 0.90


@pytest.mark.slow
async def test_canaries_do_not_beat_a_right_answer(judge):
    figures = await measure.canaries(judge, measure.held_out(100, seed=SEED))
    assert figures["beats_right"] <= 0.01


@pytest.mark.slow
async def test_the_policy_is_right_about_half_of_the_time(policy):
    figures = await measure.policy(policy, measure.held_out(240, seed=SEED), samples=8, temperature=1.0)
    assert 0.4 <= figures["sampled"] <= 0.6
    assert figures["greedy"] <= 0.75
