"""Which items of a call are of one group, and by what groups and members are known. Pure, but that media are read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from flexreward.errors import UserError
from flexreward.fingerprint import digest
from flexreward.serving.contract import RewardItem
from flexreward.types import Completion, Media, Message, Molecule


class Names(NamedTuple):
    shared: str
    """Digest of what all members of a group share."""
    member: str
    """By which a member is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Items of one call that are of one group."""

    places: tuple[int, ...]
    """In the call."""
    items: tuple[RewardItem, ...]
    names: tuple[str, ...]
    shared: str
    called: tuple[str | int | None, ...]
    """What tells it from other groups, in whatever call."""
    title: str
    size: int


def groups_of(items: Sequence[RewardItem], names: Sequence[Names]) -> list[Group]:
    """The groups of a call.

    Raises:
        UserError: One mixes prompts or sizes, or is larger than it says.
    """
    by_name: dict[tuple[str | int | None, ...], list[int]] = defaultdict(list)
    for place, (item, named) in enumerate(zip(items, names, strict=True)):
        # A name says which group it is, whatever its prompt; without one the prompt does.
        which = ("named", item.group) if item.group else ("prompt", named.shared)
        by_name[(item.run, item.step, *which)].append(place)
    found: list[Group] = []
    for called, places in by_name.items():
        title = items[places[0]].group or f"of completions[{places[0]}]"
        where = f"completions[{places[0]}]: the group {title!r}"
        if other := next((i for i in places if names[i].shared != names[places[0]].shared), None):
            raise UserError(
                f"completions[{other}]: the group {title!r} mixes prompts, or what is shown with them; give each "
                "prompt a group of its own, or leave the name out"
            )
        sizes = {items[place].group_size for place in places}
        if len(sizes) > 1:
            raise UserError(f"{where} has several group_size, expected one")
        size = sizes.pop()
        if size is not None and len(places) > size and items[places[0]].group:
            raise UserError(f"{where} has {len(places)} members and group_size {size}")
        step = len(places) if size is None else size  # several groups of one prompt follow each other
        for start in range(0, len(places), step):
            own = tuple(places[start : start + step])
            found.append(
                Group(
                    places=own,
                    items=tuple(items[place] for place in own),
                    names=tuple(names[place].member for place in own),
                    shared=names[own[0]].shared,
                    called=called,
                    title=title,
                    size=len(own) if size is None else size,
                )
            )
    return found


def names_of(item: RewardItem) -> Names:
    shared = [_plain(item.prompt), [_plain(one) for one in item.media], item.rubric, item.reference, item.molecules]
    return Names(digest(shared), f"{digest(_plain(item.completion))}:{item.id}")


def _plain(value: Completion | Molecule) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, Molecule):
        return [value.kind, value.smiles]
    if isinstance(value, Media):
        return [value.kind, value.digest, value.size]
    return [[turn.role, _content(turn)] for turn in value]


def _content(turn: Message) -> Any:
    return turn.content if isinstance(turn.content, str) else [_plain(piece) for piece in turn.content]
