"""Judge prompts as data: what the judge is told, how the request is shown to it, and how its reply is read.

    load_template("pair").render(request) -> Prompt          load_template("pair").parse(reply, count=2) -> Outcome

``template_ids()`` names those that ship; a path to a TOML file loads one of the user's own. Slots of a text:

    {prompt}                          the request's prompt
    {completion_1}, {completion_2}    the completions by slot; how many there are makes the template point- or pairwise
    {completions}                     all of them under ``[Assistant 1's Answer]``, ... : listwise, two or more
    {rubric}                          criteria of the request, or those that the template was loaded with
    {reference}                       ``[Reference Answer]``, its text and an empty line; nothing where none is given
    <image>, <image_1>, <video> ...   media of the prompt, or of the completion in that slot
    <molecule>                        a molecule of the request, for a model that is shown molecules

Media inside of a conversation stand where they stand in it. Molecules are SMILES below the prompt, or with ``molecules:
placed`` stand where the prompt, or this template, has a place for them (``flexreward.templates.molecules``). Other
``{words}`` in small letters are refused when the template is loaded. How conversations and thoughts are shown:
``flexreward.templates.text.as_shown``.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from flexreward.engines.base import Answer, Placed, Prompt
from flexreward.errors import RecipeError, SampleError
from flexreward.parse import READERS, Reader, Reasoning
from flexreward.templates.answers import answer_of
from flexreward.templates.files import OPENING, bundled, checked, nearest, read_file
from flexreward.templates.molecules import Molecules, with_places
from flexreward.templates.text import (
    MEDIA,
    SLOT,
    JudgeSees,
    Pieces,
    Shown,
    as_shown,
    fill,
    media_of,
    molecules_block,
    numbered,
    pieces_of,
    stretches_of,
    text_of,
)
from flexreward.types import Completion, JudgeRequest, Media, Molecule, Outcome, Part, Reply, Scale

RULES = 1
"""Raised whenever the code renders or reads differently, so that a verdict never outlives the rules that made it."""

SLOTS = ("prompt", "completions", "rubric", "reference")


@dataclass(frozen=True, kw_only=True)
class Template:
    """One way to ask for a judgment and to read it."""

    id: str
    system: str
    user: str
    scale: Scale
    reader: Reader = "scores"
    reasoning: Reasoning = "first"
    judge_sees: JudgeSees = "final"
    """Whether a completion's own thoughts are hidden from the judge (``final``) or shown (``all``)."""
    prefix: str = OPENING["first"]
    """The started assistant turn, when one is asked for."""
    rubric: str | None = None
    """Criteria for requests that bring none."""
    molecules: Molecules = "text"
    """Whether the request's molecules are shown as SMILES below the prompt, or as molecules, each at its place."""

    def __post_init__(self) -> None:
        where, low, high = f"template {self.id!r}", self.scale.low, self.scale.high
        for slot in SLOT.findall(self.system + self.user):
            if slot not in SLOTS and not re.fullmatch(r"completion_[1-9]", slot):
                raise RecipeError(f"{where}: unknown slot {{{slot}}}, {nearest(slot, (*SLOTS, 'completion_1'))}")
        if not (0 <= low < high < float("inf")):
            raise RecipeError(f"{where}: expected a scale of two rising numbers from 0 up, found {low:g} to {high:g}")
        # Where all media belong to the prompt, the user turn itself states what is judged.
        places = self._places or ({1} if self._slots else set())
        if self.num_completions is not None and places != set(range(1, self.num_completions + 1)):
            raise RecipeError(f"{where}: its user turn does not show every completion from {{completion_1}} on")
        if wrong := next((slot for slot in self._slots if slot.startswith("molecule_")), None):
            raise RecipeError(f"{where}: <{wrong}>: molecules are of the prompt; write <molecule>")
        if self.num_molecules and self.molecules == "text":
            raise RecipeError(f"{where}: <molecule> is a place for one; set molecules to placed")
        if self.reader == "genai" and (self.num_completions, low, high) != (2, 0, 1):
            raise RecipeError(f"{where}: reader genai compares two completions on the scale 0 to 1")

    @cached_property
    def num_completions(self) -> int | None:
        """1 pointwise, 2 pairwise, None listwise; as the user turn has it, and 1 where it judges a claim of its own."""
        if "completions" in SLOT.findall(self.user):
            return None
        return max(self._places, default=1)

    @cached_property
    def media(self) -> tuple[str, ...]:
        """Media slots of the user turn, in the order shown."""
        return tuple(slot for slot in self._slots if slot != "molecule")

    @cached_property
    def num_molecules(self) -> int:
        """Molecules that have their places in the user turn itself."""
        return self._slots.count("molecule")

    @cached_property
    def digest(self) -> str:
        """sha256 hex over all that decides what is shown and how it is read; the id is only a name."""
        scale = [float(self.scale.low), float(self.scale.high)]
        reading = [scale, self.reader, self.reasoning, self.judge_sees, self.prefix]
        more = [] if self.molecules == "text" else [self.molecules]
        parts = [RULES, self.system, self.user, self.rubric, *reading, *more]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def render(self, request: JudgeRequest, *, prefill: bool = False) -> Prompt:
        """What the judge reads, completions in the order of ``request``.

        Raises:
            SampleError: The number of completions does not fit; a medium is missing, superfluous or of another kind; or
                a rubric is needed and there is none.
        """
        count = len(request.completions)
        if count < 2 if self.num_completions is None else count != self.num_completions:
            expected = self.num_completions or "2 or more"
            raise SampleError(f"template {self.id!r}: expected {expected} completion(s), found {count}")
        request = self.with_places(request)
        slots = self._media_of(request)
        values = self._values(request)
        shown = list(fill(self._user[0], values))
        for medium, pieces in zip(slots, self._user[1:], strict=True):
            shown += (medium, *fill(pieces, values))
        if self.num_completions is None:  # the published listwise turn is stripped as a whole, its media in place
            shown = _stripped(shown)
        system = fill(self._system, values)
        if media_of(system):
            raise SampleError(f"template {self.id!r}: the media of this prompt would stand in its system turn")
        placed: list[Placed] = []
        at = 0
        for piece in shown:
            if isinstance(piece, str):
                at += len(piece)
            else:
                placed.append(Placed(at, piece))
        return Prompt(
            system=text_of(system),
            user=text_of(tuple(shown)),
            prefix=self.prefix if prefill else "",
            media=tuple(placed),
        )

    def with_places(self, request: JudgeRequest) -> JudgeRequest:
        """The request as it is shown: with its molecules in its prompt, where that is how the template shows them.

        Raises:
            SampleError: They do not go with the marks of the prompt.
        """
        if self.molecules == "text" or self.num_molecules:
            return request
        try:
            return with_places(request)
        except SampleError as error:
            raise SampleError(f"template {self.id!r}: {error}") from error

    def answer(self, count: int, *, prefill: bool = False) -> Answer:
        """The form of every reply on ``count`` completions that ``parse`` reads, but for other spellings of it.

        Raises:
            RecipeError: There is none after the template's started turn, or on its scale.
        """
        return answer_of(
            self.system,
            count=count,
            scale=self.scale,
            reader=self.reader,
            reasoning=self.reasoning,
            prefix=self.prefix if prefill else "",
            where=f"template {self.id!r}",
        )

    def parse(self, reply: Reply, *, count: int) -> Outcome:
        """Scores in the order shown, or the reason why there are none."""
        return READERS[self.reader](reply, count=count, scale=self.scale, reasoning=self.reasoning)

    def _media_of(self, request: JudgeRequest) -> list[Media | Molecule]:
        """One a media slot, in the order shown."""
        own = list(request.media)
        found: list[Media | Molecule] = []
        molecules = list(request.molecules)
        if self.num_molecules not in (0, len(molecules)):
            raise SampleError(
                f"template {self.id!r}: expected {self.num_molecules} molecule(s), found {len(molecules)}"
            )
        for slot in self._slots:
            if slot == "molecule":
                found.append(Molecule(smiles=molecules.pop(0)))
                continue
            kind, _, number = slot.partition("_")
            medium = request.completions[int(number) - 1] if number else own.pop(0) if own else None
            if not isinstance(medium, Media) or medium.kind != kind:
                where = f"completion {number}" if number else "a medium of the prompt"
                has = medium.kind if isinstance(medium, Media) else "none" if medium is None else "text"
                raise SampleError(f"template {self.id!r}: expected {kind} as {where}, found {has}")
            found.append(medium)
        if own:
            num, shown = len(request.media), len(request.media) - len(own)
            raise SampleError(f"template {self.id!r}: the prompt brings {num} media and {shown} would be shown")
        return found

    def _values(self, request: JudgeRequest) -> dict[str, Shown]:
        completions = [self._completion(slot, completion) for slot, completion in enumerate(request.completions, 1)]
        values: dict[str, Shown] = {f"completion_{slot}": shown for slot, shown in enumerate(completions, 1)}
        prompt = as_shown(request.prompt, role="user", sees=self.judge_sees)
        below = () if self.num_molecules else request.molecules
        values["prompt"] = (*prompt, molecules_block(below))
        inside = media_of(prompt)
        if (below or inside) and "prompt" not in self._texts:
            kind = "molecules" if below or inside[0].kind == "molecule" else "media inside"
            raise SampleError(f"template {self.id!r}: shows no prompt, and this one has {kind}")
        if self.num_completions is None:
            values["completions"] = numbered(completions)
        if self._asks_rubric:
            rubric = (request.rubric or self.rubric or "").strip()
            if not rubric:
                raise SampleError(f"template {self.id!r} needs criteria: give the request, or the template, a rubric")
            values["rubric"] = (rubric,)
        values["reference"] = (f"[Reference Answer]\n{request.reference}\n\n" if request.reference else "",)
        return values

    def _completion(self, slot: int, completion: Completion) -> Shown:
        if not isinstance(completion, Media):
            shown = as_shown(completion, role="assistant", sees=self.judge_sees)
            if media_of(shown) and not {f"completion_{slot}", "completions"} & self._texts:
                raise SampleError(f"template {self.id!r}: does not show completion {slot}, which has media inside")
            return shown
        if f"{completion.kind}_{slot}" not in self.media:
            raise SampleError(f"template {self.id!r}: expected text as completion {slot}, found {completion.kind}")
        return ()

    @cached_property
    def _places(self) -> set[int]:
        """Numbers of the completions that the user turn shows, as text or as media."""
        slots = (*SLOT.findall(self.user), *self._slots)
        return {int(slot.rpartition("_")[2]) for slot in slots if slot[-1].isdigit()}

    @cached_property
    def _slots(self) -> tuple[str, ...]:
        """Slots of media and molecules in the user turn, in the order shown."""
        return tuple(MEDIA.findall(self.user))

    @cached_property
    def _texts(self) -> set[str]:
        """Slots of texts in the user turn."""
        return set(SLOT.findall(self.user))

    @cached_property
    def _system(self) -> Pieces:
        return pieces_of(self.system)

    @cached_property
    def _user(self) -> tuple[Pieces, ...]:
        return stretches_of(self.user)

    @cached_property
    def _asks_rubric(self) -> bool:
        return "rubric" in SLOT.findall(self.system + self.user)


