"""Single replies that are asked for at once: in one call, each answered as it ends, and nobody writes for nobody."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from flexreward.engines.base import Prompt, Sampling
from flexreward.engines.together import LARGEST, Together
from flexreward.errors import EngineError
from flexreward.serving.copies import Copy as ServedCopy
from flexreward.serving.copies import as_they_end
from flexreward.types import Reply

ONE = Sampling()


class Copy:
    """A handle to a copy that answers each prompt with its text, once ``let`` says so."""

    def __init__(self):
        self.calls = []
        self.cancelled = []
        self.left = []
        self.named = []
        self.let = {}
        self.dies_after = None
        self.reply, self.replies = _Method(self, "reply"), _Method(self, "replies")

    def options(self, **_):
        return self

    def broadcast(self, method, call, places):
        (texts,) = [texts for _, _, texts, name in self.named if name == call]
        self.left.append((method, [texts[place] for place in places]))
        return SimpleNamespace(results_async=self.heard)

    async def heard(self, **_):
        return [None]

    def when(self, text):
        return self.let.setdefault(text, asyncio.Event())

    async def answer(self, prompt):
        await self.when(prompt.user).wait()
        return prompt.user


class _Method:
    def __init__(self, copy, name):
        self._copy, self._name = copy, name

    def remote(self, key, *arguments):
        prompts = [arguments[0]] if self._name == "reply" else [prompt for prompt, _ in arguments[0]]
        call = (self._name, key, [prompt.user for prompt in prompts])
        self._copy.calls.append(call)
        self._copy.named.append((*call, arguments[-1]))
        return _Call(self._copy, call, prompts)


class _Call:
    def __init__(self, copy, call, prompts):
        self._copy, self._call, self._prompts = copy, call, prompts

    def cancel(self):
        self._copy.cancelled.append(self._call)

    def __await__(self):
        return self._copy.answer(self._prompts[0]).__await__()

    async def __aiter__(self):
        count = 0
        async for found in as_they_end([self._copy.answer(prompt) for prompt in self._prompts]):
            yield found
            count += len(found)
            if count == self._copy.dies_after:
                raise ConnectionError("the copy died")


def asked(together, *texts, key=""):
    return [asyncio.ensure_future(together.reply(key or text[0], Prompt(system="", user=text), ONE)) for text in texts]


async def turns(count=5):
    for _ in range(count):
        await asyncio.sleep(0)


async def test_what_is_asked_in_one_turn_goes_in_one_call_and_comes_back_as_it_ends():
    copy = Copy()
    first, second, third = asked(Together(copy, "m", which="all"), "a1", "b1", "a2")
    await turns()
    assert [call[2] for call in copy.calls] == [["a1", "b1", "a2"]]
    copy.when("b1").set()
    assert await second == "b1"
    assert not first.done()
    copy.when("a1").set(), copy.when("a2").set()
    assert await asyncio.gather(first, third) == ["a1", "a2"]
    assert copy.cancelled == []


async def test_prompts_of_one_key_go_together_where_several_copies_share_them():
    copy = Copy()
    waiting = asked(Together(copy, "m", which="key"), "a1", "b1", "a2")
    await turns()
    assert copy.calls == [("replies", "a", ["a1", "a2"]), ("reply", "b", ["b1"])]
    for text in ("a1", "a2", "b1"):
        copy.when(text).set()
    assert await asyncio.gather(*waiting) == ["a1", "b1", "a2"]


async def test_where_calls_are_counted_each_prompt_is_one():
    copy = Copy()
    for text in ("a1", "a2"):
        copy.when(text).set()
    assert await asyncio.gather(*asked(Together(copy, "m", which="none"), "a1", "a2")) == ["a1", "a2"]
    assert [call[0] for call in copy.calls] == ["reply", "reply"]


async def test_no_call_holds_more_than_its_most():
    copy = Copy()
    texts = [f"a{i}" for i in range(LARGEST + 1)]
    for text in texts:
        copy.when(text).set()
    assert await asyncio.gather(*asked(Together(copy, "m", which="all"), *texts)) == texts
    assert [len(call[2]) for call in copy.calls] == [LARGEST, 1]


async def test_a_call_is_cancelled_once_nobody_waits_for_any_of_it():
    copy = Copy()
    together = Together(copy, "m", which="all")
    first, second = asked(together, "a1", "a2")
    (alone,) = asked(together, "c1", key="c")
    await turns()
    first.cancel()
    await turns()
    assert copy.cancelled == []
    assert copy.left == [("leave", ["a1"])]
    second.cancel(), alone.cancel()
    await turns()
    assert copy.cancelled == [("replies", "", ["a1", "a2", "c1"])]
    assert len(copy.left) == 1


async def test_of_a_call_that_others_wait_for_a_caller_that_goes_takes_just_its_own_prompts():
    copy = Copy()
    waiting = asked(Together(copy, "m", which="all"), "a1", "b1", "a2", "a3")
    await turns()
    copy.when("a3").set()
    assert await waiting[3] == "a3"
    waiting[0].cancel(), waiting[2].cancel()
    await turns()
    assert copy.left == [("leave", ["a1", "a2"])]
    copy.when("b1").set()
    assert await waiting[1] == "b1"
    assert copy.cancelled == []


class Writing(ServedCopy):
    """A copy that writes until it is let end, and knows what it was stopped from writing."""

    def __init__(self):
        self.stopped = []
        self.end = asyncio.Event()

    async def generate(self, key, prompt, sampling, model):
        try:
            await self.end.wait()
            yield Reply(text=prompt.user)
        except asyncio.CancelledError:
            self.stopped.append(prompt.user)
            raise


async def test_a_copy_writes_no_further_what_it_is_told_to_leave_and_ends_the_rest_of_the_call():
    copy = Writing()
    prompts = [(Prompt(system="", user=text), ONE) for text in ("a", "b", "c")]

    async def answered():
        return [one async for some in copy.replies("key", prompts, "m", "call") for one in some]

    answering = asyncio.create_task(answered())
    await turns()
    await copy.leave("another", [0])
    await copy.leave("call", [0, 2])
    await turns()
    assert copy.stopped == ["a", "c"]
    copy.end.set()
    assert [(place, reply.text) for place, reply in await answering] == [(1, "b")]
    await copy.leave("call", [1])


async def test_what_had_come_before_a_copy_died_is_kept_and_the_rest_fails():
    copy = Copy()
    copy.dies_after = 1
    first, second = asked(Together(copy, "m", which="all"), "a1", "a2")
    await turns()
    copy.when("a1").set()
    assert await first == "a1"
    with pytest.raises(ConnectionError):
        await second


async def test_a_stream_that_ends_early_leaves_nobody_waiting():
    class Mute(Copy):
        def options(self, **_):
            return self

    copy = Mute()
    copy.replies.remote = lambda key, asked, model, call: _Nothing()
    first, second = asked(Together(copy, "m", which="all"), "a1", "a2")
    for one in (first, second):
        with pytest.raises(EngineError, match="without a reply"):
            await one


class _Nothing:
    def cancel(self):
        pass

    async def __aiter__(self):
        for nothing in ():
            yield nothing
