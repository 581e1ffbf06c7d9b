"""Completions in, preference pairs out: which pairs are judged, and the folder that a trainer loads."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from flexreward.errors import OutputError, RecipeError, SampleError
from flexreward.files.outcomes import Item, encode_fast, read_header, read_outcomes, request_digest, texts_digest
from flexreward.files.samples import Sample
from flexreward.files.whole import replaced
from flexreward.jobs.run import fitting, items_of
from flexreward.jobs.tally import Tally
from flexreward.media.limits import LIMITS, Limits
from flexreward.pairs.balance import Balance, Trait
from flexreward.pairs.images import in_parts, packed, prompt_turns
from flexreward.pairs.keep import JudgedPair, PairCounts, Rule, sort_out
from flexreward.pairs.shown import SHOWN, Shown
from flexreward.pairs.study import Study
from flexreward.types import Completion, Media, Message, Scale, Text

if TYPE_CHECKING:
    from flexreward.templates import Template

FIELDS = (
    *("id", "prompt", "chosen", "rejected", "score_chosen", "score_rejected"),
    *("chosen_index", "rejected_index", "origin_chosen", "origin_rejected", "judge", "template"),
)
"""Columns of a pair, before those that are carried through."""
READ_BY_TRAINERS = (
    "image",
    "images",
    "completion",
    "label",
    "messages",
    "input_ids",
    "prompt_ids",
    "chosen_ids",
    "rejected_ids",
)
"""Columns that a trainer would take for its own."""

TRAIN, DROPPED, OUTCOMES = "train.jsonl", "dropped.jsonl", "pair_outcomes.jsonl"
PACKED = "train.parquet"
"""In place of ``train.jsonl`` where prompts show images."""


class Candidates(NamedTuple):
    """The pairs of one prompt, as indices of its completions."""

    judged: list[tuple[int, int]]
    duplicates: list[tuple[int, int]]
    """Two equal texts, or the texts of an earlier pair again: nothing could be learnt from them."""


def candidates(sample: Sample, *, per_prompt: int | None = None, seed: int = 0) -> Candidates:
    """All pairs of different texts, or ``per_prompt`` of them drawn from (seed, id)."""
    judged: list[tuple[int, int]] = []
    duplicates: list[tuple[int, int]] = []
    firsts: dict[Completion, int] = {}
    first = [firsts.setdefault(text, i) for i, text in enumerate(sample.completions)]
    for i, j in itertools.combinations(range(len(first)), 2):
        # A pair of texts is new where each of its texts stands there for the first time.
        (judged if first[i] == i and first[j] == j else duplicates).append((i, j))
    if per_prompt is not None and per_prompt < len(judged):
        digest = hashlib.sha256(f"{seed}:{sample.id}".encode()).digest()
        judged = sorted(random.Random(int.from_bytes(digest)).sample(judged, per_prompt))
    return Candidates(judged, duplicates)


def template_for(flag: str | None, recipe: str | None, first: Sample | None = None) -> str:
    """A template that takes two completions: the flag's, else the recipe's if it does, else ``pair``, or what shows two
    completions of the ``first`` sample with its image."""
    from flexreward.templates import load_template

    if flag is not None and load_template(flag).num_completions == 1:
        raise RecipeError(f"--template {flag}: pairs need one that compares two completions, such as pair")
    if flag is None and (recipe is None or load_template(recipe).num_completions == 1):
        if first is None:
            return "pair"
        refuse_media(first)
        return fitting(replace(first, completions=first.completions[:2]))
    return flag or str(recipe)


def pair_id(sample: Sample, indices: tuple[int, int]) -> str:
    """``q1#0-3``: the first completion of q1 against its fourth."""
    return f"{sample.id}#{indices[0]}-{indices[1]}"


