"""Which completions were cut at their limit, as far as a trainer's token ids tell."""

from __future__ import annotations

from collections.abc import Sequence


class Cuts:
    """Learns from call to call what the trainer does not say.

    Args:
        limit: Tokens at which a completion is cut; without one, the longest seen.
        ends: Tokens that end a completion. Without them, the last tokens of completions below the limit: they ended by
            themselves.
    """

    def __init__(self, *, limit: int | None = None, ends: Sequence[int] = ()) -> None:
        self._limit = limit
        self._told = bool(ends)
        self._ends = set(ends)
        self._longest = 0

    def of(self, completion_ids: Sequence[Sequence[int]]) -> list[bool]:
        """Whether each completion was cut; an empty one was not."""
        self._longest = max([self._longest, *map(len, completion_ids)])
        limit = self._limit or self._longest
        if not self._told:
            self._ends.update(ids[-1] for ids in completion_ids if 0 < len(ids) < limit)
        known = self._limit is not None or bool(self._ends)
        return [known and self._is_cut(ids, limit) for ids in completion_ids]

    def _is_cut(self, ids: Sequence[int], limit: int) -> bool:
        return bool(ids) and ids[-1] not in self._ends and (self._told or len(ids) >= limit)
