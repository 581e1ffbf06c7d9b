"""The rule itself, with its table of what may stand and what not, is tested in tests/training/test_proof.py."""

from pathlib import Path

import pytest

from training.proof import HEADING, check_readme, read_figures

ROOT = Path(__file__).parents[2]
READMES = sorted([*ROOT.glob("recipes/*/README.md"), *ROOT.glob("flexreward/bundled/*/README.md"), ROOT / "README.md"])


@pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_figure_in_a_readme_has_its_proof(path):
    figures: dict[str, float] = {}
    for folder in ROOT.glob("recipes/*/proofs"):
        figures |= read_figures(folder)
    assert check_readme(path.read_text(encoding="utf-8"), figures) == []


@pytest.mark.parametrize("path", sorted(ROOT.glob("recipes/*/README.md")), ids=lambda path: path.parent.name)
def test_every_recipe_says_what_was_measured(path):
    headings = " ".join(HEADING.findall(path.read_text(encoding="utf-8")))
    assert "Measured" in headings, f"{path}: needs a section 'Measured', be it to say that nothing was yet"


def test_no_two_proofs_claim_one_name():
    names = [path.stem for path in ROOT.glob("recipes/*/proofs/*.json")]
    assert len(names) == len(set(names))
