"""The server's own JSON: what is asked and what is answered, as pydantic models, and how they become our nouns."""

from __future__ import annotations

import base64
import binascii
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from flexreward.errors import SampleError
from flexreward.files.samples import MEDIA, Sample, read_sample
from flexreward.media.intake import Reach
from flexreward.media.limits import Limits
from flexreward.pairs.contest import LIST_SIZE, Method
from flexreward.serving.contract import Rewarded, RewardItem
from flexreward.types import JudgeRequest

Text = str | list[dict[str, Any]]
"""A text, or messages."""
Made = Text | dict[str, Any]
"""A completion: a text, messages, or a medium, ``{"image": "data:image/png;base64,..."}``."""
Medium = str | dict[str, Any]
"""``data:image/png;base64,...``, ``{"bytes": "<base64>"}``, or a URL of a host that the recipe allows."""
Deadline = Annotated[float | None, Field(gt=0, allow_inf_nan=False)]
COLUMNS = ("rubric", "reference", "images", "videos", "audios", "molecules")
"""Columns of a call for rewards that the judge is shown."""


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Shown(_Body):
    """What the judge is shown beside the completions."""

    prompt: Text
    images: list[Medium] | None = None
    videos: list[Medium] | None = None
    audios: list[Medium] | None = None
    molecules: list[str] | None = None
    """SMILES."""
    rubric: str | None = None
    reference: str | None = None


class Asked(_Shown):
    """One request for a judgment."""

    id: str = ""
    completions: Annotated[list[Made], Field(min_length=1)]
    template: str = ""
    """Id of a bundled template, in place of the one that fits."""


class JudgeBody(_Body):
    """POST /v1/judge"""

    requests: list[dict[str, Any]]
    """Each as ``Asked``. What is wrong with one is told in its outcome, and the others are judged."""
    judge: str = ""
    """One of the server's judges by name."""
    template: str = ""
    """For requests that name none."""
    deadline_s: Deadline = None


class Refusal(_Body):
    """Every answer but 200."""

    error: str
    """One line: what was found, where, and what would fit."""


class Outcomes(_Body):
    """Answer of POST /v1/judge."""

    outcomes: list[dict[str, Any]]
    """In the order of the requests, each as a line of an outcome file."""


class RewardsBody(_Body):
    """POST /v1/rewards"""

    prompts: list[Text]
    completions: list[Made]
    columns: dict[str, list[Any]] = Field(default_factory=dict)
    """Lists as long as ``prompts``: ``rubric``, ``reference``, ``images`` (a list each), ``molecules`` ...; others are
    passed over."""
    ids: list[str] | None = None
    """Names of the members in their groups: a retry under the same name is the same member."""
    group_ids: list[str] | None = None
    """Which group each belongs to; without them, items of equal prompts are a group."""
    group_size: Annotated[int | None, Field(ge=1)] = None
    """Members of each group, those of other calls included."""
    run: str = ""
    step: int | None = None
    judge: str = ""
    deadline_s: Deadline = None

    @model_validator(mode="after")
    def _as_long(self) -> RewardsBody:
        lists: dict[str, Sequence[Any] | None] = {
            "completions": self.completions,
            "ids": self.ids,
            "group_ids": self.group_ids,
            **{f"columns.{name}": values for name, values in self.columns.items()},
        }
        for name, values in lists.items():
            if values is not None and len(values) != len(self.prompts):
                raise ValueError(f"{name} has {len(values)} entries and prompts has {len(self.prompts)}")
        return self


class Metrics(_Body):
    """Of the items of one call."""

    num: int
    num_unscored: int
    unscored: dict[str, int]
    """By reason."""
    reward_mean: float | None
    reward_std: float | None
    """Over the scored ones; ``None`` without any."""
    flip_rate: float | None
    """Share of those judged in both orders whose winner changed with the order."""
    tokens: int
    """That the judge wrote."""
    seconds_mean: float | None


class RewardsAnswer(_Body):
    """Answer of POST /v1/rewards: lists in the order of the completions."""

    rewards: list[float | None]
    """In [0, 1]; ``null`` is unscored."""
    reasons: list[str | None]
    """Why there is no reward."""
    details: list[str]
    scores: list[float | None]
    """On the template's scale."""
    group_means: list[float | None]
    """Mean reward of the scored members of each one's group, where they were judged together."""
    reasoning: list[str]
    """A reply of the judge, to be read."""
    flipped: list[bool | None]
    tokens: list[int]
    seconds: list[float]
    metrics: Metrics


class RerankBody(_Shown):
    """POST /v1/rerank"""

    completions: Annotated[list[Made], Field(min_length=1)]
    method: Annotated[
        Method | None,
        Field(
            description="How the best is found. pointwise: each alone. knockout: two by two, the better goes on. "
            "round-robin: every two, by the share of games won. bradley-terry: the same judgments, by strength. "
            "listwise: lists of at most list_size. Without one, all completions are one request to the judge. A judge "
            "whose recipe says aggregate: expected leaves hardly a tie."
        ),
    ] = None
    list_size: Annotated[
        int, Field(ge=3, description="Most completions in one list of listwise; more are a knockout of lists.")
    ] = LIST_SIZE
    seed: Annotated[int, Field(description="Of a knockout's bracket and draws, which follow from it and the id.")] = 0
    id: str = ""
    template: str = ""
    judge: str = ""
    deadline_s: Deadline = None
    """For the whole call, all its rounds together."""


