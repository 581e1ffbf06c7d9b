"""The whole task: data read and split, models asked and judged, everything told. What is bought is kept."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import sklearn

from flexreward import __version__
from flexreward.config import open_engine
from flexreward.evals.table import Floats
from flexreward.files.whole import replaced
from flexreward.fingerprint import digest
from flexreward.ledger import Ledger
from flexreward.ledger.store import Store
from mol.pampa.asking import row_of
from mol.pampa.collect import Opens, ask_all
from mol.pampa.forest import forest_scores
from mol.pampa.prepared import Prepared
from mol.pampa.sources import Source, labels_of
from mol.pampa.tables import Replies, table_of


def evaluate(prepared: Prepared, *, opens: Opens = open_engine, models: bool = True) -> dict[str, Any]:
    """Ask, judge and tell everything; ``out`` then holds ``results.json`` and the replies.

    Args:
        opens: Makes an engine of its recipe; one is open at a time.
        models: ``False`` tells the constant and the forest alone.

    Raises:
        JudgeError: A model failed; run the same again, and nothing that was bought is bought again.
    """
    recipe, out = prepared.recipe, prepared.recipe.out
    out.mkdir(parents=True, exist_ok=True)
    replies = Replies()
    if models and recipe.models:
        with Store(out / "replies.sqlite") as store:
            replies = asyncio.run(ask_all(prepared, Ledger(store), opens))
        _write_replies(prepared, replies)
    tables = {}
    for task in recipe.tasks:
        forest_FN = _forest(prepared, task)
        tables[task] = table_of(recipe, prepared.source, prepared.folds, task, replies, forest_FN)
    results = {
        "flexreward": __version__,
        "name": recipe.name,
        "data": _data(prepared.source),
        "split": {
            "kind": recipe.split.kind,
            "folds": [
                {part: len(getattr(fold, part)) for part in ("train", "valid", "test", "dropped")}
                for fold in prepared.folds
            ],
        },
        "labels": {"positive": recipe.labels.positive.name, "negative": recipe.labels.negative.name},
        "tasks": tables,
        "recipe": recipe.model_dump(mode="json"),
    }
    with replaced(out / "results.json") as file:
        file.write(json.dumps(results, indent=1, ensure_ascii=False).encode() + b"\n")
    return results


def _forest(prepared: Prepared, task: str) -> Floats:
    """The forest's scores, kept beside the results under the name of everything that they follow from."""
    recipe, rows = prepared.recipe, prepared.source.rows
    truth = labels_of(prepared.source, task, recipe.tasks[task])
    name = digest(
        {
            "molecules": [row.molecule.smiles for row in rows],
            "labels": truth.tolist(),
            "folds": [[list(fold.train), list(fold.valid), list(fold.test)] for fold in prepared.folds],
            "forest": recipe.forest.model_dump(),
            "seed": recipe.seed,
            "scikit-learn": sklearn.__version__,
        }
    )
    path = recipe.out / f"forest-{hashlib.sha256(task.encode()).hexdigest()[:8]}.json"
    try:
        kept = json.loads(path.read_bytes())
        if kept["of"] == name:
            return np.array(kept["scores"], dtype=np.float64)
    except (OSError, ValueError, KeyError):
        pass
    scores_FN = forest_scores(rows, truth, prepared.folds, recipe.forest, seed=recipe.seed)
    with replaced(path) as file:
        plain = [[None if np.isnan(score) else score for score in scores] for scores in scores_FN.tolist()]
        file.write(json.dumps({"of": name, "task": task, "scores": plain}).encode() + b"\n")
    return scores_FN


def _data(source: Source) -> dict[str, Any]:
    return {
        "path": str(source.path),
        "rows": len(source.rows),
        "molecules": len({row.molecule.smiles for row in source.rows}),
        "blocks": len({row.molecule.block for row in source.rows}),
        "invalid": [{"row": number, "smiles": smiles} for number, smiles in source.invalid],
    }


def _write_replies(prepared: Prepared, replies: Replies) -> None:
    """Every reply with what was read from it, a line each."""
    out = prepared.recipe.out
    with replaced(out / "answers.jsonl") as file:
        for asked, answers in replies.greedy.items():
            for smiles, answer in answers.items():
                file.write(_line({**asked._asdict(), "smiles": smiles, **row_of(answer)}))
    if replies.candidates:
        with replaced(out / "candidates.jsonl") as file:
            for asked, found in replies.candidates.items():
                for smiles, candidates in found.items():
                    for number, one in enumerate(candidates):
                        file.write(_line({**asked._asdict(), "smiles": smiles, "candidate": number, **row_of(one)}))


def _line(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=True).encode() + b"\n"
