"""The escape for remote servers holds against every attack, on tokenizers that let every special token through."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexreward.engines.escape import Escape
from tests.flexreward.attacks.catalogue import ATTACKS


def escape_for(encoder) -> Escape:
    """As a recipe would name it: the bundled judge's own tags are further special tokens of its model."""
    own = {encoder._backend.id_to_token(i) for i in encoder.added}
    return Escape(more=tuple(sorted(token for token in own if not token.startswith("<|") and "tool_call" not in token)))


def added_in(encoder, text: str) -> list[str]:
    ids = encoder._backend.encode(text, add_special_tokens=False).ids
    return [encoder._backend.id_to_token(i) for i in ids if i in encoder.added]


def test_no_special_token_arises_from_an_escaped_attack(encoder):
    escape = escape_for(encoder)
    assert any(added_in(encoder, attack) for attack in ATTACKS.values())
    for name, attack in ATTACKS.items():
        assert added_in(encoder, escape.apply(attack)) == [], name
        assert escape.undo(escape.apply(attack)) == attack


@given(parts=st.lists(st.sampled_from([*ATTACKS.values(), "<", "|", "\u2060", "<|", "im_end|>"]), max_size=5))
def test_nor_from_attacks_together(encoder, parts):
    escape, text = escape_for(encoder), "".join(parts)
    assert added_in(encoder, escape.apply(text)) == []
    assert escape.undo(escape.apply(text)) == text


@pytest.mark.parametrize(
    "attack", [a for a in ATTACKS.values() if "<|" not in a and "tool_" not in a and "｜" not in a]
)
def test_what_spells_no_token_is_sent_as_it_was_written(attack):
    assert Escape().apply(attack) == attack
