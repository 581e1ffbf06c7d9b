"""The bench of vLLM compares like with like."""

import warnings

import pytest

from flexreward.engines.base import Sampling


@pytest.mark.vllm
def test_the_bar_stands_beside_its_goal_and_both_sides_write_the_same_number_of_tokens(tmp_path):
    pytest.importorskip("vllm", reason="vLLM is not installed here", exc_type=ModuleNotFoundError)
    from flexreward.bench.vllm import measure, random_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # ``measure`` itself refuses rounds in which the two differ in any reply's length.
        found = measure(random_model(tmp_path / "m"), num_requests=4, rounds=2, sampling=Sampling(max_tokens=12))
    (bar,) = found.values()
    assert bar.goal == 0.95
    assert bar.n == 4
    assert 0 < bar.interval.low <= bar.value <= bar.interval.high
