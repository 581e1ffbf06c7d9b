from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flexreward.media.decoder import Decoder

DATA = Path(__file__).parents[3].parent / "shared" / "data"


@pytest.fixture(scope="session")
def decoder() -> Iterator[Decoder]:
    """One for all tests, as an engine holds one for all requests."""
    decoder = Decoder()
    yield decoder
    decoder.close()


@pytest.fixture
def shared_data() -> Path:
    """Real files, which lie beside the repository only where they were copied."""
    if not DATA.exists():
        pytest.skip("the real data lies beside the repository only where copied")
    return DATA