def template_ids() -> tuple[str, ...]:
    """The templates that ship, by name."""
    return tuple(sorted(bundled()["templates"]))


def load_template(
    name: str,
    *,
    rubric: str | None = None,
    scale: tuple[float, float] | None = None,
    judge_sees: JudgeSees | None = None,
) -> Template:
    """A template that ships, or the user's own from a TOML file.

    Args:
        name: An id, or a path that ends in ``.toml``.
        rubric: Criteria for a template that has a slot for them; a request's own rubric goes before.
        scale: Another scale, for a template whose text names its scale with ``{low}`` and ``{high}``.
        judge_sees: ``all`` shows a completion's own thoughts to the judge.

    Raises:
        RecipeError: No such template, a field of it is wrong, or it has no place for what was given.
    """
    tables = bundled()
    if name.endswith(".toml"):
        raw, where = read_file(Path(name)), name
    elif name in tables["templates"]:
        raw, where = {"id": name, **tables["templates"][name]}, f"template {name!r}"
    else:
        raise RecipeError(f"unknown template {name!r}, {nearest(name, template_ids())}")

    fields = checked(raw, where=where)
    low, high = scale or fields.scale
    system = fields.system_text(tables, Scale(low=low, high=high), where=where)
    user = fields.user_text(tables, where=where)
    if scale is not None and "{low}" not in system + user:
        raise RecipeError(f"{where}: its text names its own scale; the rubric templates take another")
    template = Template(
        id=fields.id,
        system=_with_scale(system, low, high),
        user=_with_scale(user, low, high),
        scale=Scale(low=low, high=high),
        reader=fields.reader,
        reasoning=fields.reasoning,
        judge_sees=judge_sees or fields.judge_sees,
        prefix=OPENING[fields.reasoning] if fields.prefix is None else fields.prefix,
        rubric=rubric,
        molecules=fields.molecules,
    )
    if rubric is not None and not rubric.strip():
        raise RecipeError(f"{where}: its rubric is empty")
    if rubric is not None and not template._asks_rubric:
        raise RecipeError(f"{where}: has no slot for a rubric; use rubric-score, rubric-pair or rubric-batch")
    return template


def question(kind: str, **fields: str) -> str:
    """The one prompt under which a data set of several fields is judged, such as PandaLM's instruction and input."""
    return text_of(fill(pieces_of(bundled()["questions"][kind]), {name: (text,) for name, text in fields.items()}))


def _stripped(shown: list[Part]) -> list[Part]:
    """Without blanks at either end."""
    while shown and isinstance(first := shown[0], str) and not first.strip() and len(shown) > 1:
        del shown[0]
    if shown and isinstance(first := shown[0], str):
        shown = [first.lstrip(), *shown[1:]]
    while shown and isinstance(last := shown[-1], str) and not last.strip() and len(shown) > 1:
        del shown[-1]
    if shown and isinstance(last := shown[-1], str):
        shown = [*shown[:-1], last.rstrip()]
    return shown


def _with_scale(text: str, low: float, high: float) -> str:
    return text.replace("{low}", f"{low:g}").replace("{high}", f"{high:g}")
