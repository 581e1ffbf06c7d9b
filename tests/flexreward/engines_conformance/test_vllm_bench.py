"""The bench of vLLM compares like with like."""

import warnings

import pytest

from flexreward.engines.base import Sampling


@pytest.mark.vllm
def test_the_bar_stands_beside_its_goal_and_both_sides_write_the_same_number_of_tokens(tmp_path):
    pytest.importorskip("vllm", reason="vLLM is not installed here", exc_type=ModuleNotFoundError)
    from flexreward.bench.vllm import measure, measure_images, random_model, random_vl

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # ``measure`` itself refuses rounds in which the two differ in any reply's length.
        size = {"num_requests": 4, "rounds": 2, "sampling": Sampling(max_tokens=12)}
        found = measure(random_model(tmp_path / "text"), **size) | measure_images(random_vl(tmp_path / "vl"), **size)
    assert [bar.goal for bar in found.values()] == [0.95, 0.95]
    assert all(bar.n == 4 and 0 < bar.interval.low <= bar.value <= bar.interval.high for bar in found.values())
