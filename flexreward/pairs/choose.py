"""Best-of-N over files: completions scored one at a time, the best chosen, the curve written and drawn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from flexreward.errors import OutputError, RecipeError, SampleError
from flexreward.files.outcomes import Item, encode, read_header, read_outcomes, request_digest
from flexreward.files.samples import Sample
from flexreward.files.whole import replaced, update_summary
from flexreward.pairs.best_of_n import Prompt, choice, curve
from flexreward.pairs.plot import LINES, draw

FIELDS = ("id", "prompt", "completion", "index", "score", "scores", "tied", "num_unscored")
"""What a line of the choices holds before the columns that are carried through."""

DEFAULT_COUNTS = (1, 2, 4, 8, 16)


class Files(NamedTuple):
    """Where the results stand."""

    best: Path
    outcomes: Path
    curve: Path
    plot: Path
    summary: Path

    @classmethod
    def beside(cls, out: Path) -> Files:
        """``runs/best.jsonl`` gets ``runs/best.outcomes.jsonl`` and so on; a folder holds them under plain names."""
        stem = out.with_suffix("").name + "." if out.suffix else ""
        folder = out.parent if out.suffix else out
        return cls(
            best=out if out.suffix else folder / "best.jsonl",
            outcomes=folder / f"{stem}outcomes.jsonl",
            curve=folder / f"{stem}curve.json",
            plot=folder / f"{stem}curve.png",
            summary=folder / f"{stem}summary.json",
        )


def parse_counts(text: str) -> tuple[int, ...]:
    """``--n 1,2,4``."""
    parts = text.split(",")
    if all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        return tuple(sorted({int(part) for part in parts}))
    raise RecipeError(f"--n {text}: expected whole numbers between commas, such as 1,2,4")


def template_for(flag: str | None, recipe: str | None) -> str:
    """A pointwise template: the flag's, else the recipe's if it is one, else ``score``."""
    from flexreward.templates import load_template

    if flag is not None and load_template(flag).num_completions != 1:
        raise RecipeError(f"--template {flag}: best-of-n scores each completion alone, such as score does")
    if flag is None and (recipe is None or load_template(recipe).num_completions != 1):
        return "score"
    return flag or str(recipe)


def checked(samples: Iterable[Sample], *, counts: Sequence[int] | None, truth: str | None) -> Iterator[Sample]:
    """The samples, each with enough completions and a truth for each of them."""
    for sample in samples:
        if counts and len(sample.completions) < max(counts):
            raise SampleError(f"{sample.where}: has {len(sample.completions)} completions, --n asks for {max(counts)}")
        if truth is not None:
            truth_of(sample, truth)
        if sample.inside:
            kind = sample.inside[0].kind
            raise SampleError(f"{sample.where}: brings {kind} inside of a text, or as one; flexreward judge takes it")
        yield sample


def truth_of(sample: Sample, column: str) -> tuple[float, ...]:
    """How good each completion really is."""
    values = sample.extra.get(column)
    if not isinstance(values, list) or not all(isinstance(v, bool | int | float) for v in values):
        raise SampleError(
            f"{sample.where}: --truth {column}: expected a list of true/false or numbers, one a completion"
        )
    if len(values) != len(sample.completions):
        raise SampleError(
            f"{sample.where}: --truth {column} has {len(values)} values for {len(sample.completions)} completions"
        )
    return tuple(float(value) for value in values)


def completion_items(samples: Iterable[Sample]) -> Iterator[Item]:
    """A request a completion: ``q1#0`` is the first of q1."""
    for sample in samples:
        for index in range(len(sample.completions)):
            yield _item(sample, index)


def _item(sample: Sample, index: int) -> Item:
    return Item(sample.only([index], id=f"{sample.id}#{index}"), {})


def choose_all(
    samples: Iterable[Sample], files: Files, *, truth: str | None, counts: Sequence[int] | None, seed: int
) -> dict[str, Any]:
    """Write the choices, the curve and its plot from the outcomes; the results as plain JSON.

    Without a truth the curve is over the judge's own scores, as shares of the scale: no oracle, no control, and only
    the prompts of which every completion has a score.
    """
    low, high = read_header(files.outcomes)["template"]["scale"]
    rows = read_outcomes(files.outcomes)
    prompts: list[Prompt] = []
    num_left_out = 0
    with replaced(files.best) as best:
        for sample in samples:
            scores = tuple(
                _score(sample, index, next(rows, None), files.outcomes) for index in range(len(sample.completions))
            )
            best.write(encode(_choice_row(sample, scores)))
            if truth:
                prompts.append(Prompt(scores, truth_of(sample, truth)))
            elif None not in scores:
                prompts.append(Prompt(scores, tuple((s - low) / (high - low) for s in scores if s is not None)))
            else:
                num_left_out += 1
    smallest = min((len(prompt.scores) for prompt in prompts), default=0)
    sizes = counts or [n for n in DEFAULT_COUNTS if n <= smallest]
    found = {
        "truth": truth,
        "num_left_out": num_left_out,
        **curve(prompts, sizes if prompts else [], seed=seed).as_json(),
    }
    if not truth:
        del found["oracle"], found["shuffled"]
    with replaced(files.curve) as file:
        file.write(encode(found))
    means = {line: {n: e["mean"] for n, e in found[line].items()} for line in LINES if line in found}
    update_summary(files.summary, means if truth else {"score_by_n": means["best_of_n"]})
    draw(found, files.plot)
    return found


def _score(sample: Sample, index: int, row: dict[str, Any] | None, path: Path) -> float | None:
    request = _item(sample, index).request
    if row is None or (row["id"], row["request"]) != (request.id, request_digest(request)):
        raise OutputError(
            f"{path}: does not go on with {request.id!r}: the samples changed; run again with --overwrite"
        )
    return row["scores"][0] if row["scores"] else None


def _choice_row(sample: Sample, scores: Sequence[float | None]) -> dict[str, Any]:
    """The first of those that share the best score is the choice; nothing is, where nothing could be read."""
    tied = choice(scores)
    index = tied[0] if tied else None
    text = None if index is None else sample.completions[index]
    return {
        "id": sample.id,
        "prompt": _plain(sample.prompt),
        "completion": _plain(text),
        "index": index,
        "score": None if index is None else scores[index],
        "scores": list(scores),
        "tied": list(tied) if len(tied) > 1 else [],
        "num_unscored": sum(score is None for score in scores),
        **sample.extra,
    }


def _plain(text: Any) -> Any:
    return [{"role": m.role, "content": m.content} for m in text] if isinstance(text, tuple) else text
