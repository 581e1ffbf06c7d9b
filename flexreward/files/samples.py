"""Rows of any data set as samples: which column is the prompt, which are the completions. Rows stream."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from flexreward.errors import RecipeError, SampleError
from flexreward.files.columns import map_columns, names_of, shown
from flexreward.files.parts import Parts, read_molecules
from flexreward.files.rows import MAX_ROW_BYTES, Row, folder_of, read_rows
from flexreward.media.bounds import check_request
from flexreward.media.intake import Reach, media_of
from flexreward.media.limits import LIMITS, Limits
from flexreward.types import Completion, JudgeRequest, Media, Message, Modality, Text

OURS = ("id", "prompt", "completions", "origins", "rubric", "reference", "molecules")
KNOWN = frozenset(OURS)
MEDIA: Mapping[str, Modality] = {"images": "image", "videos": "video", "audios": "audio"}
"""Columns of media of the prompt, which stand on the request in this order."""
CLEAR = (bool, int, type(None))
"""Of which every value is JSON."""
ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """How a completion was drawn, as far as that is known."""

    finish_reason: str | None = None
    """``stop``, or ``length`` where it was cut at its limit."""
    temperature: float | None = None
    seed: int | None = None
    """Of the prompt at this temperature, for all of its completions there."""

    @property
    def cut(self) -> bool:
        return self.finish_reason == "length"

    def as_json(self) -> dict[str, Any]:
        return {"finish_reason": self.finish_reason, "temperature": self.temperature, "seed": self.seed}


ORIGIN: Mapping[str, tuple[type, ...]] = {
    "finish_reason": (str, type(None)),
    "temperature": (int, float, type(None)),
    "seed": (int, type(None)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One prompt with its completions, and whatever else stood in its row."""

    id: str
    prompt: Text
    completions: tuple[Completion, ...]
    """None of a prompt that a policy has yet to complete."""
    origins: tuple[Origin, ...] = ()
    """One a completion, or none where the row does not say."""
    rubric: str | None = None
    reference: str | None = None
    media: tuple[Media, ...] = ()
    """The prompt's: images, then videos, then audios; without those that stand inside of its texts."""
    molecules: tuple[str, ...] = ()
    """SMILES."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """The columns that are carried through, plain JSON values."""
    where: str = ""
    """``file: line 17``, for messages."""

    @property
    def inside(self) -> tuple[Media, ...]:
        """Media that stand inside of a conversation, or are a completion."""
        texts = [text for text in (self.prompt, *self.completions) if not isinstance(text, str)]
        if not texts:
            return ()
        turns = [turn for text in texts if isinstance(text, tuple) for turn in text]
        parts = [part for turn in turns if not isinstance(turn.content, str) for part in turn.content]
        return tuple(one for one in (*self.completions, *parts) if isinstance(one, Media))

    def request(self) -> JudgeRequest:
        """All of its completions against each other."""
        return self.only(range(len(self.completions)), id=self.id)

    def only(self, indices: Sequence[int], *, id: str) -> JudgeRequest:
        """A request about some of its completions, in the order of ``indices``."""
        return JudgeRequest(
            id=id,
            prompt=self.prompt,
            completions=tuple(self.completions[i] for i in indices),
            rubric=self.rubric,
            reference=self.reference,
            media=self.media,
            molecules=self.molecules,
        )


class Shard(NamedTuple):
    """Every ``of``-th row, beginning with row ``number``, counted from 1."""

    number: int
    of: int


def parse_shard(text: str) -> Shard:
    """``2/4`` is the second of four."""
    number, _, of = text.partition("/")
    if number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of):
        return Shard(int(number), int(of))
    raise RecipeError(f"--shard {text}: expected i/n with i from 1 to n, such as 1/4")


def read_samples(
    source: str,
    *,
    mapping: Mapping[str, str] | None = None,
    limit: int | None = None,
    shard: Shard | None = None,
    reserved: Collection[str] = (),
    refuse_empty: bool = False,
    max_row_bytes: int = MAX_ROW_BYTES,
    hosts: Collection[str] = (),
    limits: Limits = LIMITS,
    completed: bool = True,
) -> Iterator[Sample]:
    """The samples of a file, a saved data set or a hub id, in its order.

    Args:
        source: See ``flexreward.files.rows.read_rows``.
        mapping: See ``flexreward.files.columns.parse_map``; a column that it names is not carried through as well, and
            a target with an empty source is dropped.
        limit: Only so many rows of the file, counted before the shard is taken.
        shard: Ids stay those of the whole file.
        reserved: Names that the output uses itself; a carried column of that name is refused.
        refuse_empty: Whether an empty completion stops the reading. A policy may write one and a judge must score it,
            so it is a text like any other unless told otherwise.
        hosts: Where media may be fetched from (see ``flexreward.media.fetch``); paths of media begin at the folder of
            the file.
        limits: What media are held to; here their number and their bytes, the rest where they are decoded.
        completed: Whether rows have completions; ``False`` takes prompts, and refuses rows that have some.

    Raises:
        SampleError: One line that names file, line, field and remedy. Samples before it were already yielded.
    """
    seen: set[int] = set()
    reach = Reach(folder=folder_of(source), hosts=frozenset(hosts))
    for row in read_rows(source, max_row_bytes=max_row_bytes):
        if limit is not None and row.number > limit:
            return
        fields = map_columns(row, mapping or {})
        name = _id(row, fields)
        digest = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())
        if digest in seen:
            raise SampleError(f"{row.where}: the id {shown(name)} stands in an earlier row too; ids must differ")
        seen.add(digest)
        if shard is None or (row.number - shard.number) % shard.of == 0:
            parts = Parts(where=row.where, waiting=_media(row.where, fields, reach, limits), reach=reach, limits=limits)
            yield _sample(row, name, fields, parts, reserved, refuse_empty, completed)


def read_sample(fields: Mapping[str, Any], *, where: str, id: str, reach: Reach, limits: Limits) -> Sample:
    """One sample from plain values, such as a request's.

    Args:
        fields: ``prompt`` and ``completions``, and what else a row may have.
        where: What every refusal begins with.

    Raises:
        SampleError: One line that names the field.
    """
    values = dict(fields)
    parts = Parts(where=where, waiting=_media(where, values, reach, limits), reach=reach, limits=limits)
    return _sample(Row(number=1, where=where, fields=values), id, values, parts, (), False, True)


def _media(where: str, fields: dict[str, Any], reach: Reach, limits: Limits) -> list[Media]:
    """The media columns, taken out of ``fields``. What ``datasets`` calls one image is a list of one."""
    found: list[Media] = []
    for column, kind in MEDIA.items():
        values = fields.pop(column, None)
        if values is None:
            continue
        if isinstance(values, Mapping | bytes):
            values = [values]
        if not isinstance(values, list):
            raise SampleError(f"{where}: {column} is {shown(values)}, expected a list; write [...] around it")
        for i, value in enumerate(values):
            if isinstance(value, list):  # frames of a film come in memory, never out of a file
                raise SampleError(f"{where}: {column}[{i}] is a list, expected a path, bytes or a data URI")
        found += media_of(kind, values, limits=limits, reach=reach, where=f"{where}: {column}")
    return found


def _sample(
    row: Row,
    name: str,
    fields: dict[str, Any],
    parts: Parts,
    reserved: Collection[str],
    refuse_empty: bool,
    completed: bool,
) -> Sample:
    read = Reader(row.where, refuse_empty, parts)
    if not completed and (there := [column for column in ("completions", "origins") if column in fields]):
        raise SampleError(
            f"{row.where}: has {there[0]}, and --policy draws them itself; leave out --policy, or take them away with "
            f"--map {there[0]}="
        )
    for column in ("prompt", "completions") if completed else ("prompt",):
        if column not in fields:
            raise SampleError(
                f"{row.where}: no column {column!r}; the row has {names_of(row.fields)}; --map {column}=COLUMN names it"
            )
    extra = {column: value for column, value in fields.items() if column not in KNOWN}
    for column in extra:
        if column in reserved:
            raise SampleError(
                f"{row.where}: the column {column!r} has the name of one of ours in the output; rename it with "
                f"--map my_{column}={column}, or leave it out with --map {column}="
            )
        read.plain(extra[column], column)
    completions = read.completions(fields["completions"]) if completed else ()
    sample = Sample(
        id=name,
        prompt=read.text(fields["prompt"], "prompt"),
        completions=completions,
        origins=read.origins(fields.get("origins"), len(completions)),
        molecules=read_molecules(fields.get("molecules"), row.where, parts.limits),
        rubric=read.optional(fields.get("rubric"), "rubric"),
        reference=read.optional(fields.get("reference"), "reference"),
        media=tuple(parts.waiting),
        extra=extra,
        where=row.where,
    )
    if media := (*sample.media, *sample.inside):
        check_request(media, parts.limits, where=f"{row.where}: the row")
    return sample


@dataclass(frozen=True, slots=True)
class Reader:
    """Turns values of one row, or of one request from elsewhere, into texts, or says what is wrong with them."""

    where: str
    """What every refusal begins with."""
    refuse_empty: bool
    parts: Parts

    def completions(self, value: Any) -> tuple[Completion, ...]:
        if not isinstance(value, list):
            self._wrong(value, "completions", "a list", "write [...] around it, or --map completions=COLUMN,COLUMN")
        if not value:
            raise SampleError(f"{self.where}: completions is an empty list; a row needs at least one completion")
        return tuple([self.completion(item, f"completions[{i}]") for i, item in enumerate(value)])

    def origins(self, values: Any, count: int) -> tuple[Origin, ...]:
        if values is None:
            return ()
        if not isinstance(values, list) or len(values) != count:
            self._wrong(values, "origins", f"a list of {count}, one a completion", "leave it out with --map origins=")
        return tuple([self._origin(value, i) for i, value in enumerate(values)])

    def _origin(self, value: Any, index: int) -> Origin:
        if not isinstance(value, dict) or not value.keys() <= ORIGIN.keys():
            known = ", ".join(ORIGIN)
            self._wrong(value, f"origins[{index}]", f"an object of {known}", "leave origins out with --map origins=")
        for part, found in value.items():
            if type(found) not in ORIGIN[part]:
                expected = "text" if str in ORIGIN[part] else "a number"
                name = f"origins[{index}].{part}"
                self._wrong(found, name, expected, "leave origins out with --map origins=")
        return Origin(**value)

    def completion(self, value: Any, name: str) -> Completion:
        if isinstance(value, str):
            return self.text(value, name)
        if isinstance(value, Mapping | bytes):
            return self.parts.completion(value, name)
        text = self.text(value, name)
        if isinstance(text, tuple) and len(text) == 1 and not isinstance(text[0].content, str):
            only = text[0].content
            if len(only) == 1 and isinstance(only[0], Media):  # a turn that is one image is that image
                return only[0]
        return text

    def text(self, value: Any, name: str) -> Text:
        if isinstance(value, list):
            if not value:
                raise SampleError(f"{self.where}: {name} is an empty list of messages; leave the row out")
            turns = tuple(self._message(item, f"{name}[{i}]") for i, item in enumerate(value))
            return self._filled(turns, any(turn.content for turn in turns), name)
        text = self.string(value, name)
        return text or self._filled(text, False, name)

    def _filled(self, text: Text, filled: bool, name: str) -> Text:
        if not filled and name == "prompt":
            raise SampleError(f"{self.where}: prompt is empty; there is nothing to judge by, leave the row out")
        if not filled and self.refuse_empty:
            raise SampleError(f"{self.where}: {name} is empty; leave it out, or run without --refuse-empty")
        return text

    def optional(self, value: Any, name: str) -> str | None:
        return None if value is None else self.string(value, name)

    def plain(self, value: Any, name: str) -> None:
        if all(type(one) in CLEAR for one in (value if type(value) is list else (value,))):
            return
        try:
            json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
        except (TypeError, ValueError) as error:
            kind = "NaN or no Unicode" if isinstance(error, ValueError) else f"no JSON ({type(value).__name__})"
            raise SampleError(
                f"{self.where}: the column {name!r} is {kind}; leave it out with --map {name}="
            ) from error

    def _message(self, value: Any, name: str) -> Message:
        if not isinstance(value, dict):
            self._wrong(value, name, 'a message {"role": ..., "content": ...}', "write texts or lists of messages")
        if more := [key for key in value if key not in ("role", "content") and value[key]]:
            raise SampleError(
                f"{self.where}: {name} has {more[0]!r}, which this version cannot show a judge; remove it"
            )
        if value.get("role") not in ROLES:
            raise SampleError(
                f"{self.where}: {name}.role is {shown(value.get('role'))}, expected one of {', '.join(ROLES)}"
            )
        content = value.get("content")
        if not isinstance(content, list):
            return Message(role=value["role"], content=self.string(content, f"{name}.content"))
        parts: list[str | Media] = []  # as chat templates take them
        for i, part in enumerate(content):
            where = f"{name}.content[{i}]"
            if not isinstance(part, dict):
                self._wrong(part, where, 'a part such as {"type": "text", "text": ...}', "write texts or parts")
            is_text = part.get("type") == "text"
            found = self.string(part.get("text"), where) if is_text else self.parts.part(part, where)
            if isinstance(found, str) and parts and isinstance(before := parts[-1], str):
                parts[-1] = before + found
            else:
                parts.append(found)
        texts = [part for part in parts if isinstance(part, str)]
        return Message(role=value["role"], content="".join(texts) if len(texts) == len(parts) else tuple(parts))

    def string(self, value: Any, name: str) -> str:
        if not isinstance(value, str):
            column = name.partition("[")[0].partition(".")[0]
            self._wrong(value, name, "text", f"put it in quotes, or --map {column}=... takes it as text")
        try:
            if not value.isascii():
                value.encode()
        except UnicodeEncodeError as error:
            raise SampleError(f"{self.where}: {name} holds half a character (\\ud800 to \\udfff); remove it") from error
        return str(value)

    def _wrong(self, value: Any, name: str, expected: str, remedy: str) -> Any:
        kinds = {
            bool: "true or false",
            int: "a number",
            float: "a number",
            dict: "an object",
            list: "a list",
            str: "text",
        }
        found = "null" if value is None else f"{kinds.get(type(value), type(value).__name__)} ({shown(value)})"
        raise SampleError(f"{self.where}: {name} is {found}, expected {expected}; {remedy}")


def _id(row: Row, fields: dict[str, Any]) -> str:
    if "id" not in fields:
        return f"row-{row.number:06d}"
    name = fields["id"]
    if isinstance(name, bool) or not isinstance(name, str | int) or name == "":
        raise SampleError(
            f"{row.where}: id is {shown(name)}, expected text or a whole number; --map id= numbers the rows"
        )
    if isinstance(name, int) or name.isascii():
        return str(name)
    return Reader(row.where, False, Parts(where=row.where)).string(name, "id")
