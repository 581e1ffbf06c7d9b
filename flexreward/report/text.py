"""Text written by models and users, made inert and fully visible: what cannot be seen is spelled out."""

from __future__ import annotations

import re
import unicodedata

from markupsafe import Markup, escape

HEAD_CHARS, TAIL_CHARS = 4_000, 2_000
"""A longer text shows only its two ends; a reply's answer stands at its end."""

# Control characters, lone surrogates, noncharacters, and whatever hides or reorders its neighbours. Tab and newline
# are text; the joiners U+200C and U+200D are too, since Persian, Indic scripts and emoji cannot be written without.
HIDDEN = re.compile(
    "([\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ud800-\udfff\ufdd0-\ufdef\ufeff\ufff9-\ufffb\ufffe\uffff\U000e0000-\U000e007f])\\1*"
)


def _code(char: str) -> str:
    return f"U+{ord(char):04X}"


def visible(text: str) -> str:
    """The text with every hidden character spelled out as ``⟨U+202E⟩``; carriage returns before newlines vanish."""
    return HIDDEN.sub(_spelled, text.replace("\r\n", "\n"))


def _spelled(run: re.Match[str]) -> str:
    times = f" ×{len(run[0])}" if len(run[0]) > 1 else ""
    return f"⟨{_code(run[1])}{times}⟩"


def text_html(text: str, head: int = HEAD_CHARS, tail: int = TAIL_CHARS) -> Markup:
    """The text as escaped HTML, hidden characters boxed, the middle of a long text left out with a note of its size."""
    if len(text) <= head + tail:
        return _boxed(text)
    note = Markup('<span class="cut">… {:,} characters left out of this page …</span>')
    return _boxed(text[:head]) + note.format(len(text) - head - tail) + _boxed(text[-tail:])


def _boxed(text: str) -> Markup:
    text, parts, done = text.replace("\r\n", "\n"), [], 0
    for run in HIDDEN.finditer(text):
        name = unicodedata.name(run[1], "control character").lower()
        spelled = _spelled(run)[1:-1]
        parts += [
            escape(text[done : run.start()]),
            Markup('<span class="unseen" title="{}">{}</span>').format(name, spelled),
        ]
        done = run.end()
    return Markup("").join([*parts, escape(text[done:])])


def line_html(text: str, limit: int = 160) -> Markup:
    """The text on one line, for a heading or a row: newlines marked, its end left out when long."""
    text = text.strip()
    flat = text[: 2 * limit].replace("\r\n", "\n").replace("\n", " ⏎ ")
    return _boxed(flat) if len(flat) <= limit and len(text) <= 2 * limit else _boxed(flat[:limit]) + "…"


def plain(content: object) -> str:
    """A prompt or completion as one string; a conversation turn by turn under its roles."""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(turn, dict) for turn in content):
        return "\n\n".join(f"[{turn.get('role', '?')}]\n{plain(turn.get('content', ''))}" for turn in content)
    return "" if content is None else str(content)
