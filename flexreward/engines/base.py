"""The one seam to a model: a rendered prompt in, replies out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, Protocol

from flexreward.errors import RefusedError
from flexreward.parse import Reasoning
from flexreward.types import Media, Molecule, Reply

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True, kw_only=True, eq=False)
class Embeddings:
    """Rows of a model's input that stand for no token: what another encoder made, such as a molecule's queries."""

    rows_TD: npt.NDArray[np.float32] = field(repr=False)
    """(T, D), D the width of the model; T at least 1."""
    kind: str = field(default="embeddings", init=False)

    @cached_property
    def digest(self) -> str:
        """sha256 of the rows, which names them wherever a prompt is named."""
        return hashlib.sha256(f"{self.rows_TD.shape}".encode() + self.rows_TD.astype("<f4").tobytes()).hexdigest()


class Placed(NamedTuple):
    """A medium between two characters of the user's turn."""

    at: int
    """How many characters of ``user`` stand before it. Nothing in the text marks the place, so none can forge it."""
    media: Media | Molecule | Embeddings

    @property
    def kind(self) -> str:
        """``image``, ``video``, ``audio``, ``molecule`` or ``embeddings``."""
        return self.media.kind


class Answer(NamedTuple):
    """What a reply must end with, where the engine asks for it (see ``flexreward.engines.forced``)."""

    pattern: str
    """A regular expression for all answers together. They follow what stands in the started turn, or the thought."""
    longest: int
    """Characters of the longest text that matches, a byte each: no model needs more tokens for it."""
    thought: Reasoning
    """Where the thought stands: before the answers, after them or nowhere."""


class Turn(NamedTuple):
    """One turn of a conversation that a policy is to go on with."""

    role: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What the model reads, before it becomes tokens.

    ``system`` and ``user`` are content: a local engine encodes them so that no special token can arise from them.
    ``prefix`` is a started assistant turn and is ours alone, so it is encoded like the model's own writing.
    """

    system: str
    user: str
    prefix: str = ""
    media: tuple[Placed, ...] = ()
    """In the order shown; several may stand at one place."""
    answer: Answer | None = None
    """For an engine that forces one, and for no other."""
    turns: tuple[Turn, ...] = ()
    """Between the system text and ``user``, which is the last turn. A judge is shown none; their content is as
    ``user``'s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How replies are drawn. All of it enters the judge's fingerprint."""

    temperature: float = 0.0
    """0 is greedy."""
    top_p: float = 1.0
    max_tokens: int = 1024
    """New tokens a reply, a started turn not counted."""
    n: int = 1
    """Replies from one prefill."""
    seed: int = 0
    """Reply ``i`` is drawn from (seed, i) and from nothing else: neither batch nor time."""
    stop: tuple[str, ...] = ()
    """Strings that end a reply; they stay in its text."""
    logprobs: int = 0
    """Alternatives to report at each token; 0 reports none."""
    at_once: int | None = None
    """Replies to begin at once. Those after them begin when one more is asked for than these: who has enough by then
    never has them written.

    ``None`` is all. The one field that enters no fingerprint: it changes when a reply is written, never what it says.
    """
    pattern: str | None = None
    """A regular expression that the whole of what is written must match; the reply ends with it. Log-probabilities stay
    those of a judge that may write anything."""

    def is_whole(self, text: str) -> bool:
        """Whether ``text`` is all that ``pattern`` asks for, so that it is no cut reply wherever it ended."""
        return self.pattern is not None and re.fullmatch(self.pattern, text) is not None


def begins(number: int, at_once: int | None, total: int) -> range:
    """The replies to begin when reply ``number`` of those that come is asked for; see ``Sampling.at_once``."""
    first = total if at_once is None else min(at_once, total)
    if number == 0:
        return range(first)
    return range(first, total) if number == first else range(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What an engine can do. A request that needs more is refused by name, never done halfway."""

    token_ids: bool = False
    """Content is encoded here, so no special token can arise from it."""
    prefix: bool = False
    """A started assistant turn is continued."""
    logprobs: bool = False
    constrained: bool = False
    """What is written can be held to ``Sampling.pattern``."""
    held_logprobs: bool = False
    """Log-probabilities can be had of what is held to a pattern too."""
    modalities: frozenset[str] = frozenset({"text"})
    """``text``, and the kinds of media that are shown to the model."""
    counts: bool = False
    """``count_tokens`` and ``max_context`` tell how much of the context a prompt takes: a ``CountingEngine``."""
    forced: bool = False
    """Every reply ends with an answer that matches ``Prompt.answer``."""
    prompt_embeddings: bool = False
    """``Embeddings`` may stand among the media."""

    def check(self, prompt: Prompt) -> None:
        """Refuse what the engine would have to leave out.

        Raises:
            RefusedError: The prompt shows media of a kind that the engine does not take, or asks for an answer of a
                certain form.
        """
        if prompt.answer is not None and not self.forced:
            raise RefusedError("the engine forces no answer; put flexreward.engines.forced.ForcedEngine around it")
        taken = self.modalities | ({"embeddings"} if self.prompt_embeddings else set())
        if unseen := sorted({placed.kind for placed in prompt.media} - taken):
            reads = ", ".join(sorted(self.modalities))
            raise RefusedError(f"the engine reads {reads}, and the prompt shows {' and '.join(unseen)}")


class Engine(Protocol):
    """The one place a model is called. Knows nothing of rubrics, scores or rewards."""

    can: Capabilities

    @property
    def identity(self) -> dict[str, str]:
        """What tells this model from another: model, weights digest, engine, version. Enters the fingerprint."""
        ...

    def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncIterator[Reply]:
        """Yield ``sampling.n`` replies from one prefill, each as it ends; closing the iterator aborts the rest.

        Raises EngineError if the model cannot be reached or refuses the prompt.
        """
        ...

    async def close(self) -> None:
        """Free the model. Requests still under way end in EngineError."""
        ...


class CountingEngine(Engine, Protocol):
    """An engine that ``can.counts``."""

    @property
    def max_context(self) -> int:
        """Tokens of prompt and reply together."""
        ...

    def count_tokens(self, prompt: Prompt) -> int:
        """How many tokens the model reads of it, a started turn included."""
        ...