class RerankCounts(_Body):
    """What became of the judgments of a method."""

    judgments: int
    unscored: int
    flipped: int
    """Whose orders name different winners: their averaged scores count."""
    drawn: int
    """Lists of a knockout that tied, and were decided by a seeded draw."""
    unread: int
    """Lists of a knockout without a verdict: who was read before goes on, else a seeded draw."""


class RerankAnswer(_Body):
    """Answer of POST /v1/rerank."""

    status: Literal["scored", "unscored"]
    order: list[int] | None
    """Indices of the completions, the best first; equal scores stay in the order asked, those that could not be read
    come last. ``null`` is unscored."""
    scores: list[float | None] | None
    """By index: on the template's scale, or by a method of several judgments the share of games won, or of rounds
    stayed in. ``null`` is one that could not be read."""
    reason: str | None
    detail: str
    counts: RerankCounts | None = None
    """With a method alone."""


def request_from(asked: Asked | RerankBody, *, where: str, hosts: frozenset[str], limits: Limits) -> JudgeRequest:
    """A request as the judge takes it. Media of URLs are fetched: call it in a thread.

    Raises:
        SampleError: One line that names the field.
    """
    fields = {name: getattr(asked, name) for name in ("prompt", "completions", *COLUMNS)}
    return _sample(fields, where, asked.id, hosts, limits).request()


def items_from(body: RewardsBody, *, hosts: frozenset[str], limits: Limits) -> list[RewardItem]:
    """The items of a call for rewards, in order. Raises as ``request_from`` does."""
    return [_item(body, i, hosts, limits) for i in range(len(body.prompts))]


def rewards_answer(found: Sequence[Rewarded]) -> RewardsAnswer:
    return RewardsAnswer(
        rewards=[one.reward for one in found],
        reasons=[one.reason.value if one.reason else None for one in found],
        details=[one.detail for one in found],
        scores=[one.score for one in found],
        group_means=[one.group_mean for one in found],
        reasoning=[one.reasoning for one in found],
        flipped=[one.flipped for one in found],
        tokens=[one.tokens for one in found],
        seconds=[one.seconds for one in found],
        metrics=_metrics(found),
    )


def _metrics(found: Sequence[Rewarded]) -> Metrics:
    scored = [one.reward for one in found if one.reward is not None]
    flips = [one.flipped for one in found if one.flipped is not None]
    return Metrics(
        num=len(found),
        num_unscored=len(found) - len(scored),
        unscored=dict(Counter(one.reason.value for one in found if one.reason is not None)),
        reward_mean=statistics.fmean(scored) if scored else None,
        reward_std=statistics.pstdev(scored) if scored else None,
        flip_rate=statistics.fmean(flips) if flips else None,
        tokens=sum(one.tokens for one in found),
        seconds_mean=statistics.fmean(one.seconds for one in found) if found else None,
    )


def _item(body: RewardsBody, i: int, hosts: frozenset[str], limits: Limits) -> RewardItem:
    columns = {name: body.columns[name][i] for name in COLUMNS if name in body.columns}
    fields = {"prompt": body.prompts[i], "completions": [body.completions[i]], **columns}
    sample = _sample(fields, f"item {i}", "", hosts, limits)
    return RewardItem(
        prompt=sample.prompt,
        completion=sample.completions[0],
        media=sample.media,
        rubric=sample.rubric,
        reference=sample.reference,
        molecules=sample.molecules,
        id=body.ids[i] if body.ids else "",
        group=body.group_ids[i] if body.group_ids else "",
        group_size=body.group_size,
        run=body.run,
        step=body.step,
    )


def _sample(fields: Mapping[str, Any], where: str, id: str, hosts: frozenset[str], limits: Limits) -> Sample:
    values = {name: _with_bytes(value, f"{where}: {name}") for name, value in fields.items()}
    # No folder: whatever looks like a path is refused, never opened.
    return read_sample(values, where=where, id=id, reach=Reach(folder=None, hosts=hosts), limits=limits)


def _with_bytes(value: Any, where: str, depth: int = 0) -> Any:
    """``{"bytes": "<base64>"}`` with the bytes themselves, wherever media may stand."""
    if depth > 6:  # media stand no deeper: messages, their content, a part, its medium
        return value
    if isinstance(value, list):
        return [_with_bytes(one, f"{where}[{i}]", depth + 1) for i, one in enumerate(value)]
    if not isinstance(value, dict):
        return value
    found = {name: _with_bytes(one, f"{where}.{name}", depth + 1) for name, one in value.items()}
    if isinstance(given := value.get("bytes"), str):
        try:
            found["bytes"] = base64.b64decode(given, validate=True)
        except (binascii.Error, ValueError) as error:
            raise SampleError(f"{where}.bytes: is no base64") from error
    return found


assert set(MEDIA) < set(COLUMNS)
