"""What a person reads about a folder of pairs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flexreward.files.whole import replaced
from flexreward.pairs.build import DROPPED, OUTCOMES, Built, train_file


def write_card(folder: Path, summary: Mapping[str, Any]) -> None:
    """``README.md``, which tells ``datasets.load_dataset(folder)`` which file the pairs are in."""
    train = train_file(folder).name
    lines = [
        *(
            "---",
            "configs:",
            "- config_name: default",
            "  data_files:",
            "  - split: train",
            f"    path: {train}",
            "---",
        ),
        *("", "# Preference pairs", "", f"`{train}` holds the pairs, `{DROPPED}` what was dropped and why,"),
        *(f"`{OUTCOMES}` every reply of the judge. Score and text of a pair that is not here are there.", ""),
        *(f"- {line}" for line in told(summary.get("study") or {})),
        *("", "```json", json.dumps({k: v for k, v in summary.items() if k != "study"}, indent=2), "```", ""),
    ]
    with replaced(folder / "README.md") as file:
        file.write("\n".join(lines).encode())


def lines_of(built: Built, folder: Path) -> list[str]:
    """The counts, for a terminal."""
    counts = built.counts
    lines = [f"{counts.kept} pairs kept: {train_file(folder)}"]
    lines += [f"  {count:>7}  dropped, {reason}" for reason, count in counts.dropped.most_common()]
    if counts.flip_rate is not None:
        lines.append(
            f"flip rate {100 * counts.flip_rate:.1f} % of {counts.readable} pairs that were read in both orders; "
            f"{counts.flipped_to_slot_1} of {counts.flipped} flips went to slot 1"
        )
    return lines


def told(study: Mapping[str, Any]) -> list[str]:
    """What a study comes to, a sentence each; see ``Study.summary``."""
    if not study:
        return []
    lines = [f"{_share(study['yield']['kept'])} of the judged pairs are kept."]
    if study["flips"]["n"]:
        lines.append(f"The winner turns with the order in {_share(study['flips'])} of the pairs that could be read.")
    if (truth := study.get("truth")) and truth["before"]["n"]:
        lines.append(
            f"By `{truth['column']}` the better one wins in {_share(truth['before'])} of the pairs with a winner, and "
            f"in {_share(truth['after'])} of the kept ones."
        )
    for name, trait in (("longer_won", "the longer"), ("earlier_won", "the earlier completion of its sample")):
        if study[name]["before"]["n"]:
            shares = _share(study[name]["before"]), _share(study[name]["after"])
            lines.append(f"The winner is {trait} in {shares[0]} of the pairs with a winner, and in {shares[1]} kept.")
    for pair in study.get("temperatures") or ():
        low, high = pair["temperatures"]
        shares = _share(pair["cooler_won"]["before"]), _share(pair["cooler_won"]["after"])
        lines.append(f"Temperature {low:g} wins against {high:g} in {shares[0]}, and in {shares[1]} of the kept pairs.")
    return lines


def _share(found: Mapping[str, Any]) -> str:
    if found["value"] is None:
        return "none"
    return f"{100 * found['value']:.1f} % ({100 * found['low']:.1f} to {100 * found['high']:.1f}, n {found['n']:,})"
