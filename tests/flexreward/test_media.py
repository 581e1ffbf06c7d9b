"""Images, videos and sounds in requests: where they stand, what they are called, and who cannot be shown them."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from hashlib import sha256

import pytest

from flexreward.engines.base import Capabilities, Placed, Prompt, Sampling
from flexreward.engines.scripted import ScriptedEngine
from flexreward.engines.scripts import SCRIPTS
from flexreward.errors import RefusedError, SampleError
from flexreward.files.outcome_file import OutcomeFile
from flexreward.files.outcomes import Item, encode, header_of, outcome_row, request_digest
from flexreward.judge import Judge
from flexreward.ledger import Ledger
from flexreward.ledger.audit import audit
from flexreward.ledger.purchase import Purchase, name_of
from flexreward.ledger.purchase import decode as decode_purchase
from flexreward.ledger.purchase import encode as encode_purchase
from flexreward.ledger.store import Store
from flexreward.order import flip
from flexreward.templates import load_template, template_ids
from flexreward.types import JudgeRequest, Media, Message, Reason, Reply, Unscored


def image(data: bytes = b"cat") -> Media:
    return Media(kind="image", data=data)


def spelled(prompt: Prompt) -> str:
    """The user's turn with each medium's content in its place."""
    text, start = "", 0
    for at, media in prompt.media:
        text += prompt.user[start:at] + f"<{media.data.decode()}>"
        start = at
    return text + prompt.user[start:]


# What a medium is


@pytest.mark.parametrize("where", [{}, {"path": os.devnull, "data": b""}])
def test_a_medium_is_a_path_or_bytes_and_never_both(where):
    with pytest.raises(ValueError, match=f"image: expected a path or bytes, found {'both' if where else 'neither'}"):
        Media(kind="image", **where)


def test_a_medium_is_named_by_its_content_wherever_it_lies(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"cat")
    assert Media(kind="image", path=path).digest == image().digest == sha256(b"cat").hexdigest()
    path.write_bytes(b"doge")
    assert Media(kind="image", path=path).digest == sha256(b"doge").hexdigest()


def test_a_medium_that_is_gone_is_one_line(tmp_path):
    with pytest.raises(SampleError, match=r"gone\.png: cannot be read: No such file or directory; put the image back"):
        _ = Media(kind="image", path=tmp_path / "gone.png").digest


# Where it stands


def test_media_of_the_prompt_and_of_the_completions_stand_where_the_template_has_their_slots():
    request = JudgeRequest(prompt="edit", completions=(image(b"one"), image(b"two")), media=(image(b"source"),))
    prompt = load_template("gen-edit").render(request)
    assert spelled(prompt) == (
        "edit\n\n[Source Image]\n<source>\n\n[Assistant A's Edited Image]\n<one>\n\n[Assistant Edited B's Image]\n<two>"
    )
    swapped = load_template("gen-edit").render(flip(request))
    assert [placed.media.data for placed in swapped.media] == [b"source", b"two", b"one"]
    assert swapped.user == prompt.user


def test_two_sounds_of_the_prompt_come_in_turn_and_the_claim_is_what_is_scored():
    sounds = tuple(Media(kind="audio", data=name) for name in (b"one", b"two"))
    prompt = load_template("ss").render(JudgeRequest(prompt="", completions=("the claim",), media=sounds))
    assert "(1) <one>\n(2) <two>\n\n" in spelled(prompt)


def test_a_text_that_spells_a_slot_makes_no_medium():
    request = JudgeRequest(prompt="<image>", completions=("<image_1>", "b"), media=(image(),))
    prompt = load_template("image-pair").render(request)
    assert prompt.media == (Placed(0, image()),)
    assert spelled(prompt).startswith("<cat>\n\n[Question]\n<image>\n\n[Assistant 1's Answer]\n<image_1>")


def test_the_listwise_turn_is_stripped_as_if_its_image_were_text():
    request = JudgeRequest(prompt="q", completions=("a", "b \n"), media=(image(),))
    assert spelled(load_template("image-batch").render(request)) == (
        "<cat>\n\n[Question]\nq\n\n[Assistant 1's Answer]\na\n\n[Assistant 2's Answer]\nb"
    )


TEXTS = ("a", "b")


@pytest.mark.parametrize(("name", "request_", "message"), [
    ("image-pair", {"completions": TEXTS}, "expected image as a medium of the prompt, found none"),
    ("image-pair", {"completions": TEXTS, "media": (Media(kind="audio", data=b""),)}, "expected image .*, found audio"),
    ("image-pair", {"completions": TEXTS, "media": (image(), image())}, "brings 2 media and 1 would be shown"),
    ("pair", {"completions": TEXTS, "media": (image(),)}, "the prompt brings 1 media and 0 would be shown"),
    ("pair", {"completions": ("a", image())}, "expected text as completion 2, found image"),
    ("mj-align", {"completions": (image(), "b")}, "expected image as completion 2, found text"),
    ("gen-video", {"completions": (image(), image())}, "expected video as completion 1, found image"),
    ("ss", {"completions": ("a",), "media": (Media(kind="audio", data=b""),)}, "expected audio .*, found none"),
])  # fmt: skip
def test_a_medium_that_is_missing_superfluous_or_of_another_kind_is_one_line(name, request_, message):
    with pytest.raises(SampleError, match=f"^template '{name}': [^\n]*{message}[^\n]*$"):
        load_template(name).render(JudgeRequest(prompt="q", **request_))


# Who cannot be shown it


class Blind(ScriptedEngine):
    can = Capabilities(token_ids=True, modalities=frozenset({"text", "image"}))


SOUND = JudgeRequest(prompt="q", completions=(Media(kind="audio", data=b"hm"),))


def good(prompt: Prompt) -> str:
    return "<think></think>" + "<answer>4</answer>" * max(1, len(prompt.media))


def test_an_engine_that_does_not_take_the_modality_is_never_asked_and_the_row_is_refused():
    engine = Blind(good)
    (judgment,) = Judge(engine, load_template("mos")).judge_now([SOUND])
    assert judgment.outcome == Unscored(
        reason=Reason.REFUSED, detail="the engine reads image, text, and the prompt shows audio"
    )
    assert engine.num_calls == 0


def test_the_scripted_engine_takes_all_modalities():
    request = JudgeRequest(prompt="q", completions=(image(b"one"), image(b"two")))
    (judgment,) = Judge(ScriptedEngine(good), load_template("mj-align")).judge_now([request])
    assert judgment.outcome.scores == (4, 4)
    (judgment,) = Judge(ScriptedEngine(good), load_template("mos")).judge_now([SOUND])
    assert judgment.outcome.scores == (4,)


@pytest.mark.parametrize(("name", "first", "longer"), [
    ("mj-align", (10, 1), (1, 1)),
    ("gen-image", (1, 0), (1, 1)),
    ("gen-edit", (1, 0), (1, 1)),
    ("mos", (5,), None),
    ("mos-bvcc", (5,), (1,)),
    ("ss", (5,), None),
])  # fmt: skip
def test_the_bundled_scripts_answer_on_the_scale_of_templates_that_show_media(name, first, longer):
    template = load_template(name)
    kind = template.media[-1].partition("_")[0]
    own = tuple(Media(kind=kind, data=b"own") for slot in template.media if "_" not in slot)
    judged = [Media(kind=kind, data=b"%d" % slot) for slot in range(1, template.num_completions + 1)]
    completions = ("claim",) if name == "ss" else tuple(judged)
    request = JudgeRequest(prompt="q", completions=completions, media=own)
    for script, scores in (("first", first), ("longer", longer)):
        (judgment,) = Judge(ScriptedEngine(SCRIPTS[script]), template, both_orders=False).judge_now([request])
        assert scores in (None, judgment.outcome.scores)
        assert all(score in template.scale for score in judgment.outcome.scores)


async def test_a_model_of_text_refuses_media_even_when_it_is_asked_directly(checkpoint):
    from flexreward.engines.transformers import TransformersEngine

    engine = TransformersEngine(checkpoint)
    request = JudgeRequest(prompt="q", completions=("a",), media=(image(),))
    outcome = (await Judge(engine, load_template("image-score")).judge(request)).outcome
    assert outcome == Unscored(reason=Reason.REFUSED, detail="the engine reads text, and the prompt shows image")
    prompt = load_template("image-score").render(request)
    with pytest.raises(RefusedError, match="this model cannot be shown the image of this prompt"):
        await anext(engine.generate(prompt, Sampling()))
    await engine.close()


# What they change, and what they do not


def test_whatever_names_a_text_is_what_it_was_before_there_were_media():
    turns = (Message(role="user", content="é\ud800"), Message(role="assistant", content="b"))
    request = JudgeRequest(prompt=turns, completions=(turns, "b"), rubric="r", reference="f")
    assert request_digest(JudgeRequest(prompt="q", completions=TEXTS, id="x")) == "aa3111511b07df49"
    assert request_digest(request) == "e1756683a515dd18"
    prompt = Prompt(system="s", user="u\n", prefix="<think>")
    assert name_of(prompt, source="x", namespace="") == (
        "269ac71ceb1c5fa48ad5733ece5ae8f9fedc30e8d0b04b01b474b374f20a41cb",
        1358278636168075,
    )
    bought = Purchase(engine={"engine": "e"}, prompt=prompt, sampling=Sampling(), replies=(Reply(text="a"),))
    assert sha256(encode_purchase(bought)).hexdigest().startswith("f9cfc954503dde4d")
    digests = [load_template(name).digest for name in template_ids() if not name.startswith("mol-")]
    assert sha256("".join(digests).encode()).hexdigest().startswith("4bef3720c7edd045")


def test_requests_differ_by_the_content_of_their_media_and_by_nothing_else_of_them(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"cat")
    base = JudgeRequest(prompt="q", completions=("a", image()), media=(image(),))
    same = replace(base, media=(Media(kind="image", path=path),), completions=("a", Media(kind="image", path=path)))
    others = [
        replace(base, media=()),
        replace(base, media=(image(b"dog"),)),
        replace(base, completions=("a", image(b"dog"))),
        replace(base, media=(Media(kind="video", data=b"cat"),)),
        replace(base, media=(image(), image())),
    ]
    assert request_digest(base) == request_digest(same)
    assert len({request_digest(one) for one in [base, *others]}) == 1 + len(others)


def test_replies_are_found_again_by_the_media_that_were_shown(tmp_path):
    with Store(tmp_path / "store.db") as store:
        engine = ScriptedEngine(good)
        judge = Judge(engine, load_template("image-score"), ledger=Ledger(store))
        cat, dog = (JudgeRequest(prompt="q", completions=("a",), media=(image(name),)) for name in (b"cat", b"dog"))
        judge.judge_now([cat, cat, dog])
        assert engine.num_calls == 2
        judge.judge_now([cat, dog])
        assert engine.num_calls == 2


def test_a_store_keeps_what_media_are_called_and_replays_none_of_them(tmp_path):
    prompt = Prompt(system="s", user="u", media=(Placed(1, image(b"bytes of a cat")),))
    value = encode_purchase(Purchase(engine={}, prompt=prompt, sampling=Sampling(), replies=()))
    assert b"bytes of a cat" not in value
    assert image(b"bytes of a cat").digest.encode() in value
    assert not decode_purchase(value).whole
    engine = ScriptedEngine(good)
    with Store(tmp_path / "store.db") as store:
        judge = Judge(engine, load_template("image-score"), ledger=Ledger(store))
        judge.judge_now([JudgeRequest(prompt="q", completions=("a",), media=(image(),))])
        found = asyncio.run(audit(store, engine=engine))
    assert (found.sound, found.num_same, found.num_others) == (True, 0, 1)


def test_an_outcome_line_of_media_is_json_without_their_bytes(tmp_path):
    judge = Judge(ScriptedEngine(good), load_template("mj-align"))
    request = JudgeRequest(id="x", prompt="q", completions=(image(b"bytes one"), image(b"bytes two")))
    (judgment,) = judge.judge_now([request])
    line = encode(outcome_row(judgment, Item(request, {})))
    assert b"bytes" not in line
    path = tmp_path / "out.jsonl"
    with OutcomeFile(path, header_of(judge)) as file:
        file.add(judgment, Item(request, {}))
    with OutcomeFile(path, header_of(judge)) as file:
        assert list(file.remaining([Item(request, {})], lambda count: None)) == []
