"""Prompts as token ids, in a way that what is judged cannot speak for the judge.

The chat template is rendered once with marks in place of content. Only this frame may yield added tokens (end of turn,
start of turn, ...); content is encoded by a copy of the tokenizer that knows none, whatever the content spells. Content
is encoded together with the plain text of the frame that it touches, so that the ids of harmless text are exactly those
of ``tokenizer.apply_chat_template``.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

from tokenizers import Tokenizer

from flexreward.engines.base import Prompt
from flexreward.errors import JudgeError, RefusedError

SYSTEM, USER = "flexrewardSYSTEMcontent", "flexrewardUSERcontent"
"""Marks for content. They are replaced in the frame alone, so content that spells one stays as it is."""
EARLIER = "flexrewardTURN{}content"
"""The same for the turns before the last, by number."""
MARKS = re.compile(f"({SYSTEM}|{USER}|{EARLIER.format('[0-9]+')})")

TODAY = datetime(2024, 7, 26)
"""The day that every chat template is told, so that the same request is the same prompt tomorrow."""

Stretch: TypeAlias = int | tuple[str, ...]
"""An added token's id, or plain text in parts, some of which are marks."""


class Slot(NamedTuple):
    """The tokens between which a model is shown a medium."""

    before: tuple[int, ...]
    pad: int
    """Stands where the medium's own rows go, once for each of them."""
    after: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """A prompt as the model reads it."""

    ids: tuple[int, ...]
    num_shared: int
    """How many of the first ids depend on the system text alone: other requests of the same judge have them too."""
    started: tuple[int, ...] = ()
    """The last few ids, when they are a started assistant turn; what follows is decoded with them in view."""
    places: tuple[int, ...] = ()
    """Where the pads of each medium begin, in the order shown."""


