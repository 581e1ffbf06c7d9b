"""The form of an answer as a regular expression: all of it that a template's reader reads, and nothing else.

A number has as many decimals as the template's own example shows (``<answer>3.8</answer>``: one), two on a scale
narrower than 4, where whole numbers say little, and none elsewhere: a judge that was shown an 8 is not made to choose
between an 8 and an 8.0. Of GenAI-Bench's labels each has the spelling that the prompt names.
"""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from flexreward.engines.base import Answer
from flexreward.errors import RecipeError
from flexreward.parse import ANSWER_TAG, Reader, Reasoning
from flexreward.types import Scale

EXAMPLE = re.compile(r"<answer>\s*[0-9]+(?:\.([0-9]+))?\s*</answer>")
LABELS = ("[[A>B]]", "[[B>A]]", "[[A=B=Good]]", "[[A=B=Bad]]")
GAP = r"(?: |\n{1,2})?"
"""What judges put before an ``<answer>``."""
BEFORE, AFTER = "<answer>", "</answer>"


def answer_of(
    system: str, *, count: int, scale: Scale, reader: Reader, reasoning: Reasoning, prefix: str, where: str
) -> Answer:
    """The form of ``count`` scores, or of the one label, after the started turn ``prefix``.

    Raises:
        RecipeError: The started turn holds more of an answer than its first tag, or the scale no number at all.
    """
    if reader == "genai":
        one, longest, count = "|".join(map(re.escape, LABELS)), max(map(len, LABELS)), 1
    else:
        decimals = decimals_of(system, scale)
        one = numbers(scale, decimals)
        longest = len(f"{int(scale.high)}") + (decimals and decimals + 1)
        if not one:
            raise RecipeError(f"{where}: no number of {decimals} decimals lies on its scale; take a wider one")
    tagged = f"{BEFORE}(?:{one}){AFTER}"
    rest = f"(?:{GAP}{tagged})"
    if _begins_answer(prefix, reasoning, where):
        pattern = tagged.removeprefix(BEFORE) + (f"{rest}{{{count - 1}}}" if count > 1 else "")
    else:
        pattern = f"{rest}{{{count}}}"
    return Answer(pattern, count * (2 + len(BEFORE) + longest + len(AFTER)), reasoning)


def decimals_of(system: str, scale: Scale) -> int:
    """Decimals of a score, by the examples in the system text."""
    shown = max((len(decimals) for decimals in EXAMPLE.findall(system)), default=0)
    return max(shown, 2) if scale.high - scale.low < 4 else shown


def numbers(scale: Scale, decimals: int) -> str:
    """Alternatives for every number on the scale with at most so many decimals, without zeros in front."""
    low, high = Decimal(str(scale.low)), Decimal(str(scale.high))
    options: list[str] = []
    for places in range(decimals + 1):
        unit = 10**places
        first = int((low * unit).to_integral_value(ROUND_CEILING))
        last = int((high * unit).to_integral_value(ROUND_FLOOR))
        if first <= last:
            options += _fixed(first, last, places)
    return "|".join(options)


def _fixed(first: int, last: int, places: int) -> list[str]:
    """Of ``first`` to ``last``, whose last ``places`` digits stand behind a point."""
    if not places:
        return _whole(first, last)
    (low, begin), (high, end) = divmod(first, 10**places), divmod(last, 10**places)
    most = 10**places - 1
    if low == high:
        return [f"{low}\\.{_digits(f'{begin:0{places}}', f'{end:0{places}}')}"]
    options = [
        f"{low}\\.{_digits(f'{begin:0{places}}', f'{most}')}",
        f"{high}\\.{_digits('0' * places, f'{end:0{places}}')}",
    ]
    if high - low > 1:
        options.append(f"(?:{'|'.join(_whole(low + 1, high - 1))})\\.[0-9]{{{places}}}")
    return options


def _whole(first: int, last: int) -> list[str]:
    """Of ``first`` to ``last``, those of one length together."""
    options = []
    for width in range(len(str(first)), len(str(last)) + 1):
        low, high = max(first, 10 ** (width - 1) if width > 1 else 0), min(last, 10**width - 1)
        options.append(_digits(str(low), str(high)))
    return options


def _digits(low: str, high: str) -> str:
    """Of everything from ``low`` to ``high``, which have equally many digits."""
    if not low:
        return ""
    if low[0] == high[0]:
        return low[0] + _digits(low[1:], high[1:])
    rest = len(low) - 1
    first, last = int(low[0]), int(high[0])
    options = []
    if low[1:] != "0" * rest:
        options.append(low[0] + _digits(low[1:], "9" * rest))
        first += 1
    if high[1:] != "9" * rest:
        options.append(high[0] + _digits("0" * rest, high[1:]))
        last -= 1
    if first <= last:
        options.append((f"[{first}-{last}]" if first < last else str(first)) + "[0-9]" * rest)
    return options[0] if len(options) == 1 else f"(?:{'|'.join(options)})"


def _begins_answer(prefix: str, reasoning: Reasoning, where: str) -> bool:
    """Whether the started turn has begun the first answer."""
    spoken = prefix.rpartition("</think>")[2] if "</think>" in prefix or reasoning != "first" else ""
    tags = ANSWER_TAG.findall(spoken)
    if not tags:
        return False
    if tags == [BEFORE] and spoken.rstrip().endswith(BEFORE):
        return True
    raise RecipeError(f"{where}: its prefix {prefix!r} holds more of the answer than a first <answer>; leave that out")
