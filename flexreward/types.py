"""The nouns of the road: what is judged, what the judge wrote, and what became of it.

Frozen values without I/O; only the standard library is imported here.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from flexreward.calibrator import Calibrator


class Reason(StrEnum):
    """Why there is no verdict. Counted by name everywhere, never averaged in."""

    TRUNCATED = "truncated"
    """The reply was cut at its token limit before it was complete."""
    NO_END = "no_end"
    """The reasoning never ended: there is no final part to read."""
    NO_ANSWER = "no_answer"
    """The final part holds no answer at all."""
    NOT_A_NUMBER = "not_a_number"
    """An answer is there, but it is neither a number nor a known label."""
    MISSING = "missing"
    """Fewer answers than completions."""
    EXTRA = "extra"
    """More answers than completions."""
    OFF_SCALE = "off_scale"
    """A score lies outside the template's scale."""
    QUORUM = "quorum"
    """Too few of the votes, or only one of the orders, could be read."""
    CONTEXT = "context"
    """The prompt does not fit into the judge."""
    CUT_COMPLETION = "cut_completion"
    """The completion was cut by its own length limit, and the recipe does not judge such."""
    ALONE = "alone"
    """A comparison was asked for, and there is nobody to compare with."""
    WITHHELD = "withheld"
    """There was a reward, and reward health keeps it from the training."""
    ENGINE = "engine"
    """The engine failed."""
    REFUSED = "refused"
    """The engine cannot take such a request."""
    DEADLINE = "deadline"
    """The time allowed ran out."""

    @property
    def is_infrastructure(self) -> bool:
        """Whether trying again may help. Such outcomes are never stored."""
        return self in (Reason.ENGINE, Reason.REFUSED, Reason.DEADLINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a conversation."""

    role: str
    """``system``, ``user``, ``assistant`` or ``tool``."""
    content: str | tuple[Part, ...]
    """Text; or text and media, in the order in which they stand in the turn."""


Text: TypeAlias = str | tuple[Message, ...]
"""A plain string, or a conversation in turns."""

Modality: TypeAlias = Literal["image", "video", "audio"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """An image, a video or a sound, by its path or by its bytes. Nothing here decodes it.

    Raises:
        ValueError: Neither is given, or both are; or something that is no image has a size.
    """

    kind: Modality
    path: Path | None = None
    data: bytes | None = field(default=None, repr=False)
    """A whole file, as it would lie on a disk."""
    size: tuple[int, int] | None = None
    """Width and height that an image is brought to when it is decoded, whatever its shape; some benchmarks do so. The
    same image at another size is another request."""

    def __post_init__(self) -> None:
        if (self.path is None) == (self.data is None):
            found = "neither" if self.path is None else "both"
            raise ValueError(f"{self.kind}: expected a path or bytes, found {found}")
        if self.size is not None and (self.kind != "image" or min(self.size) < 1):
            raise ValueError(f"{self.kind}: has the size {self.size}; only images have one, of at least one pixel")

    @property
    def digest(self) -> str:
        """What names it wherever a request is named (see ``flexreward.media.digest_of``)."""
        from flexreward.media import digest_of

        return digest_of(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Molecule:
    """A molecule that the model is shown as one, and not as text. Whether it is chemistry, the engine finds out."""

    smiles: str
    kind: Literal["molecule"] = field(default="molecule", init=False)

    @property
    def digest(self) -> str:
        """sha256 of the SMILES in hex, which names it wherever a prompt is named. Another spelling has another name."""
        return hashlib.sha256(self.smiles.encode("utf-8", "surrogatepass")).hexdigest()


Part: TypeAlias = str | Media | Molecule
"""What a turn may hold beside other parts."""
Completion: TypeAlias = Text | Media
"""What a policy makes: a text, or an image, a video, a sound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeRequest:
    """A prompt and the completions to be judged against each other, in the caller's order."""

    prompt: Text
    completions: tuple[Completion, ...]
    media: tuple[Media, ...] = ()
    """The prompt's own, in the order of the template's unnumbered slots: ``<image>``, ``<video>``, ``<audio>``. Media
    that stand inside of a conversation are no part of it: they are shown where they stand."""
    id: str = ""
    """The caller's name for it; no part of what the judge reads."""
    rubric: str | None = None
    """The user's own criteria, shown by templates that have a slot for them."""
    reference: str | None = None
    """A known good completion, shown by templates that have a slot for it."""
    molecules: tuple[str, ...] = ()
    """SMILES, shown as text below the prompt (``[Molecules]`` and a numbered line each), or where the template places
    them (``flexreward.templates.molecules``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """The closed interval of scores that a template asks for."""

    low: float
    high: float

    def __contains__(self, score: float) -> bool:
        return self.low <= score <= self.high

    def fraction(self, score: float) -> float:
        """Where ``score`` lies between ``low`` (0.0) and ``high`` (1.0)."""
        return (score - self.low) / (self.high - self.low)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """One generated token with its log-probability, and the likeliest tokens in its place."""

    text: str
    logprob: float
    """Natural logarithm, under the distribution at temperature 1."""
    top: tuple[tuple[str, float], ...] = ()
    """The likeliest tokens at this position with their log-probabilities, best first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the judge wrote, once."""

    text: str
    """The whole assistant turn, a started turn included, without the end-of-turn token."""
    index: int = 0
    """Which of the ``n`` replies to one prompt this is. They come as they end; in this order they are kept."""
    finish_reason: str = "stop"
    """``stop`` (the model ended its turn, or a stop string came), ``length`` (cut at the limit) or ``error`` (it never
    came)."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()
    """One entry a generated token, when asked for; what was written for the judge is one of probability 1."""
    thought_cut: bool = False
    """Whether its thought was ended for it: at the limit of tokens, or because the turn ended inside of it."""

    @property
    def truncated(self) -> bool:
        return self.finish_reason == "length"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Scores follow the order of ``request.completions``, whatever order the judge saw."""

    scores: tuple[float, ...]
    scale: Scale
    reply: str = ""
    """The judge's full text, kept so that a surprising score can be read back."""

    @property
    def preferred(self) -> int | None:
        """Index of the best completion, or ``None`` when the best score is shared."""
        best = max(self.scores)
        return self.scores.index(best) if self.scores.count(best) == 1 else None

    @property
    def tie(self) -> bool:
        """Whether several completions share the best score. One completion alone cannot tie."""
        return len(self.scores) > 1 and self.preferred is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unscored:
    """A reply, or the want of one, that holds no usable verdict."""

    reason: Reason
    reply: str = ""
    """The judge's text as far as it came, kept so that the reason can be checked."""
    detail: str = ""
    """One line for a person: what was found."""


Outcome: TypeAlias = Verdict | Unscored


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """One reply, and what was read from it."""

    outcome: Outcome
    reply: Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderOutcome:
    """What the judge said when it saw the completions in one order."""

    order: tuple[int, ...]
    """``order[slot]`` is the index in the request of the completion shown in that slot."""
    outcome: Outcome
    """The votes aggregated, scores in the order of the request."""
    votes: tuple[Vote, ...]
    """Each vote's scores are in the order of the request too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgment:
    """Everything that became of one request."""

    request_id: str
    template: str
    outcome: Outcome
    """All orders and votes together."""
    orders: tuple[OrderOutcome, ...]
    judge: str
    """Fingerprint of the judge: weights, template, sampling, votes, engine."""
    calibrator: Calibrator | None = None
    """The judge's, if it has one: rewards are probabilities then, while scores stay as they are."""
    prompt_cut: int = 0
    """Characters cut from the head of the prompt, so that it and a reply fit into the judge."""
    cached: bool = False
    """Whether every reply came from the store. No part of the outcome's bytes."""
    seconds: float = 0.0
    """Wall time from request to judgment. No part of the outcome's bytes."""

    @property
    def consistent(self) -> bool | None:
        """Whether all orders name the same winner, or all tie; ``None`` where some order is unscored."""
        winners = [o.outcome.preferred for o in self.orders if isinstance(o.outcome, Verdict)]
        if len(winners) < len(self.orders):
            return None
        return len(set(winners)) == 1

    @property
    def confidence(self) -> float | None:
        """Share of the replies that say what the judgment says, orders counting alike (``flexreward.confidence``)."""
        from flexreward.confidence import confidence

        return confidence(self.outcome, self.orders)

    @property
    def prompt_tokens(self) -> int:
        """Tokens read, a shared prefill counted once."""
        return sum(o.votes[0].reply.prompt_tokens for o in self.orders if o.votes)

    @property
    def completion_tokens(self) -> int:
        return sum(v.reply.completion_tokens for o in self.orders for v in o.votes)
