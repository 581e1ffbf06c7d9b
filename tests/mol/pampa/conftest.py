from pathlib import Path

import pytest

DATA = Path(__file__).parents[4] / "shared" / "data"


@pytest.fixture
def shared_data() -> Path:
    """Real files, which lie beside the repository only where they were copied."""
    if not DATA.exists():
        pytest.skip("the real data lies beside the repository only where copied")
    return DATA
