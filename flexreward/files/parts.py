"""What stands in a row that is no text: parts of messages, completions that are media, molecules."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flexreward.errors import MediaError, SampleError
from flexreward.files.columns import shown
from flexreward.media.bounds import head_of
from flexreward.media.intake import TAKES, Reach
from flexreward.media.kinds import modality_of
from flexreward.media.limits import LIMITS, Limits
from flexreward.types import Media, Modality

PARTS: Mapping[str, Modality] = {
    "image": "image",
    "image_url": "image",
    "video": "video",
    "video_url": "video",
    "audio": "audio",
    "audio_url": "audio",
    "input_audio": "audio",
}
"""Types of parts, as chat templates and OpenAI-compatible servers take them."""
SOURCES = ("url", "path", "bytes", "data")
SMILES = re.compile(r"[A-Za-z0-9@+\-\[\]()=#$:/\\%.*~>]+")


@dataclass(slots=True, kw_only=True)
class Parts:
    """The media of one row. A part that brings none takes the next of its kind from the row's columns."""

    where: str
    """``file: line 17``."""
    waiting: list[Media] = field(default_factory=list)
    """Of the columns, in order; what is left at the end belongs to the prompt as a whole."""
    reach: Reach = Reach()  # noqa: RUF009  # frozen
    limits: Limits = LIMITS

    def part(self, part: Mapping[str, Any], name: str) -> Media:
        """A part of a message: ``{"type": "image"}``, ``{"type": "image_url", "image_url": {"url": ...}}``, ...

        Raises:
            SampleError: Its type is unknown, its medium cannot be taken, or the columns hold none for it.
        """
        kind = PARTS.get(str(part.get("type")))
        if kind is None:
            known = ", ".join(("text", *PARTS))
            raise SampleError(f"{self.where}: {name}.type is {shown(part.get('type'))}, expected one of {known}")
        value = next((part[key] for key in (str(part["type"]), kind, *SOURCES) if part.get(key) is not None), None)
        if value is not None:
            return self._taken(kind, value, name)
        for i, medium in enumerate(self.waiting):
            if medium.kind == kind:
                return self.waiting.pop(i)
        raise SampleError(
            f"{self.where}: {name} takes the next of the column {kind}s, which has no more; write it there, or into "
            f"the part as {kind!r}"
        )

    def completion(self, value: Any, name: str) -> Media:
        """A completion that is a medium: ``{"image": ...}``, ``{"video": ...}``, ``{"audio": ...}``, or a feature of
        ``datasets``, ``{"bytes": ..., "path": ...}``, whose kind its first bytes tell.

        Raises:
            SampleError: It is none of these, or cannot be taken.
        """
        given = {key: one for key, one in value.items() if one is not None} if isinstance(value, Mapping) else {}
        if len(given) == 1 and (kind := next(iter(given))) in TAKES:
            return self._taken(kind, given[kind], f"{name}.{kind}")
        if isinstance(value, Mapping) and not {"bytes", "path"} & given.keys():
            expected = 'expected text, messages, or {"image": ...}, {"video": ...}, {"audio": ...}'
            raise SampleError(f"{self.where}: {name} is an object ({shown(value)}), {expected}")
        medium = self._taken("video", value, name)  # the kind with the highest limit, until it is known
        try:
            kind = modality_of(head_of(medium), f"{self.where}: {name}")
        except MediaError as error:
            raise SampleError(str(error)) from error
        return self._taken(kind, value if medium.data is None else medium.data, name)

    def _taken(self, kind: Any, value: Any, name: str) -> Media:
        if isinstance(value, Mapping) and value.get("data") is not None:  # input_audio
            value = f"data:{kind}/{value.get('format') or 'any'};base64,{value['data']}"
        elif isinstance(value, Mapping) and value.get("url") is not None:
            value = value["url"]
        if isinstance(value, list):
            raise SampleError(f"{self.where}: {name} is a list, expected a path, bytes or a data URI")
        return TAKES[kind](value, limits=self.limits, reach=self.reach, where=f"{self.where}: {name}")


def read_molecules(value: Any, where: str, limits: Limits = LIMITS) -> tuple[str, ...]:
    """The column ``molecules``: SMILES, which are shown as text. Whether they are chemistry is not looked at.

    Raises:
        SampleError: It is no list of SMILES, or exceeds a limit.
    """
    if value is None:
        return ()
    if not isinstance(value, list):
        raise SampleError(f"{where}: molecules is {shown(value)}, expected a list of SMILES; write [...] around it")
    if len(value) > limits.molecules_per_request:
        raise SampleError(
            f"{where}: molecules holds {len(value)}, the limit molecules_per_request is {limits.molecules_per_request}"
        )
    for i, smiles in enumerate(value):
        if not isinstance(smiles, str) or not SMILES.fullmatch(smiles):
            raise SampleError(f"{where}: molecules[{i}] is {shown(smiles)}, expected SMILES: no blanks, no other signs")
        if len(smiles) > limits.molecule_chars:
            raise SampleError(
                f"{where}: molecules[{i}] has {len(smiles)} characters, the limit molecule_chars is "
                f"{limits.molecule_chars}"
            )
    return tuple(value)
