"""``python -m recipes.dpo.killed``: rounds that are killed over and over, over a real server, end in the same files.

The bundled judge is the policy too, and the server's judge takes each round's policy for its weights. The rounds run
once whole, and once killed by SIGKILL at each of five points and begun again at once, each over a fresh server.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from flexreward.config import BUNDLED
from recipes.dpo import prompts
from recipes.serve.started import served
from training.proof import record
from training.rounds import ADMIN_KEY
from training.run import weights_digest

ROOT = Path("runs/dpo/killed")
PROOFS = Path("recipes/dpo/proofs")
PROMPTS = 64
KEY = "an-admins-key-0123456789"
FILES = ("sampled.jsonl", "pair_outcomes.jsonl", "train.jsonl")


def main() -> None:
    began = time.monotonic()
    shutil.rmtree(ROOT, ignore_errors=True)
    prompts.write(ROOT / "prompts.jsonl", prompts.rows(PROMPTS, seed=0, held_out=False))
    (ROOT / "admin.txt").write_text(KEY + "\n")
    whole, broken = (rounds_of(name) for name in ("whole", "broken"))
    with fresh("whole") as url:
        seconds = run(whole, url)
    points = points_of(ROOT / "broken" / "run")
    with fresh("broken") as url:
        for name, reached in points.items():
            run(broken, url, until=reached)
            print(f"killed {name}", flush=True)
        run(broken, url)
    record(
        "killed",
        {
            "kills": len(points),
            "files_that_differ": differing(),
            "weights_that_differ": sum(
                weights_digest(ROOT / "whole" / folder) != weights_digest(ROOT / "broken" / folder)
                for folder in ("run/round-1/policy", "run/round-2/policy", "policy")
            ),
            "seconds_unbroken": seconds,
        },
        PROOFS,
        seconds=time.monotonic() - began,
        command="python -m recipes.dpo.killed",
    )


def fresh(name: str) -> Any:
    admins = {"file": str((ROOT / "admin.txt").absolute())}
    return served(ROOT / name / "server", admin_keys=admins, reload_from=str((ROOT / name).absolute()))


def rounds_of(name: str) -> dict[str, Any]:
    folder = ROOT / name
    return {
        "model": str(BUNDLED / "tiny-judge"),
        "prompts": str(ROOT / "prompts.jsonl"),
        "rounds": 2,
        "run_dir": str(folder / "run"),
        "output": str(folder / "policy"),
        "sampling": {"temperatures": [1.2], "completions": 3, "max_tokens": 24, "max_in_flight": 16},
        "dpo": {
            "learning_rate": 1e-5,
            "batch_size": 8,
            "micro_batch_size": 8,
            "gradient_checkpointing": False,
            "save_every": 2,
        },
        "reload": {"reload_from": str(folder.absolute())},
        "seed": 0,
    }


def points_of(folder: Path) -> Mapping[str, Callable[[], bool]]:
    """Where the rounds are killed, in turn."""

    def lines(path: str) -> int:
        found = folder / path
        return found.read_bytes().count(b"\n") if found.exists() else 0

    return {
        "while sampling": lambda: lines("round-1/pairs/sampled.jsonl") > 8,
        "while judging": lambda: lines("round-1/pairs/pair_outcomes.jsonl") > 48,
        "while training": lambda: lines("round-1/run/metrics.jsonl") > 3,
        "between training and reload": lambda: (folder / "round-1" / "round.json").exists(),
        "while judging by the new weights": lambda: lines("round-2/pairs/pair_outcomes.jsonl") > 24,
    }


def run(recipe: Mapping[str, Any], url: str, *, until: Callable[[], bool] | None = None) -> float:
    """The command that a user would give; killed once ``until`` is so, what it has started is left to itself.

    Returns:
        The seconds it took.
    """
    folder = Path(recipe["run_dir"]).parent
    path, log = folder / "rounds.yaml", folder / "log.txt"
    changed = {**recipe, "judge": url, "reload": {**recipe["reload"], "url": url}}
    path.write_text(yaml.safe_dump(changed, sort_keys=False))
    began = time.monotonic()
    environment = {**os.environ, ADMIN_KEY: KEY, "XDG_CACHE_HOME": str(folder / "cache")}
    with log.open("a") as out:
        command = [sys.executable, "-m", "training.rounds", str(path)]
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
        while process.poll() is None:
            if until and until():
                process.kill()
                process.wait()
            time.sleep(0.005)
    if process.returncode != (-signal.SIGKILL if until else 0):
        raise SystemExit(f"{path}: ended with {process.returncode}; see {log}")
    return time.monotonic() - began


def differing() -> int:
    """Files of samples, outcomes and pairs that are not the same bytes in both."""
    places = [Path("run") / f"round-{n}" / "pairs" / name for n in (1, 2) for name in FILES]
    return sum((ROOT / "whole" / at).read_bytes() != (ROOT / "broken" / at).read_bytes() for at in places)


if __name__ == "__main__":
    main()