def pair_items(
    samples: Iterable[Sample], *, per_prompt: int | None = None, seed: int = 0, template: Template | None = None
) -> Iterator[Item]:
    """What is to be judged, a request a pair.

    Raises:
        SampleError: A sample has one completion, brings what pairs are not written with, or has images in its columns,
            or molecules, that the ``template`` does not show.
    """
    for sample in samples:
        if len(sample.completions) < 2:
            raise SampleError(f"{sample.where}: has one completion; a pair needs two or more")
        refuse_media(sample)
        if template is not None and (sample.media or sample.inside or sample.molecules):
            next(items_of([replace(sample, completions=sample.completions[:2])], template))
        for pair in candidates(sample, per_prompt=per_prompt, seed=seed).judged:
            yield Item(sample.only(pair, id=pair_id(sample, pair)), {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How the pairs of a run were chosen, and which are kept."""

    rules: Sequence[Rule]
    per_prompt: int | None = None
    balance: Sequence[Trait] = ()
    """Of what the rules keep."""
    seed: int = 0
    limits: Limits = LIMITS
    """What the images that are copied into the folder are held to."""
    truth: str | None = None
    """The column that says how good each completion really is; it has no part in what is kept."""


class Built(NamedTuple):
    """What became of all pairs."""

    counts: PairCounts
    study: Study
    judged: Tally
    """Over the outcomes."""

    def summary(self) -> dict[str, Any]:
        """As plain JSON."""
        return {**self.counts.summary(), "study": self.study.summary()}


def build(samples: Callable[[], Iterable[Sample]], folder: Path, plan: Plan) -> Built:
    """Write the pairs that the plan keeps, and those that it drops with the reason, from the outcomes in ``folder``.

    Args:
        samples: Reads the ones that were judged, in the same order; twice where pairs are to be balanced.
        folder: Holds the outcomes; gets ``train.jsonl`` (``train.parquet`` where prompts show images),
            ``dropped.jsonl`` and, for a reader, ``shown.jsonl``, each whole or not at all.

    Raises:
        OutputError: The outcomes are not those of ``samples``.
    """
    balance = Balance(plan.balance, seed=plan.seed)
    if plan.balance:
        for sorted_out in sorted_out_by(samples(), read_outcomes(folder / OUTCOMES), plan):
            for pair, reason in sorted_out.pairs:
                if reason is None:
                    balance.show(pair)
    try:
        built = _write(samples, folder, plan, balance, images=False)
        (folder / PACKED).unlink(missing_ok=True)
    except _ShowsImages:
        built = _write(samples, folder, plan, balance, images=True)
        (folder / TRAIN).unlink(missing_ok=True)
    return built


def build_judged(samples: Callable[[], Iterable[Sample]], folder: Path, plan: Plan) -> Built | None:
    """The same, or ``None`` where not all pairs are judged yet: one pass over samples and outcomes says which it is."""
    try:
        return build(samples, folder, plan)
    except OutputError:
        return None  # whoever judges the rest says what is wrong, if something is


class _ShowsImages(Exception):
    """A prompt does, so that all rows are to be written in the shape of those that do."""


def _write(
    samples: Callable[[], Iterable[Sample]], folder: Path, plan: Plan, balance: Balance, *, images: bool
) -> Built:
    header = read_header(folder / OUTCOMES)
    low, high = header["template"]["scale"]
    study, judged = Study(Scale(low=low, high=high), plan.truth), Tally()
    shown = Shown(truth=plan.truth, limits=plan.limits)
    conversational: bool | None = None
    with ExitStack() as files:
        dropped = files.enter_context(replaced(folder / DROPPED))
        if images:
            packer = files.enter_context(packed(folder / PACKED, limits=plan.limits))
        else:
            train = files.enter_context(replaced(folder / TRAIN))
        outcomes = judged.counted(read_outcomes(folder / OUTCOMES))
        for sample, pairs, rows, duplicates in sorted_out_by(samples(), outcomes, plan):
            if not images and (sample.media or sample.inside):
                raise _ShowsImages
            if not images:
                chat = _is_conversational(sample)
                if conversational not in (None, chat):
                    raise SampleError(
                        f"{sample.where}: texts here, conversations in earlier rows (or the reverse); use one"
                    )
                conversational = chat
            for (pair, reason), row in zip(pairs, rows, strict=True):
                reason = reason or balance.reason(pair)
                study.add(sample, pair, reason)
                shown.offer(sample, pair, reason, row)
                if reason is not None:
                    dropped.write(encode_fast(_dropped_row(sample, pair, reason)))
                elif images:
                    packer.write(*_row_with_images(sample, pair, header))
                else:
                    train.write(encode_fast(_pair_row(sample, pair, header)))
            for indices in duplicates:
                study.duplicates += 1
                name = pair_id(sample, indices)
                dropped.write(
                    encode_fast({"id": name, "reason": "duplicate", "indices": indices, "scores": None, "orders": []})
                )
        with replaced(folder / SHOWN) as file:
            file.writelines(shown.lines())
    return Built(study.counts(), study, judged)


def train_file(folder: Path) -> Path:
    """The file of a folder that holds its pairs."""
    return folder / (PACKED if (folder / PACKED).exists() else TRAIN)


class SortedOut(NamedTuple):
    """The pairs of one sample, each with why the rules drop it."""

    sample: Sample
    pairs: list[tuple[JudgedPair, str | None]]
    rows: list[Mapping[str, Any]]
    """The outcome of each pair."""
    duplicates: list[tuple[int, int]]


def sorted_out_by(samples: Iterable[Sample], rows: Iterator[Mapping[str, Any]], plan: Plan) -> Iterator[SortedOut]:
    """The pairs of each sample as the plan's rules sort them out.

    Args:
        rows: Outcomes, in the order of the pairs.

    Raises:
        OutputError: They are not those of ``samples``.
    """
    for sample in samples:
        found = candidates(sample, per_prompt=plan.per_prompt, seed=plan.seed)
        taken = [_row_of(sample, indices, next(rows, None)) for indices in found.judged]
        pairs = [_judged_pair(sample, indices, row) for indices, row in zip(found.judged, taken, strict=True)]
        reasons = sort_out(pairs, plan.rules)
        yield SortedOut(sample, list(zip(pairs, reasons, strict=True)), taken, found.duplicates)
    if (row := next(rows, None)) is not None:
        raise OutputError(f"{OUTCOMES}: goes on with {row['id']!r}: the samples changed; run again with --overwrite")


def _row_of(sample: Sample, indices: tuple[int, int], row: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The next outcome, if it is of this pair."""
    name = pair_id(sample, indices)
    if row is None or row["id"] != name or row["request"] != _digest(sample, indices):
        raise OutputError(f"{OUTCOMES}: does not go on with {name!r}: the samples changed; run again with --overwrite")
    return row


def _digest(sample: Sample, indices: tuple[int, int]) -> str:
    texts = (sample.prompt, sample.completions[indices[0]], sample.completions[indices[1]])
    words = [text for text in texts if isinstance(text, str)]
    if len(words) == len(texts) and not sample.media and not sample.molecules:
        return texts_digest(words, reference=sample.reference, rubric=sample.rubric)
    return request_digest(sample.only(indices, id=sample.id))


def _judged_pair(sample: Sample, indices: tuple[int, int], row: Mapping[str, Any]) -> JudgedPair:
    return JudgedPair(
        id=row["id"],
        indices=indices,
        scores=tuple(row["scores"]) if row["scores"] else None,
        orders=tuple([tuple(order["scores"]) if order["scores"] else None for order in row["orders"]]),
        lengths=(_length(sample.completions[indices[0]]), _length(sample.completions[indices[1]])),
        cut=bool(sample.origins) and (sample.origins[indices[0]].cut or sample.origins[indices[1]].cut),
    )


def _length(text: Completion) -> int:
    if isinstance(text, str):
        return len(text)
    assert not isinstance(text, Media), "refused before it was judged"
    return sum(len(turn.content) for turn in text)


def _pair_row(sample: Sample, pair: JudgedPair, header: Mapping[str, Any]) -> dict[str, Any]:
    assert pair.scores is not None
    chosen, rejected = pair.chosen, 1 - pair.chosen
    chat = _is_conversational(sample)
    return {
        "id": pair.id,
        "prompt": _turns(sample.prompt, "user") if chat else sample.prompt,
        "chosen": _completion(sample, pair.indices[chosen], chat),
        "rejected": _completion(sample, pair.indices[rejected], chat),
        "score_chosen": pair.scores[chosen],
        "score_rejected": pair.scores[rejected],
        "chosen_index": pair.indices[chosen],
        "rejected_index": pair.indices[rejected],
        **_origins(sample, pair.indices[chosen], pair.indices[rejected]),
        "judge": header["judge"]["fingerprint"],
        "template": header["template"]["id"],
        **({"molecules": list(sample.molecules)} if sample.molecules else {}),
        **sample.extra,
    }


def _row_with_images(sample: Sample, pair: JudgedPair, header: Mapping[str, Any]) -> tuple[dict[str, Any], list[Media]]:
    """A row whose texts are messages of parts, and the images of its prompt."""
    row = _pair_row(replace(sample, prompt=""), pair, header)
    row["prompt"], images = prompt_turns(sample.prompt, sample.media)
    for side in ("chosen", "rejected"):
        turns = row[side] if isinstance(row[side], list) else [{"role": "assistant", "content": row[side]}]
        row[side] = in_parts(turns)
    return row, images


def _origins(sample: Sample, chosen: int, rejected: int) -> dict[str, Any]:
    if not sample.origins:
        return {}
    return {
        "origin_chosen": sample.origins[chosen].as_json(),
        "origin_rejected": sample.origins[rejected].as_json(),
    }


def _dropped_row(sample: Sample, pair: JudgedPair, reason: str) -> dict[str, Any]:
    return {"id": pair.id, "reason": reason, "indices": pair.indices, "scores": pair.scores, "orders": pair.orders}


def refuse_media(sample: Sample) -> None:
    """Refuse rows whose media the pairs would be without: trainers take images of the prompt, and its molecules, alone.

    Raises:
        SampleError: It has some.
    """
    made = [medium.kind for text in sample.completions for medium in _media_in(text)]
    kinds = [medium.kind for medium in (*sample.media, *_media_in(sample.prompt)) if medium.kind != "image"]
    found = [*(f"{kind} in a completion" for kind in made), *kinds]
    if found:
        raise SampleError(
            f"{sample.where}: brings {found[0]}, and pairs are of texts, with images in the prompt; flexreward judge "
            "takes it"
        )


def _media_in(text: Completion) -> list[Media]:
    if isinstance(text, Media):
        return [text]
    turns = () if isinstance(text, str) else text
    return [
        part for turn in turns if not isinstance(turn.content, str) for part in turn.content if isinstance(part, Media)
    ]


def _is_conversational(sample: Sample) -> bool:
    return not (isinstance(sample.prompt, str) and all(isinstance(text, str) for text in sample.completions))


def _completion(sample: Sample, index: int, chat: bool) -> Any:
    text = sample.completions[index]
    assert not isinstance(text, Media), "refused before it was judged"
    return _turns(text, "assistant") if chat else text


def _turns(text: Text, role: str) -> list[dict[str, str]]:
    turns = (Message(role=role, content=text),) if isinstance(text, str) else text
    assert all(isinstance(turn.content, str) for turn in turns), "refused before it was judged"
    return [{"role": turn.role, "content": str(turn.content)} for turn in turns]
