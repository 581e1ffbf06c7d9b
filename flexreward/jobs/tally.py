"""What a file of outcomes comes to: how many were read, how many tied, and why the others have no score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from flexreward.types import Reason

ADVICE = {
    Reason.TRUNCATED: "the judge was cut short: raise max_tokens in its recipe",
    Reason.NO_END: "the judge did not end its thought: raise max_tokens, or take a judge trained for this template",
    Reason.NO_ANSWER: "the judge wrote no <answer>: is it trained for this template and this kind of text?",
    Reason.NOT_A_NUMBER: "the judge answered in words: is it trained for this template?",
    Reason.MISSING: "the judge scored too few completions: is it trained for this number of them?",
    Reason.EXTRA: "the judge scored too many completions: is it trained for this number of them?",
    Reason.OFF_SCALE: "the judge left the template's scale: try another template",
    Reason.QUORUM: "too few votes, or only one order, could be read: see the orders in the file",
    Reason.CONTEXT: "too long for the judge: take one that reads more",
    Reason.CUT_COMPLETION: "the completion was cut by its own limit",
    Reason.ALONE: "there was nothing to compare it with: give the whole group, or judge by score",
    Reason.ENGINE: "the engine failed: mend it and run again with --overwrite, what is settled is not bought again",
    Reason.REFUSED: "the engine cannot take such a request: take another engine",
    Reason.DEADLINE: "the time ran out: raise deadline_s, then --overwrite; what is settled is not bought again",
}
"""What a user can do about each reason, in one line."""


@dataclass(slots=True)
class Tally:
    """Running counts over the lines of an outcome file."""

    num_rows: int = 0
    num_scored: int = 0
    num_ties: int = 0
    unscored: Counter[str] = field(default_factory=Counter)
    num_replies: int = 0
    num_read: int = 0
    """Replies with a verdict."""
    num_thoughts_cut: int = 0
    """Replies whose thought was ended for them."""
    num_prompts_cut: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Count one line."""
        self.num_rows += 1
        self.num_ties += row["tie"]
        if row["status"] == "scored":
            self.num_scored += 1
        else:
            self.unscored[row["reason"]] += 1
        self.num_prompts_cut += "prompt_cut" in row
        for order in row["orders"]:
            for vote in order["votes"]:
                self.num_replies += 1
                self.num_read += vote["scores"] is not None
                self.num_thoughts_cut += "thought_cut" in vote
        self.prompt_tokens += row["tokens"]["prompt"]
        self.completion_tokens += row["tokens"]["completion"]

    def counted(self, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The same lines, each counted as it is taken."""
        for row in rows:
            self.add(row)
            yield row

    @property
    def unscored_share(self) -> float:
        return 1 - self.num_scored / self.num_rows if self.num_rows else 0.0

    @property
    def parse_rate(self) -> float | None:
        """Share of the judge's replies that hold a verdict; ``None`` before the first reply."""
        return self.num_read / self.num_replies if self.num_replies else None

    @property
    def cut_lines(self) -> list[str]:
        """What the judge did not get to think or to read, where that happened."""
        found = []
        if self.num_thoughts_cut:
            found.append(f"{self.num_thoughts_cut} of {self.num_replies} replies have a thought that was cut short")
        if self.num_prompts_cut:
            found.append(f"{self.num_prompts_cut} of {self.num_rows} prompts were cut at their head")
        return found

    def summary(self) -> dict[str, Any]:
        """As plain JSON; what was cut only where something was."""
        cut = {"thoughts_cut": self.num_thoughts_cut, "prompts_cut": self.num_prompts_cut}
        return {
            "rows": self.num_rows,
            "scored": self.num_scored,
            "tied": self.num_ties,
            "unscored": dict(sorted(self.unscored.items(), key=lambda item: (-item[1], item[0]))),
            "replies": self.num_replies,
            "parse_rate": self.parse_rate,
            **{name: count for name, count in cut.items() if count},
            "tokens": {"prompt": self.prompt_tokens, "completion": self.completion_tokens},
        }


def tally(rows: Iterable[Mapping[str, Any]]) -> Tally:
    """The counts over all of ``rows``."""
    counts = Tally()
    for row in rows:
        counts.add(row)
    return counts
