"""The domain: problems are what they say, wrong answers are wrong and near, the training never sees what is asked."""

import json
import random
from itertools import islice
from pathlib import Path

import pytest

from recipes.tiny import domain, measure

RECIPE = Path(__file__).parents[2] / "recipes" / "tiny"


def some(kind: str, number: int = 300) -> list[domain.Problem]:
    return list(islice(domain.problems(random.Random(kind), held_out=False, kinds=(kind,)), number))


@pytest.mark.parametrize("kind", ["add", "subtract"])
def test_the_answer_to_a_sum_is_what_python_makes_of_it(kind):
    for problem in some(kind):
        a, sign, b = problem.question.removeprefix("What is ").removesuffix("?").split()
        assert int(problem.answer) == (int(a) + int(b) if sign == "+" else int(a) - int(b))


def test_the_other_kinds_answer_what_they_ask():
    for p in some("sort"):
        assert p.answer == "".join(sorted(p.question.split()[1].rstrip(".")))
    for p in some("reverse"):
        assert p.answer == p.question.split()[1][::-1]
    for p in some("compare"):
        first, second = p.question.removeprefix("Which is larger, ").rstrip("?").split(" or ")
        assert int(p.answer) == max(int(first), int(second))
        assert first != second
    for p in some("count"):
        words = p.question.rstrip("?").split()
        assert int(p.answer) == words[-1].count(words[3])
    for p in some("filter"):
        words = p.question.rstrip("?").split()
        assert p.answer == "".join(d for d in words[3] if d > words[-1])
        assert p.answer


def test_every_step_of_the_work_is_true():
    for kind in ("add", "subtract", "story"):
        for p in some(kind, 100):
            for step in p.work.rstrip(".").split(": ")[1].split(", "):
                left, right = step.split("=")
                assert eval(left, {}) == int(right), p.work  # noqa: S307  # digits and signs of our own making
    for p in some("filter", 100):
        for step in p.work.rstrip(".").split(", "):
            assert (int(step[0]) > int(step[2])) == (step[1] == ">")


def test_a_near_miss_is_wrong_and_near():
    rng = random.Random(0)
    for kind in domain.KINDS:
        for p in some(kind, 100):
            miss = domain.near_miss(p.answer, rng)
            assert miss != p.answer
            assert miss.isdigit()
            assert abs(int(miss) - int(p.answer)) in (1, 10) or sorted(miss) == sorted(p.answer)
            assert domain.slip(p.answer, rng) != p.answer


def test_training_and_held_out_problems_never_meet():
    seen = {p.question for kind in domain.KINDS for p in some(kind)}
    asked = {p.question for p in measure.held_out(400, seed=1)}
    assert len(asked) == 400
    assert not seen & asked


def test_no_canary_is_ever_trained_on():
    rng = random.Random(0)
    taught = {domain.completion(p, rng, empty=0.5).text for kind in domain.KINDS for p in some(kind, 200)}
    assert not taught & set(measure.CANARIES[1:])


def test_the_example_is_a_held_out_problem_with_a_right_and_a_wrong_completion():
    example = json.loads((RECIPE / "example.json").read_text())
    assert example.keys() == {"prompt", "right", "wrong"}
    assert domain.Problem(kind="", question=example["prompt"], work="", answer="").held_out
    first, second = (int(word) for word in example["prompt"].replace(".", "").split() if word.isdigit())
    assert int(domain.answer_in(example["right"])) == first + second
    assert domain.answer_in(example["right"]) != domain.answer_in(example["wrong"])
