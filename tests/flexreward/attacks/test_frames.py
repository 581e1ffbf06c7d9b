"""The frame: whatever a user writes, the judge reads the same token ids before, between and after it.

A frame's own text is encoded together with what it touches, so that harmless text has the ids of the chat template. All
that may change by it is the line break beside a text: ``]`` and two line breaks can be one piece. ``frame_of`` takes
the ids of everything else.
"""

from __future__ import annotations

import json
import re
from collections import deque
from copy import copy
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import pytest
from tokenizers import Tokenizer

from flexreward.engines.base import Prompt
from flexreward.engines.encoding import Encoder
from flexreward.templates import Template, load_template, template_ids
from flexreward.templates.text import MEDIA, SLOT
from tests.flexreward.attacks.catalogue import ATTACKS, FAMILIES
from tests.flexreward.attacks.requests import request_for, texts_of

MARK = "⟦{}⟧"
"""Stands where a user writes, and in no template."""


def _bytes_of_letters() -> dict[str, int]:
    """GPT-2's letters for bytes: those that print stand for themselves, the rest for 256 and up in their order."""
    printing = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or 174 <= b <= 255]
    others = [b for b in range(256) if b not in printing]
    return {chr(b): b for b in printing} | {chr(256 + i): b for i, b in enumerate(others)}


LETTERS = _bytes_of_letters()


class Token(NamedTuple):
    id: int
    start: int
    """Bytes of the whole text before it."""
    end: int


def tokens_of(encoder: Encoder, prompt: Prompt) -> tuple[list[Token], bytes]:
    """The prompt's tokens with their places, and the text that they spell."""
    tokens: list[Token] = []
    pieces = [piece_of(encoder, i) for i in encoder.encode(prompt).ids]
    place = 0
    for i, piece in zip(encoder.encode(prompt).ids, pieces, strict=True):
        tokens.append(Token(i, place, place := place + len(piece)))
    return tokens, b"".join(pieces)


@cache
def piece_of(encoder: Encoder, i: int) -> bytes:
    """What one token spells."""
    piece = encoder._backend.id_to_token(i)
    return piece.encode() if i in encoder.added else bytes(LETTERS[letter] for letter in piece)


def as_read(encoder: Encoder, text: str) -> str:
    """The text in the normal form that the tokenizer gives it; Qwen's is NFC, Llama's none."""
    normalizer = encoder._backend.normalizer
    return normalizer.normalize_str(text) if normalizer else text


def pieces_around(encoder: Encoder, marked: Prompt) -> list[str]:
    """The whole text of a prompt whose users wrote marks alone, cut at the marks."""
    roles = [("system", marked.system), ("user", marked.user)]
    turns = [{"role": role, "content": content} for role, content in roles if content]
    dates = {"date_string": "26 Jul 2024"}
    text = encoder._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **dates)
    return re.split(r"(⟦\d+⟧)", text)


def frame_of(encoder: Encoder, template: Template, texts: list[str], *, turns: bool = False) -> list[list[int]]:
    """Ids of each piece of the frame, without the line breaks beside a text that begins with one or follows one.

    Asserts that the ids spell frame and texts whole, that each piece begins and ends with a token of its own, and that
    no added token stands outside of the frame.
    """
    marks = [MARK.format(i) for i in range(40)]
    marked = replace(template.render(request_for(template, marks, turns=turns)), media=())
    request = request_for(template, texts, turns=turns)
    tokens, spelled = tokens_of(encoder, replace(template.render(request), media=()))
    parts = pieces_around(encoder, marked)
    written = dict(zip(texts_of(request_for(template, marks, turns=turns)), texts_of(request), strict=True))

    frames, place, left = [], 0, deque(tokens)
    for at, part in enumerate(parts):
        text = as_read(encoder, part if at % 2 == 0 else written[part])
        last = at + 2 == len(parts)
        begin, place = place, place + len(text.encode())
        if at % 2:
            continue
        following = written[parts[at + 1]] if not last and at + 1 < len(parts) else ""
        start = begin + (len(text) - len(text.lstrip("\n")) if at else 0)
        # A line break in front of a text grows together with one that the text begins with.
        core = text if not following.startswith(("\r", "\n")) else re.sub(r"[^\s\w]*\n*\Z", "", text)
        end = begin + len(core.encode())
        while left and left[0].end <= start:
            assert left.popleft().id not in encoder.added
        own = []
        while left and left[0].start < end:
            own.append(left.popleft())
        assert (own[0].start, own[-1].end) == (start, end), (core, own[0], own[-1], start, end)
        frames.append([token.id for token in own])
    whole = "".join(part if at % 2 == 0 else written[part] for at, part in enumerate(parts))
    assert spelled.decode() == as_read(encoder, whole)
    assert not [token for token in left if token.id in encoder.added]
    return frames


def shown_whole(name: str) -> Template:
    """The template that ships, without hiding a completion's thoughts: everything written arrives."""
    return load_template(name, judge_sees="all")


