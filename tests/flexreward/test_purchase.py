import json
from math import inf

from hypothesis import given
from hypothesis import strategies as st

from flexreward.engines.base import Prompt, Sampling, Turn
from flexreward.ledger.purchase import Purchase, decode, encode, name_of
from flexreward.types import Reason, Reply, TokenLogprob, Unscored

text = st.text(st.characters())  # lone surrogates too
turns = st.lists(st.builds(Turn, st.sampled_from(["user", "assistant"]), text), max_size=2).map(tuple)
prompts = st.builds(Prompt, system=text, user=text, prefix=text, turns=turns)
logprobs = st.floats(max_value=0, allow_nan=False)
tokens = st.builds(
    TokenLogprob, text=text, logprob=logprobs, top=st.lists(st.tuples(text, logprobs), max_size=2).map(tuple)
)
replies = st.builds(
    Reply,
    text=text,
    index=st.integers(0, 9),
    finish_reason=st.sampled_from(["stop", "length"]),
    prompt_tokens=st.integers(0, 10**6),
    completion_tokens=st.integers(0, 10**6),
    logprobs=st.lists(tokens, max_size=2).map(tuple),
)
purchases = st.builds(
    Purchase,
    engine=st.dictionaries(text, text, max_size=3),
    prompt=prompts,
    sampling=st.builds(Sampling, temperature=st.floats(0, 2), seed=st.integers(0, 2**53 - 1), stop=st.just(("x", "y"))),
    replies=st.lists(replies, max_size=3).map(tuple),
    failure=st.none() | st.builds(Unscored, reason=st.sampled_from(Reason), detail=text),
)


@given(purchases)
def test_what_is_encoded_comes_back_as_it_was(purchase):
    assert decode(encode(purchase)) == purchase
    assert encode(decode(encode(purchase))) == encode(purchase)


def test_a_token_ruled_out_is_plain_json():
    reply = Reply(text="a", logprobs=(TokenLogprob(text="a", logprob=0.0, top=(("b", -inf),)),))
    prompt = Prompt(system="s", user="u")
    value = encode(Purchase(engine={}, prompt=prompt, sampling=Sampling(), replies=(reply,)))
    assert json.loads(value, parse_constant=lambda name: 1 / 0)["replies"][0]["logprobs"] == [["a", 0.0, [["b", None]]]]
    assert decode(value).replies == (reply,)


@given(prompts, prompts)
def test_prompts_share_a_name_only_if_they_are_equal(one, other):
    names = [name_of(prompt, source="s", namespace="") for prompt in (one, other)]
    assert (names[0].key == names[1].key) is (one == other)


def test_a_namespace_changes_the_key_and_not_the_seed():
    prompt = Prompt(system="s", user="u")
    names = [name_of(prompt, source="s", namespace=namespace) for namespace in ("", "a", "b")]
    assert len({name.key for name in names}) == 3
    assert len({name.seed for name in names}) == 1
