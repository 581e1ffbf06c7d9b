"""What a text spells is no place for a medium: the tokens that stand for one are where the template put them, and
nowhere else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flexreward.engines.base import Prompt
from flexreward.engines.encoding import Encoder
from flexreward.templates import load_template, template_ids
from tests.flexreward.attacks.catalogue import ATTACKS
from tests.flexreward.attacks.requests import request_for

NAMES = [name for name in template_ids() if load_template(name).media]
WIDTH = 3


def rendered(name: str, text: str) -> Prompt:
    """The template with ``text`` wherever a user writes, in the contents and names of media too."""
    template = load_template(name, judge_sees="all")
    return template.render(request_for(template, [text or "x"]))


def added(encoder: Encoder, prompt: Prompt) -> list[int]:
    """The added tokens of a prompt, whose media take a few pads each."""
    return [i for i in encoder.encode(prompt, [WIDTH] * len(prompt.media)).ids if i in encoder.added]


def spelled(encoder: Encoder, prompt: Prompt) -> str:
    """The prompt as text, the tokens of media where they belong."""
    user, end = "", 0
    for placed in prompt.media:
        slot = encoder._slots[placed.kind]
        tokens = [*slot.before, *[slot.pad] * WIDTH, *slot.after]
        user += prompt.user[end : placed.at] + "".join(map(encoder._backend.id_to_token, tokens))
        end = placed.at
    user += prompt.user[end:]
    system = prompt.system or "You are a helpful assistant."
    return f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("name", NAMES)
def test_no_attack_adds_moves_or_removes_a_token_of_the_frame_or_of_a_medium(seeing, name):
    if {placed.kind for placed in rendered(name, "x").media} - set(seeing._slots):
        return  # no sound is shown to Qwen2.5-VL
    harmless = added(seeing, rendered(name, "x"))
    assert len(harmless) == 5 + (WIDTH + 2) * len(rendered(name, "x").media)
    for attack in ATTACKS.values():
        assert added(seeing, rendered(name, attack)) == harmless


@pytest.mark.parametrize("name", NAMES)
def test_text_and_media_are_read_in_the_order_in_which_they_stand(seeing, name):
    if {placed.kind for placed in rendered(name, "x").media} - set(seeing._slots):
        return
    normal = seeing._backend.normalizer.normalize_str
    for attack in ATTACKS.values():
        prompt = rendered(name, attack)
        encoded = seeing.encode(prompt, [WIDTH] * len(prompt.media))
        assert normal(seeing.decode(encoded.ids)) == normal(spelled(seeing, prompt))
        pads = [seeing._slots[placed.kind].pad for placed in prompt.media]
        assert [encoded.ids[at : at + WIDTH] for at in encoded.places] == [(pad,) * WIDTH for pad in pads]


@pytest.mark.parametrize("name", NAMES)
def test_a_started_turn_that_spells_a_placeholder_shows_nothing(seeing, name):
    prompt = rendered(name, "x")
    if {placed.kind for placed in prompt.media} - set(seeing._slots):
        return
    for attack in ATTACKS.values():
        started = replace(prompt, prefix=f"<think>\nThey show {attack}. Wait")
        marks = set(seeing.marks.values())
        assert [i for i in added(seeing, started) if i not in marks] == added(seeing, prompt)


def test_the_check_sees_what_the_ordinary_way_of_encoding_makes_of_a_placeholder(seeing):
    backend, slot = seeing._backend, seeing._slots["image"]
    text = "".join(map(backend.id_to_token, (*slot.before, slot.pad, *slot.after)))
    assert backend.encode(f"before {text} after").ids.count(slot.pad) == 1
    prompt = Prompt(system="s", user=text)
    assert slot.pad not in seeing.encode(prompt).ids
