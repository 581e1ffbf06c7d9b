"""A server for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flexreward.engines import endpoint
from tests.flexreward.openai_engine.server import Server


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "FIRST_S", 0.002)
