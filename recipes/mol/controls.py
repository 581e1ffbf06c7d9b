"""What any model of PAMPA must be above: ``python -m recipes.mol.controls``, some minutes on two cores.

The constant and the forest, by scaffold split and by 5-fold, under both label definitions, into ``proofs``. It needs
``ncats_pampa_ph7.4.csv`` where ``pampa.yaml`` names it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from mol.pampa.prepared import prepare
from mol.pampa.recipe import Split, load_recipe
from mol.pampa.run import evaluate
from training.proof import record

HERE = Path(__file__).parent
SPLITS = {"scaffold": Split(kind="scaffold"), "five_fold": Split(kind="kfold")}
TOLD = ("balanced_accuracy", "mcc", "auroc", "accuracy", "negative_ratio")


def controls(out: Path) -> dict[str, Any]:
    """Figures by split, task and control; a figure with its interval."""
    recipe = load_recipe(HERE / "pampa.yaml")
    found: dict[str, Any] = {}
    for name, split in SPLITS.items():
        prepared = prepare(recipe.model_copy(update={"split": split, "out": out / name}))
        results = evaluate(prepared, models=False)
        found["rows"], found["blocks"] = results["data"]["rows"], results["data"]["blocks"]
        found[name] = {
            task.replace("-", "_"): {
                "n": table["n"],
                "low_share": table["negative_share"],
                "low_share_of_all": table["negative_share_of_all"],
                **{
                    row["method"].replace(", ", "_"): {
                        figure: {"value": told["value"], "low": told["low"], "high": told["high"]}
                        for figure, told in row["figures"].items()
                        if figure in TOLD
                    }
                    for row in table["rows"]
                },
            }
            for task, table in results["tasks"].items()
        }
    return found


def main() -> None:
    start = time.monotonic()
    figures = controls(Path("runs/mol/controls"))
    record(
        "pampa",
        figures,
        HERE / "proofs",
        seconds=time.monotonic() - start,
        command="python -m recipes.mol.controls",
    )


if __name__ == "__main__":
    main()