class Encoder:
    """Encodes prompts and decodes replies for one checkpoint.

    Args:
        tokenizer: A fast tokenizer of transformers, with a chat template.
        slots: By kind of medium, for a model that is shown such.

    Raises:
        JudgeError: It has no chat template or no fast form, or content could still become an added token.
    """

    def __init__(self, tokenizer: Any, *, name: str = "tokenizer", slots: Mapping[str, Slot] | None = None) -> None:
        if getattr(tokenizer, "backend_tokenizer", None) is None:
            raise JudgeError(f"{name}: no tokenizer.json; save the tokenizer in its fast form beside the model")
        if not tokenizer.chat_template:
            raise JudgeError(f"{name}: no chat template; put one in chat_template.jinja beside the tokenizer")
        self._tokenizer = tokenizer
        self._backend: Tokenizer = tokenizer.backend_tokenizer
        # The unknown token stands for characters that the model lacks and ends no turn: content may yield it.
        unknown = _unknown(self._backend)
        added = {i: token for i, token in tokenizer.added_tokens_decoder.items() if token.content != unknown}
        self.added = frozenset(added)
        banned = {token.content for token in added.values()}
        self._first = _plain(self._backend, banned, name=name)
        self._inner = _plain(self._backend, banned, name=name, inner=True)
        for token in added.values():
            if self.added & set(self._inner.encode(f"a {token.content} b").ids):
                raise JudgeError(f"{name}: text that spells {token.content!r} cannot be kept from becoming that token")
        self._slots = dict(slots or {})
        pads = {slot.pad for slot in self._slots.values()}
        self.marks = {token.content: i for i, token in added.items() if not token.special and i not in pads}
        """Added tokens that the model writes as text of its own; ``<think>`` may be one."""
        self._name = name
        self._frames: dict[tuple[bool, tuple[str, ...]], tuple[list[Stretch], bool]] = {}
        for has_system in (True, False):
            self._frames[has_system, ()] = self._frame(has_system, ())
        self._shared: dict[tuple[str, tuple[str, ...]], list[int]] = {}

    def encode(self, prompt: Prompt, widths: Sequence[int] | None = None) -> Encoded:
        """The prompt's ids, a started assistant turn at the end. An empty system text leaves the system turn out.

        Args:
            widths: How many pads each medium takes; by default one, as for an engine that makes room for them itself.

        Raises:
            RefusedError: The text holds half a character (a lone surrogate), for which there are no bytes; or there are
                media of a kind that this model is not shown, or turns that its chat template does not take.
        """
        for placed in prompt.media:
            if placed.kind not in self._slots:
                raise RefusedError(f"this model cannot be shown the {placed.kind} of this prompt")
        try:
            "".join((prompt.system, *(turn.content for turn in prompt.turns), prompt.user, prompt.prefix)).encode()
        except UnicodeEncodeError as error:
            raise RefusedError(f"the prompt is no valid Unicode: {error}") from error
        roles = tuple(turn.role for turn in prompt.turns)
        frame, trims = self._frame_for(bool(prompt.system), roles)
        contents = (prompt.system, prompt.user, *(turn.content for turn in prompt.turns))
        system, user, *earlier = (text.strip() if trims else text for text in contents)
        first = EARLIER.format(0) if earlier else USER
        cut = next(i for i, stretch in enumerate(frame) if not isinstance(stretch, int) and first in stretch)
        if (shared := self._shared.get((system, roles))) is None:
            if len(self._shared) >= 64:
                self._shared.clear()
            shared = self._shared[system, roles] = self._ids(frame[:cut], {SYSTEM: system})
        trimmed = prompt.user.find(user)
        cuts = [0, *(min(max(placed.at - trimmed, 0), len(user)) for placed in prompt.media), len(user)]
        texts = {f"{USER} {i}": user[start:end] for i, (start, end) in enumerate(pairwise(cuts))}
        content = {SYSTEM: system, **texts} | {EARLIER.format(i): text for i, text in enumerate(earlier)}
        slots = [self._slots[placed.kind] for placed in prompt.media]
        shown = list(_shown(frame[cut:], list(texts), slots, widths or [1] * len(slots)))
        started: list[int] = []
        if not prompt.prefix:
            ids = shared + self._ids(shown, content, first=cut == 0)
        else:
            # The frame's last text touches the started turn; where it holds content too, neither may yield an added
            # token.
            last = shown[-1]
            if isinstance(last, int):
                ids, started = shared + self._ids(shown, content, first=cut == 0), self.write(prompt.prefix)
            elif content.keys() & set(last):
                ids, started = list(shared), self._ids([*shown[:-1], (*last, prompt.prefix)], content, first=cut == 0)
            else:
                ids, started = shared + self._ids(shown[:-1], content), self.write("".join(last) + prompt.prefix)
        ids += started
        return Encoded(
            ids=tuple(ids),
            num_shared=len(shared),
            started=tuple(started[-8:]),
            places=_places(ids, slots, widths or [1] * len(slots)),
        )

    def decode(self, ids: Sequence[int], *, after: Sequence[int] = ()) -> str:
        """The text of a reply. ``after`` are the ids before it, where its first word may hang on to them."""
        text = self._backend.decode([*after, *ids], skip_special_tokens=False)
        return text[len(self._backend.decode(list(after), skip_special_tokens=False)) :] if after else text

    def write(self, text: str) -> list[int]:
        """Ids of text of our own, in which the model's own marks (``<think>`` may be one) are what it would write."""
        if not self.marks:
            return self._inner.encode(text).ids
        marks = sorted(map(re.escape, self.marks), key=len, reverse=True)
        parts = re.split(f"({'|'.join(marks)})", text)
        return [
            i for part in parts for i in ([self.marks[part]] if part in self.marks else self._inner.encode(part).ids)
        ]

    def _ids(self, stretches: Sequence[Stretch], content: dict[str, str], *, first: bool = True) -> list[int]:
        ids: list[int] = []
        for i, stretch in enumerate(stretches):
            if isinstance(stretch, int):
                ids.append(stretch)
            else:
                backend = self._first if first and i == 0 else self._inner
                text = "".join(content.get(part, part) for part in stretch)
                ids += backend.encode(text).ids
        return ids

    def _frame_for(self, has_system: bool, roles: tuple[str, ...]) -> tuple[list[Stretch], bool]:
        if (found := self._frames.get((has_system, roles))) is None:
            try:
                found = self._frame(has_system, roles)
            except JudgeError as error:
                raise RefusedError(str(error)) from error
            if len(self._frames) >= 64:
                self._frames.clear()
            self._frames[has_system, roles] = found
        return found

    def _frame(self, has_system: bool, roles: tuple[str, ...]) -> tuple[list[Stretch], bool]:
        """The chat template's own text in stretches, and whether it trims content.

        Args:
            roles: Of the turns before the last.
        """
        turns = [*((role, EARLIER.format(i)) for i, role in enumerate(roles)), ("user", USER)]
        text = self._render([("system", SYSTEM), *turns] if has_system else turns)
        if has_system and (text is None or SYSTEM not in text or USER not in text):
            # A model without a system role reads the system text at the head of the first turn.
            (role, content), *rest = turns
            text = self._render([(role, f"{SYSTEM}\n\n{content}"), *rest])
        if text is None or text.count(SYSTEM) != has_system or any(text.count(content) != 1 for _, content in turns):
            what = f"turns of {', '.join((*roles, 'user'))}" if roles else "a user's turn"
            raise JudgeError(f"{self._name}: its chat template does not show {what} whole; give it another")
        encoding = self._backend.encode(text, add_special_tokens=False)
        frame: list[Stretch] = []
        start = 0
        for token, (begin, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if token in self.added:
                frame += [_parts(text[start:begin]), token] if begin > start else [token]
                start = end
        padded = self._render([("user", f" {USER} ")])
        return frame + ([_parts(text[start:])] if start < len(text) else []), f" {USER} " not in (padded or "")

    def _render(self, turns: list[tuple[str, str]]) -> str | None:
        from jinja2 import TemplateError

        messages = [{"role": role, "content": content} for role, content in turns]
        dates = {"date_string": TODAY.strftime("%d %b %Y"), "strftime_now": TODAY.strftime}
        try:
            text: str = self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, **dates
            )
        except TemplateError:
            return None
        return text


