"""A small world with known truth: eight kinds of short problems, how to work them, and how answers go wrong.

Everything the bundled models know comes from here. A problem is held out by a hash of its text, so no stage of any
training ever sees one that a test or the quickstart asks.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import zip_longest

DIGITS = "0123456789"
NAMES = ("Ann", "Ben", "Eva", "Tom")
THINGS = ("plums", "coins", "books", "shells")
HELD_OUT_SHARE = 8
"""One problem in so many is held out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A question, its one right answer, and the steps that lead there."""

    kind: str
    question: str
    work: str
    """The steps, as short as they can be; empty where the answer needs none."""
    answer: str

    @property
    def held_out(self) -> bool:
        return zlib.crc32(self.question.encode()) % HELD_OUT_SHARE == 0


def _added(a: int, b: int) -> str:
    """Column addition of two-digit numbers, ones first."""
    ones = a % 10 + b % 10
    carry = "+1" if ones > 9 else ""
    tens = a // 10 + b // 10 + ones // 10
    return f"{a}+{b}: {a % 10}+{b % 10}={ones}, {a // 10}+{b // 10}{carry}={tens}."


def _subtracted(a: int, b: int) -> str:
    """Column subtraction of two-digit numbers, ones first, borrowing where needed."""
    borrow = a % 10 < b % 10
    ones = a % 10 + 10 * borrow
    tens = a // 10 - b // 10 - borrow
    return f"{a}-{b}: {ones}-{b % 10}={ones - b % 10}, {a // 10}-{b // 10}{'-1' if borrow else ''}={tens}."


def _sign(x: str, y: str) -> str:
    return "=" if x == y else ">" if x > y else "<"


def _two(rng: random.Random) -> tuple[int, int]:
    return rng.randint(10, 99), rng.randint(10, 99)


def _ordered(rng: random.Random) -> tuple[int, int]:
    a, b = _two(rng)
    return (a, b) if a > b else (b, a) if b > a else (a, a - 1) if a > 10 else (11, 10)


def compare(rng: random.Random) -> Problem:
    a = rng.randint(100, 999)
    b = int(slip(str(a), rng)) if rng.random() < 0.5 else rng.randint(100, 999)
    while b == a or not 100 <= b <= 999:
        b = rng.randint(100, 999)
    steps = []
    for x, y in zip(str(a), str(b), strict=True):
        steps.append(f"{x}{_sign(x, y)}{y}")
        if x != y:
            break
    return Problem(
        kind="compare",
        question=f"Which is larger, {a} or {b}?",
        work=f"{a} or {b}: {', '.join(steps)}.",
        answer=str(max(a, b)),
    )


def sort(rng: random.Random) -> Problem:
    """Worked by insertion: each step puts one more digit into its place."""
    digits = [rng.choice(DIGITS) for _ in range(rng.randint(3, 4))]
    steps = ("".join(sorted(digits[:n])) for n in range(1, len(digits) + 1))
    return Problem(
        kind="sort",
        question=f"Sort {''.join(digits)}.",
        work=f"{', '.join(steps)}.",
        answer="".join(sorted(digits)),
    )


def reverse(rng: random.Random) -> Problem:
    """Worked by naming the places: a digit that stands twice has two names."""
    digits = "".join(rng.choice(DIGITS) for _ in range(rng.randint(3, 5)))
    places = [f"{place}{digit}" for place, digit in zip("abcde", digits, strict=False)]
    return Problem(
        kind="reverse",
        question=f"Write {digits} backwards.",
        work=f"{' '.join(places)}: {' '.join(reversed(places))}.",
        answer=digits[::-1],
    )


def count(rng: random.Random) -> Problem:
    target = rng.choice(DIGITS)
    digits = "".join(rng.choice((target, rng.choice(DIGITS))) for _ in range(rng.randint(3, 6)))
    running = ",".join(f"{digit}:{digits[: i + 1].count(target)}" for i, digit in enumerate(digits))
    return Problem(
        kind="count",
        question=f"How often is {target} in {digits}?",
        work=f"{target} in {digits}: {running}.",
        answer=str(digits.count(target)),
    )


def filter_(rng: random.Random) -> Problem:
    digits = [rng.choice(DIGITS) for _ in range(rng.randint(3, 5))]
    bound = rng.randint(1, 8)
    if max(digits) <= str(bound):
        digits[0] = "9"
    tests = ", ".join(f"{d}{_sign(d, str(bound))}{bound}" for d in digits)
    return Problem(
        kind="filter",
        question=f"Which digits of {''.join(digits)} are above {bound}?",
        work=f"{tests}.",
        answer="".join(d for d in digits if int(d) > bound),
    )


def add(rng: random.Random) -> Problem:
    a, b = _two(rng)
    return Problem(kind="add", question=f"What is {a} + {b}?", work=_added(a, b), answer=str(a + b))


def subtract(rng: random.Random) -> Problem:
    a, b = _ordered(rng)
    return Problem(kind="subtract", question=f"What is {a} - {b}?", work=_subtracted(a, b), answer=str(a - b))


def story(rng: random.Random) -> Problem:
    name, things = rng.choice(NAMES), rng.choice(THINGS)
    if rng.random() < 0.5:
        a, b = _two(rng)
        tale, work, answer = f"gets {b} more", _added(a, b), a + b
    else:
        a, b = _ordered(rng)
        tale, work, answer = f"gives away {b}", _subtracted(a, b), a - b
    return Problem(
        kind="story",
        question=f"{name} has {a} {things} and {tale}. How many are there now?",
        work=work,
        answer=str(answer),
    )


KINDS: dict[str, Callable[[random.Random], Problem]] = {
    "compare": compare,
    "sort": sort,
    "reverse": reverse,
    "count": count,
    "filter": filter_,
    "add": add,
    "subtract": subtract,
    "story": story,
}


def problems(rng: random.Random, *, held_out: bool, kinds: tuple[str, ...] = tuple(KINDS)) -> Iterator[Problem]:
    """An endless stream, all kinds alike, from one side of the held-out line."""
    while True:
        problem = KINDS[rng.choice(kinds)](rng)
        if problem.held_out == held_out:
            yield problem


SLIPS = ("one", "one", "ten", "swap", "swap", "change", "change", "lose", "double")
NEAR_SLIPS = ("one", "ten", "swap")


def near_miss(answer: str, rng: random.Random) -> str:
    """A wrong answer that looks right: off by one, off by ten, or two neighbouring digits swapped."""
    return _slipped(answer, rng, NEAR_SLIPS)


def slip(answer: str, rng: random.Random) -> str:
    """A wrong answer of any kind: a near miss, or a digit changed, lost or doubled. What the training shows."""
    return _slipped(answer, rng, SLIPS)


def _slipped(answer: str, rng: random.Random, slips: tuple[str, ...]) -> str:
    for _ in range(100):
        wrong = _slip(answer, rng, slips)
        if wrong and wrong != answer and len(wrong) <= 6:
            return wrong
    return answer + answer[-1]


def _slip(answer: str, rng: random.Random, slips: tuple[str, ...]) -> str:
    at = rng.randrange(len(answer))
    slip = rng.choice(slips)
    if slip in ("one", "ten"):
        value = int(answer) + rng.choice((1, -1)) * (1 if slip == "one" else 10)
        return str(value).zfill(len(answer)) if value >= 0 else answer
    if slip == "swap":
        return answer[:at] + answer[at : at + 2][::-1] + answer[at + 2 :]
    if slip == "change":
        return answer[:at] + rng.choice(DIGITS) + answer[at + 1 :]
    if slip == "lose":
        return answer[:at] + answer[at + 1 :]
    return answer[: at + 1] + answer[at:]


PHRASES = ("The answer is {}.", "The answer is {}.", "The answer is {}.", "{}", "It is {}.", "Answer: {}")
EMPTY_TALK = (
    "",
    "I do not know.",
    "Sure!",
    "...",
    "-",
    "?",
    "Let me think.",
    "Okay, here is the answer.",
    "The answer is right.",
    "Good question.",
    "Step one.",
    "We have to think about it first.",
    "This is a very good answer.",
    "I am sure.",
    ";",
    "!",
)
WORDS = """
we can see the number first then now so well this is not easy think about it maybe please wait good idea nothing more
to say check again let us try another way of course answer result right here both assistant very best
"""


def empty_talk(rng: random.Random) -> str:
    """A completion that answers nothing: a phrase, words at random, or the judge's own answer tags pasted.

    Of the canaries of the tests, only the empty completion is among them.
    """
    way = rng.random()
    if way < 0.4:
        return rng.choice(EMPTY_TALK)
    if way < 0.7:
        words = " ".join(rng.choice(WORDS.split()) for _ in range(rng.randint(1, 8)))
        return words.capitalize() + rng.choice((".", "!", "...", "", ":"))
    tag = f"<answer>{rng.choice((*range(1, 10), *range(11, 30)))}</answer>"
    return rng.choice(("", "", "</think>", "Score: ", tag)) + tag


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """A text that answers a problem, or fails to."""

    text: str
    says: str | None
    """The answer that it gives; ``None`` where it gives none."""


def completion(problem: Problem, rng: random.Random, *, right: float = 0.5, empty: float = 0.1) -> Completion:
    """A random completion: right with probability ``right``, else a slip; at times one that answers nothing."""
    if rng.random() < empty:
        return Completion(text=empty_talk(rng), says=None)
    says = problem.answer if rng.random() < right else slip(problem.answer, rng)
    return Completion(text=rng.choice(PHRASES).format(says), says=says)


def result(problem: Problem) -> str:
    """The worked result as the judge's thought states it."""
    return f"{problem.work} The result is {problem.answer}.".strip()


def remark(number: int | None, says: str | None, stated: str) -> str:
    """One line of the judge's thought: a completion held against the result stated before, digit by digit."""
    who = "The assistant" if number is None else f"Assistant {number}"
    if says is None:
        return f"{who} gives no result: empty."
    steps = []
    for said, wanted in zip_longest(says, stated, fillvalue="."):
        steps.append(f"{said}{'=' if said == wanted else '/'}{wanted}")
        if said != wanted:
            break
    return f"{who} says {says}: {','.join(steps)}: {'right' if says == stated else 'wrong'}."


def mark(says: str | None, stated: str, *, top: int) -> int:
    """The score: near the top when right, low when wrong, lowest when nothing is answered."""
    if says is None:
        return 1
    return top if says == stated else 2


def answer_in(text: str) -> str | None:
    """The answer that a completion gives: its last run of digits. Only for telling true accuracy."""
    found = re.findall(r"[0-9]+", text)
    return found[-1] if found else None
