"""The sentences of the pages: numbers as people read them, reasons in plain words."""

from __future__ import annotations

REASONS = {
    "truncated": "the judge's reply was cut at its token limit",
    "no_end": "the judge's reasoning never ended, so there was no final part to read",
    "no_answer": "the judge's reply held no answer",
    "not_a_number": "the judge's answer was neither a number nor a known label",
    "missing": "the judge gave fewer scores than there were completions",
    "extra": "the judge gave more scores than there were completions",
    "off_scale": "a score lay outside the scale that the judge was told to use",
    "quorum": "too few of the replies could be read",
    "context": "the text did not fit into the judge",
    "cut_completion": "the completion itself was cut short",
    "alone": "there was no other completion to compare it with",
    "withheld": "reward health kept it from the training",
    "engine": "the model that runs the judge failed",
    "refused": "the model that runs the judge does not take such a request",
    "deadline": "the time allowed ran out",
    "flipped": "the winner changed with the order",
    "half_tied": "one order named a winner, the other saw a tie",
    "unscored": "not both orders could be read",
    "margin": "the two scores are too close together",
    "not_widest": "another pair of the same prompt is further apart",
    "duplicate": "both completions are the same text, or the pair was there already",
    "tied": "both completions got the same score",
}


def in_words(reason: str) -> str:
    """What a reason means; a reason that is not ours is shown as it was written."""
    return REASONS.get(reason, reason.replace("_", " "))


def percent(share: float | None, digits: int = 1) -> str:
    return "–" if share is None else f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"


def interval(low: float | None, high: float | None) -> str:
    return "–" if low is None else f"{100 * low:.1f} to {percent(high)}"


def number(value: float | None) -> str:
    """Up to three decimals, no trailing zeros, thousands set apart."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def plural(count: int, noun: str, many: str | None = None) -> str:
    return f"{count:,} {noun if count == 1 else many or noun + 's'}"


def cut_prompt(num_chars: object) -> str:
    """What became of a prompt that was too long, from its outcome line; empty where nothing did."""
    return f"prompt cut by {plural(num_chars, 'character')}" if isinstance(num_chars, int) and num_chars else ""


def listed(names: list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def sentence(text: str) -> str:
    """With a capital and a full stop."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
