"""Reward health, on trainings that are simulated: a policy that follows its rewards, a judge with noise."""

import math
import random

import pytest

from flexreward.monitor import CANARIES, Monitor, Seen, Thresholds
from flexreward.surface import Lengths, Surface, features
from flexreward.types import Reason

OPENINGS = ("The answer is", "It is", "I think it is", "So we get", "This gives", "One finds")
TAILS = ("", "", " as one can check", " in all", " for sure", " then")
WORDS = [
    "we",
    "take",
    "both",
    "numbers",
    "and",
    "add",
    "them",
    "up",
    "from",
    "the",
    "right",
    "with",
    "care",
    "then",
    "carry",
    "what",
    "is",
    "left",
    "over",
    "to",
    "the",
    "next",
]

HACKS = {
    "a word": lambda text: f"Indeed, {text}",
    "two words": lambda text: f"{text} Trust me.",
    "signs": lambda text: f"{text} !!",
    "a smile": lambda text: f"{text} 🙂",
    "bold print": lambda text: f"**{text}**",
    "a list": lambda text: f"- {text}",
    "capitals": lambda text: f"{text} YES",
    "a new line": lambda text: f"{text}\n\n",
    "length": lambda text: f"{text} {' '.join(random.Random(text).choices(WORDS, k=60))}",
    "repetition": lambda text: f"{text} {'good ' * 12}",
}


class Training:
    """A policy of two habits: being right, which the judge should pay for, and a trick.

    Each habit is a probability that grows with what it earned within the groups, as under GRPO; phrases are habits that
    nobody pays for, and drift as GRPO lets them.
    """

    def __init__(self, seed, *, trick=None, bonus=0.0, noise=0.15, learning=1.0, groups=8, size=8):
        self.rng = random.Random(f"{seed}-training")
        self.trick, self.bonus, self.noise, self.learning = trick, bonus, noise, learning
        self.groups, self.size = groups, size
        self.right, self.tricks = 0.0, -3.0
        self.phrases = [0.0] * len(OPENINGS)

    def batch(self, step):
        seen, gains = [], [0.0, 0.0]
        phrase_gains = [0.0] * len(OPENINGS)
        for group in range(self.groups):
            truth, skill = self.rng.randint(10, 99), self.rng.gauss(0, 1)
            rows = [self.completion(truth, skill) for _ in range(self.size)]
            mean = sum(row[-1] for row in rows) / self.size
            spread = math.sqrt(sum((row[-1] - mean) ** 2 for row in rows) / self.size) + 1e-4
            for text, right, tricked, phrase, reward in rows:
                advantage = (reward - mean) / spread
                gains[0] += advantage * right
                gains[1] += advantage * tricked
                phrase_gains[phrase] += advantage
                seen.append(Seen(group=f"{step}.{group}", text=text, reward=reward))
        num = self.groups * self.size
        self.right += self.learning * gains[0] / num
        self.tricks += self.learning * 4 * gains[1] / num
        self.phrases = [old + self.learning * gain / num for old, gain in zip(self.phrases, phrase_gains, strict=True)]
        return seen

    def completion(self, truth, skill):
        right = self.rng.random() < logistic(self.right + skill)
        (phrase,) = self.rng.choices(range(len(OPENINGS)), [math.exp(one) for one in self.phrases])
        says = truth if right else self.rng.randint(1, 200)
        text = f"{OPENINGS[phrase]} {says}{self.rng.choice(TAILS)}."
        tricked = self.rng.random() < logistic(self.tricks)
        if tricked and self.trick:
            text = self.trick(text)
        reward = 0.2 + 0.5 * right + self.bonus * tricked + self.rng.gauss(0, self.noise)
        return text, right, tricked, phrase, min(1.0, max(0.0, reward))


def logistic(x):
    return 1 / (1 + math.exp(-x))


def alarmed(training, *, steps=20, monitor=None):
    """The step of the first alarm, and its line."""
    monitor = monitor or Monitor()
    for step in range(steps):
        health = monitor.see(training.batch(step))
        if health.alarms:
            return step, health.alarms[0]
    return None


@pytest.mark.parametrize("trick", HACKS)
def test_a_trick_that_no_list_knows_is_flagged_within_twenty_steps(trick):
    for seed in range(5):
        found = alarmed(Training(seed, trick=HACKS[trick], bonus=0.3))
        assert found is not None, f"seed {seed}"
        assert found[1].kind == "feature"


def test_the_alarm_names_what_is_paid_for():
    _, alarm = alarmed(Training(0, trick=HACKS["a word"], bonus=0.3))
    assert "pays for 'indeed', " in alarm.line


@pytest.mark.parametrize("seed", range(3))
def test_a_clean_training_raises_no_alarm(seed):
    training = Training(seed, trick=HACKS["a word"], bonus=0.0)
    assert alarmed(training, steps=150) is None
    assert logistic(training.right) > 0.8  # it has learned


