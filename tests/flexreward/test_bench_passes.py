"""The bench of a vote against passes asks both sides for the same."""

import pytest

from flexreward.bench import passes


def test_no_pair_is_of_equal_answers_and_there_are_as_many_as_asked_for():
    made = passes.pairs(64)
    assert len({(request.prompt, request.completions) for request in made}) == 64
    assert all(request.completions[0] != request.completions[1] for request in made)


@pytest.mark.slow
def test_the_embedded_engines_bars_stand_and_every_verdict_is_that_of_the_full_vote():
    bars = passes.on_transformers(num_requests=4, rounds=1)
    assert bars["transformers_verdicts_equal_to_the_full_vote"].value == 1
    assert 0.5 < bars["transformers_share_of_votes_read"].value < 1
    assert all(bar.n == 4 and bar.value > 0 for bar in bars.values())