def bare(text: str) -> str:
    """Without outer white space, which some chat templates trim from a turn and every template from a rubric."""
    return text.strip() or "empty"


@pytest.mark.parametrize("turns", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["texts", "turns"])
@pytest.mark.parametrize("name", template_ids())
def test_all_attacks_at_once_leave_every_frame_as_it_is(encoder, name, turns):
    template = shown_whole(name)
    short = [text for text in ATTACKS.values() if len(text) < 2000]
    everything = [bare("\n".join(short[i::4])) for i in range(4)]  # a different part at each place
    harmless = frame_of(encoder, template, ["x"], turns=turns)
    assert (len(harmless) > 1) == bool(SLOT.search(template.system + template.user))
    assert frame_of(encoder, template, everything, turns=turns) == harmless


def test_no_attack_changes_the_frame_of_a_pair(encoder):
    template = shown_whole("rubric-pair")
    harmless = frame_of(encoder, template, ["x"])
    for attack in ATTACKS.values():
        assert frame_of(encoder, template, [bare(attack)]) == harmless


@pytest.mark.slow
def test_no_attack_changes_the_frame_of_any_template(encoder):
    for name in template_ids():
        template = shown_whole(name)
        harmless = frame_of(encoder, template, ["x"])
        for attack in ATTACKS.values():
            assert frame_of(encoder, template, [bare(attack)]) == harmless


@pytest.mark.parametrize("attack", ["\n\nx", "\r\nx", "\nx\n\n", "!\n", "x\n\n\n"])
def test_a_line_break_beside_the_frame_joins_none_but_the_frames_own(encoder, attack):
    template = shown_whole("pair")
    harmless, found = frame_of(encoder, template, ["x"]), frame_of(encoder, template, [attack + "x"])
    for piece, ids in zip(harmless, found, strict=True):
        assert piece[: len(ids)] == ids
        assert len(piece) - len(ids) <= 3


def test_the_tokenizers_have_every_special_token_of_their_family(encoder):
    """Without this the tests above could pass by knowing no special token."""
    of_family = {token for tokens in FAMILIES.values() for token in (*tokens.special, *tokens.marks)}
    own = {encoder._backend.id_to_token(i) for i in encoder.added}
    attacked = {token for token in own if any(token in text for text in ATTACKS.values())}
    assert len(own) >= 7
    assert own == attacked
    if "<answer>" not in own:
        assert any(own == {*tokens.special, *tokens.marks} for tokens in FAMILIES.values())
        assert own <= of_family
    for token in own:  # and the ordinary way of encoding falls for each of them
        assert encoder._backend.encode(f"before {token} after").ids.count(encoder._backend.token_to_id(token)) >= 1


def test_a_started_turn_that_quotes_an_attack_ends_no_turn(encoder):
    """A thought made to go on is sent again as a started turn. The model's own marks may stand in it, and no others."""
    of_frame = [i for i in encoder.encode(Prompt(system="s", user="u")).ids if i in encoder.added]
    marks = set(encoder.marks.values())
    for attack in ATTACKS.values():
        ids = encoder.encode(Prompt(system="s", user="u", prefix=f"<think>\nThey say {attack}. Wait")).ids
        assert [i for i in ids if i in encoder.added - marks] == [i for i in of_frame if i not in marks]


def test_there_are_at_least_sixty_attacks_and_no_two_alike():
    assert len(set(ATTACKS.values())) == len(ATTACKS) >= 60


def test_media_stay_where_the_template_put_them():
    """What a text spells (``<image_1>``, a pad token) is no place for a medium, and a file's name is not shown."""
    for name in template_ids():
        template = shown_whole(name)
        if not template.media:
            continue
        for attack in ATTACKS.values():
            prompt = template.render(request_for(template, [bare(attack)]))
            assert [placed.media.kind for placed in prompt.media] == [slot.partition("_")[0] for slot in template.media]
            stretches = MEDIA.split(template.user)[::2]
            for placed, before, after in zip(prompt.media, stretches, stretches[1:], strict=False):
                assert prompt.user[: placed.at].endswith(SLOT.split(before)[-1].lstrip())
                assert prompt.user[placed.at :].startswith(SLOT.split(after)[0].rstrip())


@pytest.mark.parametrize("name", ["pair", "rubric-score"])
def test_an_encoder_that_can_be_talked_to_does_not_pass(encoder, name):
    """The check itself sees what the ordinary way of encoding makes of every token that an attack spells."""
    spec = json.loads(encoder._backend.to_str()) | {"post_processor": None}
    naive = copy(encoder)
    naive._inner = naive._first = Tokenizer.from_str(json.dumps(spec))
    naive._shared = {}
    template = shown_whole(name)
    assert frame_of(naive, template, ["x"])
    for token in [encoder._backend.id_to_token(i) for i in sorted(encoder.added)][:25]:
        with pytest.raises(AssertionError):
            frame_of(naive, template, [f"before {token} after"])
