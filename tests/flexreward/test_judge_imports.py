import subprocess
import sys

import pytest

LISTING = """
import importlib, sys
before = set(sys.modules)
importlib.import_module(sys.argv[1])
files = {name: getattr(sys.modules[name], "__file__", None) or "" for name in set(sys.modules) - before}
print(*{name.partition(".")[0] for name, file in files.items() if "site-packages" in file})
"""
PYDANTIC = {"pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"}


@pytest.mark.parametrize(
    "module",
    [
        "flexreward.judge",
        "flexreward.ledger",
        "flexreward.ledger.store",
        "flexreward.templates",
        "flexreward.reward",
        "flexreward.engines",
        "flexreward.engines.scripted",
    ],
)
def test_the_road_needs_only_the_standard_library_and_pydantic(module):
    run = subprocess.run([sys.executable, "-c", LISTING, module], capture_output=True, text=True, check=True)
    assert set(run.stdout.split()) - {"flexreward"} <= PYDANTIC
