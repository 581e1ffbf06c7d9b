"""What every route and dialect asks of the server, in the library's own nouns: no HTTP, no Ray.

a framework's JSON -> dialect -> [RewardItem] -> Service.rewards -> [Rewarded] -> dialect -> that framework's JSON
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from flexreward.types import Completion, JudgeRequest, Judgment, Media, Reason, Text


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Whose request it is."""

    namespace: str = ""
    """A digest of the key, never the key. Cohorts are kept apart by it always, verdicts unless they are shared."""
    is_admin: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardItem:
    """One completion that wants a reward, with what the judge is shown beside it."""

    prompt: Text
    completion: Completion
    media: tuple[Media, ...] = ()
    """The prompt's own, as in ``JudgeRequest``."""
    rubric: str | None = None
    reference: str | None = None
    molecules: tuple[str, ...] = ()
    id: str = ""
    """Which member of its group this is, where a caller names them: a retry under the same name is the same member.
    Without one, a member is known by its completion and by how many equal ones came before it in the same call."""
    group: str = ""
    """The caller's name of its group; without one, items of equal prompts in a call are a group."""
    group_size: int | None = None
    """Members of the group, those that come in other calls included; ``None`` is those of this call."""
    run: str = ""
    step: int | None = None
    """Of the training: groups of one name in two runs or steps are two groups."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewarded:
    """What became of one item."""

    reward: float | None
    """In [0, 1]; ``None`` is unscored, and ``reason`` says why."""
    score: float | None = None
    """On the template's scale, where the judge gave one; the mean where several judgments did."""
    reason: Reason | None = None
    detail: str = ""
    """One line for a person."""
    reasoning: str = ""
    """A reply of the judge, to be read; empty where none came."""
    group_mean: float | None = None
    """Mean reward of the scored members of its group, where they were judged together; ``None`` without any."""
    flipped: bool | None = None
    """Whether an order flip changed the winner in any judgment of this item; ``None`` where nothing was flipped."""
    tokens: int = 0
    """That the judge wrote for it."""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What became of one request."""

    index: int
    """Its place in the call."""
    judgment: Judgment


class Service(Protocol):
    """A running server, as a route sees it."""

    deadline_s: float
    """Longest time for a call."""

    async def rewards(
        self, items: Sequence[RewardItem], *, caller: Caller, judge: str = "", deadline_s: float | None = None
    ) -> list[Rewarded]:
        """One result an item, in order. What the engine fails to answer is unscored and never raised.

        Args:
            judge: One of the recipe's, by name; the first where empty.
            deadline_s: For the call, at most the recipe's.

        Raises:
            UserError: An item cannot be shown, or a group mixes prompts; names the item.
            BusyError: It cannot be answered in time.
            AsleepError: The judge is asleep, and the recipe does not wait.
        """
        ...

    def header(self, *, caller: Caller, judge: str = "", template: str) -> dict[str, Any]:
        """What names a judge with a template (see ``flexreward.files.outcomes.header_of``).

        Raises:
            RecipeError: There is no such judge, or no such template.
        """
        ...

    def judge(
        self,
        requests: Sequence[JudgeRequest],
        *,
        caller: Caller,
        judge: str = "",
        template: str = "",
        deadline_s: float | None = None,
    ) -> AsyncIterator[Judged]:
        """Judgments as they end. Raises as ``rewards`` does."""
        ...
