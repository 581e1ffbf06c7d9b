"""What a run comes to, as one JSON object: figures under both protocols, and all that says how far to trust them."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from flexreward.errors import OutputError
from flexreward.evals.base import Benchmark, Orders
from flexreward.evals.calibrate import Calibration, calibrate
from flexreward.evals.confidence import told_by_confidence
from flexreward.evals.drawn import as_drawn
from flexreward.evals.run import RunFolder, finite
from flexreward.evals.scaling import over_length, over_votes
from flexreward.evals.table import Table, table_of
from flexreward.files.outcome_file import timings_path
from flexreward.files.outcomes import read_header, read_outcomes
from flexreward.types import Reason, Scale

NOT_JUDGED = (Reason.ENGINE.value, Reason.DEADLINE.value)
"""Why a row with an outcome is none the less not judged: the judge was never heard."""

WRONG = "_unscored_wrong"


def summarize(run: RunFolder, benchmark: Benchmark, *, seed: int = 0) -> tuple[dict[str, Any], Calibration | None]:
    """What the outcomes of a begun run come to; nothing is written.

    A half-run has no figures: rows are missing, or the engine failed on some.

    Raises:
        OutputError: The folder holds no begun run.
    """
    begun = run.read_summary()
    if not begun or not run.outcomes.is_file():
        raise OutputError(f"{run.path}: holds no run of flexreward eval; flexreward eval {benchmark.name} begins one")
    header = read_header(run.outcomes)
    table = table_of(read_outcomes(run.outcomes))
    num_heard = sum(reason not in NOT_JUDGED for reason in table.reasons)
    # A judge that takes none of the rows, such as one of text where all have images, was measured on nothing.
    shown_any = any(reason != Reason.REFUSED for reason in table.reasons)
    complete = num_heard >= begun["expected_rows"] > 0 and shown_any
    fields: dict[str, Any] = {
        "benchmark": benchmark.name,
        "title": benchmark.title,
        "headline": benchmark.headline,
        "higher_is_better": benchmark.higher_is_better,
        "task": benchmark.task,
        "rows": len(table),
        "expected_rows": begun["expected_rows"],
        "complete": complete,
        "notes": _notes(begun, benchmark),
        "judge": header["judge"],
        "template": header["template"],
        "quirks": list(benchmark.quirks),
        "unscored": dict(Counter(reason for reason in table.reasons if reason).most_common()),
        "reply_reasons": dict(Counter(table.reply_reasons).most_common()),
        "parse_rate": _parse_rate(table),
        "cost": cost(run, table),
        "published": {},
        "strict": {},
    }
    if not complete:
        return finite(fields), None
    calibration = calibrate(table, benchmark.task, header, benchmark=benchmark.name, seed=seed)
    fields |= _figures(table, benchmark, header, begun["protocol"], seed=seed)
    fields["calibration"] = calibration.fields
    return finite(fields), calibration


def _figures(
    table: Table, benchmark: Benchmark, header: Mapping[str, Any], protocol: Mapping[str, Any], *, seed: int
) -> dict[str, Any]:
    """What only a whole run has."""
    from flexreward.evals.bias import bias
    from flexreward.evals.strict import strict

    low, high = header["template"]["scale"]
    scale = Scale(low=low, high=high)
    aggregate, task = header["judge"]["aggregate"], benchmark.task
    shown = orders_of(table)
    # Replies that exist were bought elsewhere: what their judge was shown is not known here.
    size = benchmark.drawn.image_size if protocol["name"] == "replies" else protocol.get("image_size")
    used = as_drawn(
        table,
        benchmark.drawn,
        orders=shown,
        aggregate=aggregate,
        seed=seed,
        image_size=tuple(size) if size else None,
    )
    strictly = {name: asdict(estimate) for name, estimate in strict(benchmark, table, seed=seed).items()}
    return {
        "published": dict(benchmark.published(used.table)),
        "strict": strictly,
        "unscored_both_ways": _both_ways(strictly),
        "protocol": {
            **protocol,
            "orders": shown,
            "published_uses": used.says,
            "strict_uses": "every reply of this run",
        },
        "bias": bias(benchmark, table, scale, seed=seed),
        "scaling": {
            "votes": over_votes(table, task, aggregate=aggregate, seed=seed),
            "length": over_length(table, task),
        },
        "confidence": told_by_confidence(table, task, scale),
    }


def orders_of(table: Table) -> Orders:
    """How the completions were shown, as the replies have it."""
    if ((table.first_NO >= 0).sum(axis=1) > 1).any():
        return "both"
    return "random" if (table.first_NO > 0).any() else "given"


def cost(run: RunFolder, table: Table) -> dict[str, Any]:
    """Tokens of all rows, and seconds: those that a bought judgment took by the clock, many at a time, and its own."""
    work = run.read_summary().get("work") or {}
    own = [timing["seconds"] for timing in _timings(timings_path(run.outcomes)) if not timing["cached"]]
    judged, seconds = work.get("judged", 0), work.get("seconds", 0.0)
    return {
        "prompt_tokens": sum(row["tokens"]["prompt"] for row in read_outcomes(run.outcomes)),
        "completion_tokens": int(table.tokens_N.sum()),
        "completion_tokens_per_judgment": float(table.tokens_N.mean()) if len(table) else None,
        "seconds_per_judgment": seconds / judged if judged else None,
        "latency_s": statistics.fmean(own) if own and judged else None,
    }


def _both_ways(strict: dict[str, Any]) -> dict[str, float]:
    """Every figure that is also told with what is unscored as wrong, beside itself."""
    wrong = {name: name.removesuffix(WRONG) for name in strict if name.endswith(WRONG)}
    return {name: strict[name]["value"] for pair in wrong.items() for name in reversed(pair) if name in strict}


def _notes(begun: Mapping[str, Any], benchmark: Benchmark) -> list[str]:
    """What a reader must know before the figures."""
    expected = benchmark.source.num_rows
    if begun.get("limit") or begun.get("subset") or expected in (None, begun["expected_rows"]):
        return []
    return [f"the data has {begun['expected_rows']} rows, and published figures are of {expected}"]


def _parse_rate(table: Table) -> float | None:
    asked_NOK = ~np.isnan(table.reasoning_NOK)
    num = int(asked_NOK.sum())
    return float((~np.isnan(table.votes_NOKC[..., 0])).sum() / num) if num else None


def _timings(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        return
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield json.loads(line)
