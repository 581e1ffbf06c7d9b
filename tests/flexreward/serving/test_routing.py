"""Which copy gets a request."""

from __future__ import annotations

import random

from flexreward.engines.base import Placed, Prompt
from flexreward.engines.ray import SHARED, key_of
from flexreward.serving.routing import ordered
from flexreward.types import Media


def test_a_request_goes_where_its_key_belongs_while_that_copy_is_not_busier_than_the_others_allow():
    assert ordered(["a", "b", "c"], {"a": 0, "b": 0, "c": 0}) == ["a", "b", "c"]
    assert ordered(["a", "b", "c"], {"a": 4, "b": 3, "c": 3}) == ["a", "b", "c"]


def test_a_copy_that_is_too_busy_is_passed_over_and_asked_last():
    assert ordered(["a", "b", "c"], {"a": 9, "b": 1, "c": 0}) == ["b", "c", "a"]


def test_one_copy_gets_everything():
    assert ordered(["a"], {"a": 1000}) == ["a"]


def test_no_copy_ever_has_more_than_its_bound_when_one_key_is_asked_for_all_the_time():
    loads = dict.fromkeys("abcd", 0)
    for number in range(1, 400):
        loads[ordered(list("abcd"), loads)[0]] += 1
        assert max(loads.values()) <= 1.25 * number / 4 + 1


def test_whatever_ends_meanwhile_keys_stay_where_they_belong_under_an_even_load():
    draw = random.Random(0)
    loads = dict.fromkeys("abcd", 10)
    rings = ["abcd", "bcda", "cdab", "dabc"]
    at_home = 0
    for _ in range(2000):
        ring = list(draw.choice(rings))
        first = ordered(ring, loads)[0]
        at_home += first == ring[0]
        loads[first] += 1
        loads[draw.choice([one for one in loads if loads[one]])] -= 1
    assert at_home > 1000


def test_completions_of_one_prompt_have_one_key_and_other_prompts_others():
    token = SHARED.set("one prompt")
    first, second = key_of(Prompt(system="s", user="a")), key_of(Prompt(system="s", user="b"))
    SHARED.reset(token)
    assert first == second
    assert key_of(Prompt(system="s", user="a")) != key_of(Prompt(system="s", user="b"))


def test_prompts_that_show_the_same_image_have_one_key():
    image = (Placed(0, Media(kind="image", data=b"x")),)
    other = (Placed(0, Media(kind="image", data=b"y")),)
    assert key_of(Prompt(system="s", user="a", media=image)) == key_of(Prompt(system="s", user="b", media=image))
    assert key_of(Prompt(system="s", user="a", media=image)) != key_of(Prompt(system="s", user="a", media=other))
