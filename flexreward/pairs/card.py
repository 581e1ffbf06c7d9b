"""What a person reads about a folder of pairs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flexreward.files.whole import replaced
from flexreward.pairs.build import DROPPED, OUTCOMES, train_file
from flexreward.pairs.keep import PairCounts


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
        *("```json", json.dumps(summary, indent=2), "```", ""),
    ]
    with replaced(folder / "README.md") as file:
        file.write("\n".join(lines).encode())


def lines_of(counts: PairCounts, folder: Path) -> list[str]:
    """The counts, for a terminal."""
    lines = [f"{counts.kept} pairs kept: {train_file(folder)}"]
    lines += [f"  {count:>7}  dropped, {reason}" for reason, count in counts.dropped.most_common()]
    if counts.flip_rate is not None:
        lines.append(
            f"flip rate {100 * counts.flip_rate:.1f} % of {counts.readable} pairs that were read in both orders; "
            f"{counts.flipped_to_slot_1} of {counts.flipped} flips went to slot 1"
        )
    return lines