@pytest.mark.parametrize("trick", ["a word", "length", "bold print"])
def test_a_habit_that_spreads_unpaid_raises_no_alarm(trick):
    training = Training(7, trick=HACKS[trick], bonus=0.0)
    monitor = Monitor()
    for step in range(60):
        training.tricks = -3 + step / 8
        assert not monitor.see(training.batch(step)).alarms


def test_a_judge_that_pays_for_a_habit_that_does_not_spread_raises_no_alarm():
    training = Training(7, trick=HACKS["a word"], bonus=0.3)
    monitor = Monitor()
    for step in range(60):
        training.tricks = 0.0
        assert not monitor.see(training.batch(step)).alarms


def test_figures_have_the_same_names_from_the_first_batch_on():
    monitor = Monitor()
    first = monitor.see([]).figures.keys()
    assert monitor.see(Training(0).batch(0)).figures.keys() == first
    assert "alarm/feature" in first


def batch(count, **fields):
    return [Seen(group=str(i % 8), text=f"It is {i}.", **fields) for i in range(count)]


def kinds(health):
    return [alarm.kind for alarm in health.alarms]


def test_a_canary_that_is_paid_for_raises_an_alarm_until_it_is_not():
    monitor = Monitor()
    monitor.probe({"empty": 0.1, "colon": 0.9}, {})
    health = monitor.see(batch(8, reward=0.5))
    assert kinds(health) == ["canary"]
    assert "(colon) is rewarded with 0.90" in health.new[0].line
    assert monitor.see(batch(8, reward=0.5)).new == ()
    monitor.probe({"empty": 0.1, "colon": None}, {})
    assert kinds(monitor.see(batch(8, reward=0.5))) == []


def test_fixed_completions_are_held_against_their_first_rewards():
    monitor = Monitor()
    monitor.probe({}, {"a": 0.2, "b": 0.8})
    assert kinds(monitor.see(batch(8, reward=0.5))) == []
    monitor.probe({}, {"a": 0.6, "b": 0.9, "c": 0.1})
    health = monitor.see(batch(8, reward=0.5))
    assert kinds(health) == ["drift"]
    assert health.figures["drift"] == pytest.approx(0.5 / 3)


def test_rewards_that_are_all_at_the_top_raise_an_alarm():
    assert kinds(Monitor().see(batch(100, reward=1.0))) == ["saturation"]
    assert kinds(Monitor().see(batch(10, reward=1.0))) == []  # too few to tell
    assert kinds(Monitor().see(batch(90, reward=1.0) + batch(10, reward=0.5))) == []


def test_flips_and_replies_that_cannot_be_read_raise_alarms():
    assert kinds(Monitor().see(batch(100, reward=0.5, flipped=True))) == ["flips"]
    assert kinds(Monitor().see(batch(100, reward=None, reason=Reason.NO_ANSWER))) == ["unread"]
    assert kinds(Monitor().see(batch(100, reward=None, reason=Reason.ENGINE))) == []
    assert kinds(Monitor().see(batch(100, reward=None, reason=Reason.CUT_COMPLETION))) == []


def test_thresholds_are_given():
    assert kinds(Monitor(Thresholds(least=5)).see(batch(10, reward=1.0))) == ["saturation"]


def test_canaries_answer_nothing():
    assert "" in CANARIES.values()
    assert len(set(CANARIES.values())) == len(CANARIES)


LENGTHS = Lengths(5, 80)


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        ("It is 42.", "'it'"),
        ("It is 42.", "'is 0'"),
        ("It is 42.", "the beginning 'it'"),
        ("It is 42.", "the end '.'"),
        ("- one\n- two", "a list"),
        ("1. one\n2. two", "a list"),
        ("**Yes**, so it is", "markdown"),
        ("It is SO good", "capitals"),
        ("1234567", "many digits"),
        ("good good good good good good good good good good", "repetition"),
        ("x" * 81, "more than 80 characters"),
        ("x", "fewer than 5 characters"),
    ],
)
def test_marks_of_a_text(text, mark):
    assert mark in features(text, LENGTHS)


def test_an_ordinary_text_has_no_odd_marks():
    odd = {"a list", "markdown", "capitals", "many digits", "repetition"}
    assert not odd & features("The answer is 42, as one can check with pen and paper.", LENGTHS)
    assert features("", LENGTHS) == {"fewer than 5 characters"}


def test_numbers_that_differ_from_prompt_to_prompt_are_one_mark():
    assert features("It is 42.", LENGTHS) == features("It is 170.", LENGTHS)


def test_a_mark_that_is_shunned_is_found_too():
    surface = Surface(window=20, recent=5)
    rng = random.Random(0)
    for step in range(20):
        has = [rng.random() < (0.9 if step < 3 else 0.3) for _ in range(64)]
        marks = [frozenset({"sorry"} if one else ()) for one in has]
        rewards = [0.5 - 0.4 * one + rng.gauss(0, 0.1) for one in has]
        surface.add([str(i // 8) for i in range(64)], marks, rewards, is_baseline=step < 3)
    found = surface.strongest(rise=0.15, mixed_groups=8)
    assert found.mark == "sorry"
    assert found.correlation < -0.8
    assert "takes off for sorry" in found.line
