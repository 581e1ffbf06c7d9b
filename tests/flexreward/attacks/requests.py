"""One request for each template that ships, with texts of one's own wherever a user may write."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle

from flexreward.templates import Template
from flexreward.types import Completion, JudgeRequest, Media, Message


def request_for(template: Template, texts: Sequence[str], *, turns: bool = False, id: str = "") -> JudgeRequest:
    """The texts one after the other, over again where they end: prompt, completions, rubric, reference.

    Args:
        turns: The prompt and every completion are conversations of several turns, each with a text of its own.
        id: The request's name. The file names and the contents of its media are made of texts too.
    """
    text = cycle(texts)

    def spoken(*roles: str) -> str | tuple[Message, ...]:
        return tuple(Message(role=role, content=next(text)) for role in roles) if turns else next(text)

    def medium(slot: str) -> Media:
        return Media(kind=slot.partition("_")[0], data=next(text).encode("utf-8", "replace"))  # type: ignore[arg-type]

    of_completions = {int(slot.rpartition("_")[2]): slot for slot in template.media if "_" in slot}
    prompt = spoken("system", "user", "tool", "assistant", "user")
    completions: list[Completion] = [
        medium(of_completions[number]) if number in of_completions else spoken("assistant", "tool", "assistant")
        for number in range(1, (template.num_completions or 3) + 1)
    ]
    return JudgeRequest(
        id=id,
        prompt=prompt,
        completions=tuple(completions),
        media=tuple(medium(slot) for slot in template.media if "_" not in slot),
        rubric=next(text),
        reference=next(text),
        molecules=("CCO",) if "<molecule>" in template.user else (),
    )


def texts_of(request: JudgeRequest) -> Iterator[str]:
    """Everything in the request that a user has written and that a template may show."""
    for part in (request.prompt, *request.completions):
        if isinstance(part, str):
            yield part
        elif isinstance(part, tuple):
            yield from (turn.content for turn in part)
    yield from (part for part in (request.rubric, request.reference) if part)
