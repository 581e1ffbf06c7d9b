"""What ``flexreward eval`` does beside judging: bootstrapped figures, rows read while the engine works, the page."""

from __future__ import annotations

from flexreward.bench import Bar, figures, overlap, page


def bars() -> dict[str, Bar]:
    """All bars of an eval."""
    return figures.bars() | overlap.bars() | page.bars()
