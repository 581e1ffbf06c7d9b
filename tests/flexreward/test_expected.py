import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexreward.engines.base import Capabilities, Sampling
from flexreward.engines.scripted import ScriptedEngine
from flexreward.errors import RecipeError
from flexreward.expected import TOP, expectations
from flexreward.judge import Judge
from flexreward.templates import load_template
from flexreward.types import JudgeRequest, Reason, Reply, Scale, TokenLogprob, Unscored

TEN, HUNDRED, UNIT = Scale(low=1, high=10), Scale(low=0, high=100), Scale(low=0, high=1)


def token(text: str, chance: float = 1.0) -> TokenLogprob:
    """A token without alternatives."""
    return told(text, chance, {})


def told(text: str, chance: float, others: dict[str, float]) -> TokenLogprob:
    listed = sorted({text: chance, **others}.items(), key=lambda item: -item[1])
    return TokenLogprob(
        text=text, logprob=math.log(chance), top=tuple((other, math.log(p) if p else -math.inf) for other, p in listed)
    )


def reply(*number: TokenLogprob, before: str = "<think>x</think><answer>", after: str = "answer>") -> Reply:
    """The tokens of an answer's number with what ends it, in a reply."""
    tokens = (token(before), *number, token(after))
    return Reply(text="".join(one.text for one in tokens), logprobs=tokens)


def one(made: Reply, scale: Scale = TEN):
    found = expectations(made, scale=scale, reasoning="first")
    assert found is not None
    (only,) = found
    return only


def test_a_score_is_weighted_by_how_likely_each_number_was():
    found = one(reply(told("8", 0.5, {"7": 0.3, "9": 0.15, "x": 0.05}), token("</")))
    assert found.score == pytest.approx((8 * 0.5 + 7 * 0.3 + 9 * 0.15) / 0.95)
    assert found.known == pytest.approx(0.95)


def test_ten_is_two_tokens_and_a_one_that_ends_there_is_a_one():
    found = one(reply(told("1", 0.6, {"9": 0.4}), told("0", 0.75, {"</": 0.25}), token("</")))
    assert found.score == pytest.approx(10 * 0.6 * 0.75 + 1 * 0.6 * 0.25 + 9 * 0.4)
    assert found.known == pytest.approx(1)


def test_a_one_that_could_become_a_ten_is_nobodys():
    found = one(reply(told("9", 0.6, {"1": 0.3, "8": 0.1}), token("</")))
    assert found == (pytest.approx((9 * 0.6 + 8 * 0.1) / 0.7), pytest.approx(0.7))


def test_decimals_are_walked_to_their_end():
    number = (told("3", 0.8, {"4": 0.2}), told(".", 0.5, {"</": 0.5}), told("5", 0.9, {"2": 0.1}), token("</"))
    found = one(reply(*number))
    assert found.score == pytest.approx(4 * 0.2 + 3 * 0.4 + 3.5 * 0.36 + 3.2 * 0.04)
    assert found.known == pytest.approx(1)


def test_what_is_no_number_or_off_the_scale_is_left_out():
    others = {"no": 0.1, "0": 0.1, "7": 0.2, "-": 0.05, "8x": 0.02, "６": 0.03}
    found = one(reply(told("8", 0.5, others), token("</")))
    assert found == (pytest.approx((8 * 0.5 + 7 * 0.2) / 0.7), pytest.approx(0.7))


def test_tokens_may_hold_more_than_the_number():
    found = one(reply(told(">8</", 0.5, {">7</": 0.25, ">": 0.125, "> 6": 0.125}), before="<think>x</think><answer"))
    assert found == (pytest.approx((8 * 0.5 + 7 * 0.25 + 6 * 0.125) / 0.875), pytest.approx(0.875))
    found = one(reply(told(" 8", 0.5, {" 7": 0.25, "6": 0.25}), token("</")))
    assert found == (pytest.approx(8 * 0.5 + 7 * 0.25 + 6 * 0.25), pytest.approx(1))


def test_on_a_scale_to_a_hundred_single_digits_off_the_path_are_nobodys_and_last_digits_count():
    found = one(reply(told("8", 0.5, {"7": 0.5}), told("5", 0.5, {"4": 0.25, "</": 0.25}), token("</")), HUNDRED)
    assert found == (pytest.approx((85 * 0.25 + 84 * 0.125 + 8 * 0.125) / 0.5), pytest.approx(0.5))


def test_on_a_scale_to_one_a_naught_may_be_the_beginning_of_anything():
    found = one(reply(told("1", 0.6, {"0": 0.4}), token("</")), UNIT)
    assert found == (1, pytest.approx(0.6))
    found = one(reply(told("0", 0.6, {"1": 0.4}), told(".", 0.5, {"</": 0.5}), told("7", 1.0, {}), token("</")), UNIT)
    assert found.score == pytest.approx(1 * 0.4 + 0 * 0.3 + 0.7 * 0.3)


def test_a_number_that_the_judge_was_sure_of_stays_as_it_is():
    assert one(reply(token("7"), token("</"))) == (7, 1)
    assert one(reply(token("10"), token("</"))) == (10, 1)
    impossible = TokenLogprob(text="7", logprob=-math.inf)
    assert one(reply(impossible, token("</"))) == (7, 0)


