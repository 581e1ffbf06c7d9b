"""``make quickstart``: the whole job on one machine, with the judge and the policy that come along.

Problems that no training has seen; completions sampled from the policy; each scored alone by the judge, so that the
best of N can be taken; two by two in both orders, so that preference pairs can be built; one page to look at. Run
again, it does nothing that is done.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from flexreward.config import BUNDLED, open_engine, open_judge, resolve_judge
from flexreward.engines import load_engine
from flexreward.engines.base import Engine, Sampling
from flexreward.errors import UserError
from flexreward.files.outcomes import Item, read_header, read_outcomes
from flexreward.files.samples import Sample, read_samples
from flexreward.files.whole import replaced, update_summary
from flexreward.jobs.progress import meter
from flexreward.jobs.run import judge_to_file
from flexreward.jobs.tally import tally
from flexreward.judge import Judge
from flexreward.pairs import build, card, choose
from flexreward.pairs.keep import PairCounts, consistent
from flexreward.pairs.plot import LINES
from flexreward.report import write_report
from recipes.tiny import domain, measure

OUT = Path("runs/quickstart")
COUNTS = (1, 2, 4, 8, 16)
PER_PROMPT = 4
"""Pairs judged of each problem."""
SEED = 7


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judge", default="tiny", help="tiny, a model's folder, a hub id or a recipe (default: tiny)")
    parser.add_argument("--problems", type=int, default=96)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    try:
        return asyncio.run(run(args.judge, args.problems, args.out))
    except UserError as error:
        print(f"quickstart: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("quickstart: interrupted; what was judged is kept, run it again to go on", file=sys.stderr)
        return 130


async def run(name: str, number: int, out: Path) -> int:
    recipe = resolve_judge(name)
    out.mkdir(parents=True, exist_ok=True)
    samples = out / "samples.jsonl"
    await sample(samples, number)
    print(f"opening the judge {name}", flush=True)
    engine = open_engine(recipe)
    files = choose.Files.beside(out)
    pair_outcomes = out / build.OUTCOMES
    try:
        seconds = await judge(open_judge(recipe, template="score", engine=engine), items(samples), files.outcomes)
        seconds += await judge(open_judge(recipe, template="pair", engine=engine), pairs(samples), pair_outcomes)
    finally:
        await engine.close()
    found = choose.choose_all(rows(samples), files, truth="right", counts=COUNTS, seed=SEED)
    plan = build.Plan(rules=(consistent,), per_prompt=PER_PROMPT, seed=SEED)
    counts = build.build(lambda: rows(samples), out, plan).counts
    summarise(out, found, counts, seconds)
    show(json.loads(files.summary.read_bytes()), write_report(out))
    return 0


async def sample(path: Path, number: int) -> None:
    """Draw the completions, unless they stand there already."""
    settings = {"number": number, "n": max(COUNTS), "seed": SEED}
    note = path.with_suffix(".settings.json")
    if path.exists() and note.exists() and json.loads(note.read_bytes()) == settings:
        print(f"{path}: there already", flush=True)
        return
    for stale in (path, path.parent / "outcomes.jsonl", path.parent / build.OUTCOMES):
        stale.unlink(missing_ok=True)
    problems = measure.held_out(number, seed=SEED)
    print(f"sampling {max(COUNTS)} completions for each of {number} problems from the bundled policy", flush=True)
    policy: Engine = load_engine("transformers", model=str(BUNDLED / "tiny-policy"), threads=1)
    try:
        drawn = await measure.completions(
            policy, problems, Sampling(temperature=1.0, max_tokens=24, n=max(COUNTS), seed=SEED)
        )
    finally:
        await policy.close()
    with replaced(path) as file:
        for i, (problem, texts) in enumerate(zip(problems, drawn, strict=True)):
            row = {
                "id": f"{problem.kind}-{i:03}",
                "kind": problem.kind,
                "prompt": problem.question,
                "answer": problem.answer,
                "completions": texts,
                "right": [domain.answer_in(text) == problem.answer for text in texts],
            }
            file.write(json.dumps(row).encode() + b"\n")
    note.write_text(json.dumps(settings) + "\n")


def rows(path: Path) -> Iterator[Sample]:
    return read_samples(str(path))


def items(path: Path) -> Iterator[Item]:
    return choose.completion_items(rows(path))


def pairs(path: Path) -> Iterator[Item]:
    return build.pair_items(rows(path), per_prompt=PER_PROMPT, seed=SEED)


async def judge(judge: Judge, items: Iterator[Item], out: Path) -> float:
    """Judge what ``out`` lacks; what another judge wrote there gives way. Seconds it took, 0 where nothing was left."""
    wanted = list(items)
    stale = out.exists() and read_header(out)["judge"]["fingerprint"] != judge.fingerprint
    if stale:
        print(f"{out}: of another judge; judging anew", flush=True)
    began = time.monotonic()
    with meter(len(wanted), out.name) as progress:
        await judge_to_file(judge, wanted, out, overwrite=stale, on_row=progress.add, on_resume=progress.resumed)
    return (time.monotonic() - began) * (progress.pace.num_done > 0)


def summarise(out: Path, found: dict[str, Any], counts: PairCounts, seconds: float) -> None:
    """Complete ``summary.json``: rates over both outcome files, and the pace, which a run that judged nothing keeps."""
    files = (out / "outcomes.jsonl", out / build.OUTCOMES)
    tallies = [tally(read_outcomes(file)) for file in files]
    read, replies = sum(t.num_read for t in tallies), sum(t.num_replies for t in tallies)
    intervals = {line: {n: [e["low"], e["high"]] for n, e in found[line].items()} for line in LINES}
    fields = {**counts.summary(), "parse_rate": read / replies if replies else None, "intervals": intervals}
    if seconds:
        fields["judgments_per_s"] = sum(t.num_rows for t in tallies) / seconds
    update_summary(out / "summary.json", fields)
    card.write_card(out, counts.summary())


def show(summary: dict[str, Any], page: Path) -> None:
    """The table, and what else the summary says, for a terminal."""
    console = Console(highlight=False)
    table = Table(title="True accuracy of the completion that is taken (95 % interval)")
    for column in ("best of", "judge", "oracle", "shuffled scores"):
        table.add_column(column, justify="right")
    for n in summary["best_of_n"]:
        cells = [
            f"{100 * summary[line][n]:.1f} % ({100 * low:.0f} to {100 * high:.0f})"
            for line in LINES
            for low, high in [summary["intervals"][line][n]]
        ]
        table.add_row(n, *cells)
    console.print(table)
    pairs = summary["pairs"]
    dropped = {reason: count for reason, count in pairs["dropped"].items() if reason != "duplicate"}
    reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items()) or "none"
    console.print(f"pairs        {pairs['kept']} kept of {pairs['judged']} judged in both orders; dropped: {reasons}")
    console.print(f"             {pairs['dropped'].get('duplicate', 0)} pairs of equal texts were not judged")
    console.print(f"parse rate   {100 * summary['parse_rate']:.1f} % of the judge's replies could be read")
    flips = summary["flip_rate"]
    console.print(
        "flip rate    "
        + ("no pair could be read" if flips is None else f"{100 * flips:.1f} % of the pairs")
        + " changed their winner with the order"
    )
    console.print(f"pace         {summary['judgments_per_s']:.1f} judgments a second")
    console.print(f"\nopen {page.resolve().as_uri()}")


if __name__ == "__main__":
    sys.exit(main())