def _shown(
    frame: Sequence[Stretch], marks: Sequence[str], slots: Sequence[Slot], widths: Sequence[int]
) -> Iterator[Stretch]:
    """The frame with its one mark for the user's text replaced by a mark for each piece, the media between them."""
    for stretch in frame:
        if isinstance(stretch, int) or USER not in stretch:
            yield stretch
            continue
        at = stretch.index(USER)
        before: tuple[str, ...] = stretch[:at]
        for mark, slot, width in zip(marks, slots, widths, strict=False):
            yield (*before, mark)
            yield from (*slot.before, *[slot.pad] * width, *slot.after)
            before = ()
        yield (*before, marks[-1], *stretch[at + 1 :])


def _places(ids: Sequence[int], slots: Sequence[Slot], widths: Sequence[int]) -> tuple[int, ...]:
    """Where each medium's pads begin. Content yields no pads, so they are found where they were put."""
    places: list[int] = []
    at = 0
    for slot, width in zip(slots, widths, strict=True):
        places.append(ids.index(slot.pad, at))
        at = places[-1] + width
    return tuple(places)


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part for part in MARKS.split(text) if part)


def _unknown(backend: Tokenizer) -> str | None:
    """The unknown token of the model itself; what transformers calls so may be an end of text."""
    model = json.loads(backend.to_str())["model"]
    if (i := model.get("unk_id")) is not None:
        return str(model["vocab"][i][0])
    token: str | None = model.get("unk_token")
    return token


def _plain(backend: Tokenizer, banned: set[str], *, name: str, inner: bool = False) -> Tokenizer:
    """A copy of the tokenizer without added tokens, in which no text becomes a piece of ``banned``.

    ``inner``: for text that does not open the prompt, where some tokenizers put no space of their own.
    """
    spec = json.loads(backend.to_str())
    spec["added_tokens"] = []
    spec["post_processor"] = spec["truncation"] = spec["padding"] = None
    # A token may stand in the model's own vocabulary too. Its name there becomes one that no text can spell.
    vocab = spec["model"].get("vocab")
    hidden = secrets.token_hex(16)
    if isinstance(vocab, dict):
        spec["model"]["vocab"] = {f"{hidden}{i}" if piece in banned else piece: i for piece, i in vocab.items()}
    elif isinstance(vocab, list):
        spec["model"]["vocab"] = [[f"{hidden}{i}" if p in banned else p, score] for i, (p, score) in enumerate(vocab)]
    if inner:
        _replace(spec, "prepend_scheme", "first", "never")
    try:
        return Tokenizer.from_str(json.dumps(spec))
    except Exception as error:  # the tokenizers library raises nothing narrower
        raise JudgeError(f"{name}: its added tokens cannot be taken out of the vocabulary ({error})") from error


def _replace(node: Any, key: str, old: str, new: str) -> None:
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    if isinstance(node, dict) and node.get(key) == old:
        node[key] = new
    for child in children:
        if isinstance(child, dict | list):
            _replace(child, key, old, new)