def chances(draw, keys):
    weights = [draw(st.integers(0, 8)) for _ in keys]
    return {key: weight / max(sum(weights), 1) for key, weight in zip(keys, weights, strict=True)}


@given(data=st.data())
def test_with_all_tokens_reported_it_is_the_expectation_over_all_that_could_have_been_written(data):
    first = chances(data.draw, "123456789")
    after_one = chances(data.draw, ("0", "</"))
    spelled = {digit: chance for digit, chance in first.items() if digit != "1"}
    spelled |= {"1": first["1"] * after_one["</"], "10": first["1"] * after_one["0"]}
    written = data.draw(st.sampled_from([number for number, chance in spelled.items() if chance] or [""]))
    if not written:
        return
    tokens = [told(written[0], first[written[0]], first)]
    if written in ("1", "10"):
        ending = "0" if written == "10" else "</"
        tokens.append(told(ending, after_one[ending], after_one))
    else:
        spelled.pop("1"), spelled.pop("10")  # only a reply that goes there tells them apart
    if written != "1":
        tokens.append(token("</"))
    found = one(reply(*tokens))
    total = sum(spelled.values())
    assert found.known == pytest.approx(total)
    assert found.score == pytest.approx(sum(int(number) * chance for number, chance in spelled.items()) / total)
    assert found.score in TEN


def test_numbers_in_the_thought_and_a_started_turn_count_for_nothing():
    tokens = (
        *(token("<answer>"), told("2", 0.5, {"3": 0.5}), token("</answer></think><answer>")),
        *(told("8", 0.5, {"9": 0.5}), token("</answer> <answer>"), told("4", 0.75, {"5": 0.25}), token("</answer>")),
        token("<|im_end|>"),
    )
    text = "<think>\n\n" + "".join(one.text for one in tokens[:-1])
    found = expectations(Reply(text=text, logprobs=tokens), scale=TEN, reasoning="first")
    assert [one.score for one in found] == [pytest.approx(8.5), pytest.approx(4.25)]


def test_log_probabilities_of_another_text_say_nothing():
    made = reply(token("8"), token("</"))
    assert expectations(Reply(text=made.text), scale=TEN, reasoning="first") is None
    other = Reply(text=made.text.replace("8", "7"), logprobs=made.logprobs)
    assert expectations(other, scale=TEN, reasoning="first") is None


PAIR = JudgeRequest(id="q", prompt="2+2?", completions=("4", "5"))


class Telling(ScriptedEngine):
    """A scripted engine that reports log-probabilities."""

    can = Capabilities(token_ids=True, prefix=True, logprobs=True)


def pair_of(*numbers: TokenLogprob) -> Reply:
    tokens = [token("<think>x</think>")]
    for number in numbers:
        tokens += [token("<answer>"), number, token("</answer>")]
    return Reply(text="".join(one.text for one in tokens), logprobs=tuple(tokens))


async def test_a_judge_scores_by_expectation_and_takes_the_mean_over_votes_and_orders():
    said = [pair_of(told("8", 0.5, {"9": 0.5}), told("8", 0.5, {"7": 0.5})), pair_of(token("9"), token("6"))]
    judge = Judge(Telling(lambda _: said), load_template("pair"), aggregate="expected", votes=2, both_orders=False)
    judgment = await judge.judge(PAIR)
    assert judge.sampling.logprobs == TOP
    (order,) = judgment.orders
    assert [vote.outcome.scores for vote in order.votes] == [(pytest.approx(8.5), pytest.approx(7.5)), (9, 6)]
    assert judgment.outcome.scores == (pytest.approx(8.75), pytest.approx(6.75))
    both = await Judge(Telling(lambda _: said[0]), load_template("pair"), aggregate="expected").judge(PAIR)
    assert both.outcome.tie


async def test_a_reply_that_cannot_be_read_and_one_without_log_probabilities_are_unscored():
    for text, reason in (
        ("<think>", Reason.NO_END),
        ("<think>x</think><answer>8</answer><answer>7</answer>", "refused"),
    ):
        judge = Judge(Telling(lambda _, text=text: text), load_template("pair"), aggregate="expected")
        outcome = (await judge.judge(PAIR)).outcome
        assert isinstance(outcome, Unscored)
        assert outcome.reason == reason


def test_an_engine_without_log_probabilities_and_a_template_without_numbers_are_refused():
    with pytest.raises(RecipeError, match="aggregate: expected needs log-probabilities, and the engine scripted"):
        Judge(ScriptedEngine(lambda _: ""), load_template("pair"), aggregate="expected")
    with pytest.raises(RecipeError, match="aggregate: expected needs numbers, and the template 'gen-edit' has labels"):
        Judge(Telling(lambda _: ""), load_template("gen-edit"), aggregate="expected")


def test_a_verdict_by_expectation_is_another_judges():
    engine, template = Telling(lambda _: ""), load_template("pair")
    asked = Sampling(logprobs=TOP)
    mean, expected = (Judge(engine, template, sampling=asked, aggregate=how) for how in ("mean", "expected"))
    assert mean.fingerprint != expected.fingerprint
