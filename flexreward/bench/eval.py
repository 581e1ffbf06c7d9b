"""What ``flexreward eval`` does beside judging: figures with their bootstrap, and rows read while the engine works."""

from __future__ import annotations

from flexreward.bench import Bar, figures, overlap


def bars() -> dict[str, Bar]:
    """All bars of an eval."""
    return figures.bars() | overlap.bars()
