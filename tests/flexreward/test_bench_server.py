"""The bench of the server: what it serves, and how it counts the processors' time of a tree of processes."""

import subprocess
import sys

import pytest

from flexreward import bench
from flexreward.bench import server
from flexreward.errors import RecipeError
from flexreward.serving.recipe import parse_serve_recipe


def test_the_recipe_that_it_serves_is_one():
    recipe = parse_serve_recipe(server.recipe_fields(server.shortened("tiny")), "bench server")
    assert list(recipe.judges) == ["measured", "instant", "one", "four"]
    assert recipe.judges["four"].max_replicas == server.COPIES
    assert recipe.judges["measured"].judge.max_tokens == server.MAX_TOKENS


def test_a_bench_that_measures_the_bundled_judge_alone_takes_no_other():
    with pytest.raises(RecipeError, match="--judge: bench eval measures the bundled judge alone"):
        bench.measure("eval", judge="tiny")


def test_no_two_requests_are_alike_so_that_none_is_found_again():
    items = server._items(50) + server._items(50)
    assert len(set(items)) == 100


def test_the_time_of_a_process_that_a_process_of_ours_started_counts():
    lines = (
        "import time",
        "end = time.process_time() + 0.4",
        "while time.process_time() < end: pass",
        "print(flush=True)",
    )
    spin = "\n".join((*lines, "input()"))
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {spin!r}])"
    before = server._cpu_s()
    with subprocess.Popen([sys.executable, "-c", outer], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        spent = server._cpu_s() - before
        process.communicate(b"\n")
    assert spent >= 0.4
