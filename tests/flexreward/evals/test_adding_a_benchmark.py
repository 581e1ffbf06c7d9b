"""The README's benchmark, added as the README says, works."""

import re
from pathlib import Path

from flexreward import evals

README = Path(__file__).parents[3] / "README.md"


def test_the_benchmark_of_the_readme_passes_the_test_of_the_readme(tmp_path, read_by, monkeypatch):
    section = README.read_text(encoding="utf-8").partition("## Adding a benchmark")[2].partition("\n## ")[0]
    file, test = (block for block in re.findall(r"```python\n(.*?)```", section, re.DOTALL) if "import" in block)
    (tmp_path / "taste.py").write_text(file, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(evals.BENCHMARKS, "taste", "taste:TASTE")
    names: dict[str, object] = {}
    exec(test, names)
    names["test_taste_counts_what_cannot_be_read_as_a_tie"](tmp_path, read_by)
