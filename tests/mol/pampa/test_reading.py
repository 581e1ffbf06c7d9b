from math import log

import pytest

from flexreward.types import Reason, TokenLogprob
from mol.pampa.reading import NEGATIVE, POSITIVE, UNREAD, probability, read_published, read_strict, tokens_from
from mol.pampa.recipe import Labels, Word

LABELS = Labels(
    positive=Word(name="high", text="High permeability", published=["high permeability"]),
    negative=Word(
        name="low",
        text="Low-to-moderate permeability",
        published=["low-to-moderate permeability", "moderate permeability"],
    ),
)


@pytest.mark.parametrize(
    ("text", "strict", "published"),
    [
        ("It is lipophilic.\n\nFinal answer: High permeability.", POSITIVE, POSITIVE),
        ("Final answer: Low-to-moderate permeability.", NEGATIVE, NEGATIVE),
        ("It is charged.\nLow-to-moderate permeability.", NEGATIVE, NEGATIVE),
        ("**Final answer: High permeability**", POSITIVE, POSITIVE),
        ("Final Answer: 'high permeability'.", POSITIVE, POSITIVE),
        ("Final answer:\nHigh permeability.\n\nThis rests on its lipophilicity.", POSITIVE, POSITIVE),
        ("Final answer: High permeability.\nFinal answer: Low-to-moderate permeability.", NEGATIVE, NEGATIVE),
        ("Final answer: not high permeability.", UNREAD, POSITIVE),
        ("Final answer: moderate to high permeability.", UNREAD, POSITIVE),
        ("Final answer: Moderate permeability.", UNREAD, NEGATIVE),
        ("Final answer: High", UNREAD, UNREAD),
        ("Final answer: Low permeability.", UNREAD, UNREAD),
        ("The molecule has high permeability.", UNREAD, POSITIVE),
        ("Final answer: High permeability or Low-to-moderate permeability.", UNREAD, POSITIVE),
        ("final answer: HIGH PERMEABILITY", POSITIVE, UNREAD),
        ("", UNREAD, UNREAD),
    ],
)
def test_both_readings_of_a_reply(text, strict, published):
    assert read_strict(text, LABELS).label == strict
    assert read_published(text, LABELS) == published


def test_the_lenient_reading_looks_only_behind_the_last_marker():
    assert read_published("High permeability? Final answer: Low-to-moderate permeability.", LABELS) == NEGATIVE


def test_an_unread_reply_says_why():
    assert read_strict("Final answer: maybe", LABELS).reason is Reason.NOT_A_NUMBER
    assert read_strict("I cannot tell.", LABELS).reason is Reason.NO_ANSWER
    assert read_strict("Final answer: High permeability", LABELS, truncated=True).reason is Reason.TRUNCATED


def test_the_span_is_the_label_alone():
    text = "So.\nFinal answer: **High permeability**."
    span = read_strict(text, LABELS).span
    assert span is not None
    assert text[span.start : span.end] == "High permeability"


def token(text: str, chance: float, **others: float) -> TokenLogprob:
    top = ((text, log(chance)), *((other.replace("_", " "), log(p)) for other, p in others.items()))
    return TokenLogprob(text=text, logprob=log(chance), top=top)


def test_the_probability_is_the_share_of_the_positive_label_at_the_first_token_that_parts_them():
    tokens = [token(" High", 0.6, _Low=0.2, _The=0.2), token(" permeability", 1.0)]
    assert probability(tokens, LABELS) == pytest.approx(0.75)


def test_the_probability_of_a_negative_answer_counts_the_positive_alternative():
    tokens = [token(" Low", 0.7, _High=0.3), token("-to", 1.0)]
    assert probability(tokens, LABELS) == pytest.approx(0.3)


def test_blanks_and_halves_of_a_word_are_walked_to_where_the_labels_part():
    tokens = [token(" ", 0.9, _Low=0.1), token("H", 0.5, L=0.5)]
    assert probability(tokens, LABELS) == pytest.approx(0.45 / (0.45 + 0.45 + 0.1))


def test_other_spellings_of_a_label_count_for_it():
    assert probability([token(" High", 0.5, _high=0.25, _low=0.25)], LABELS) == pytest.approx(0.75)


def test_text_of_neither_label_has_no_probability():
    assert probability([token(" The", 1.0)], LABELS) is None
    assert probability([], LABELS) is None


def test_labels_that_begin_alike_are_parted_further_on():
    labels = LABELS.model_copy(
        update={
            "positive": Word(name="y", text="BBB positive", published=[]),
            "negative": Word(name="n", text="BBB negative", published=[]),
        }
    )
    tokens = [token("BBB", 1.0), token(" pos", 0.8, _neg=0.2)]
    assert probability(tokens, labels) == pytest.approx(0.8)


def test_tokens_are_cut_to_where_the_answer_begins():
    tokens = [token("So", 1.0), token(": High", 0.6, **{": Low": 0.3, "; Low": 0.1})]
    cut = tokens_from(tokens, 3)
    assert cut[0].text == " High"
    assert [text for text, _ in cut[0].top] == [" High", " Low"]
    assert probability(cut, LABELS) == pytest.approx(2 / 3)
