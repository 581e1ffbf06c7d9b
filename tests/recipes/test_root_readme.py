"""What the README shows runs as it stands there."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flexreward.config import open_engine
from flexreward.serving.dialects import routers
from flexreward.serving.recipe import load_serve_recipe
from tests.flexreward.serving.served import client_of, service_over

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_python_examples_run_and_prefer_the_right_answer():
    example = re.search(r"## From Python\n+```python\n(.*?)```", README, re.DOTALL)[1]
    choice = re.search(r"## Best of N\n.*?```python\n(.*?)```", README, re.DOTALL)[1]
    both = [sys.executable, "-c", example + choice]
    done = subprocess.run(both, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    first, second = re.match(r"\(([\d.]+), ([\d.]+)\) True", done.stdout).groups()
    assert float(first) > float(second)
    assert "<think>" in done.stdout
    assert "\n1 (1, 0, 2) (" in done.stdout


def test_every_command_and_target_that_the_readme_names_is_there():
    help_text = subprocess.run(
        [sys.executable, "-m", "flexreward", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in set(re.findall(r"^    flexreward ([a-z-]+)", README, re.MULTILINE)):
        assert name in help_text, name
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"make ([a-z]+)", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


async def test_the_example_of_the_server_rewards_the_right_answer_above_the_wrong_one():
    body = json.loads(re.search(r"/get_reward -H .* -d '(.*?)'", README, re.DOTALL)[1])
    example = json.loads((ROOT / "recipes" / "tiny" / "example.json").read_text())
    assert body["prompts"] == [example["prompt"]] * 2
    assert body["query"] == [example["prompt"] + example[answer] for answer in ("right", "wrong")]
    (served,) = load_serve_recipe(ROOT / "recipes" / "serve" / "tiny.yaml").judges.values()
    told = served.judge.model_dump(exclude={"engine", "deadline_s"})
    service = service_over(open_engine(served.judge), **told)
    async with client_of(service, routers=routers(service)) as client:
        right, wrong = (await client.post("/get_reward", json=body)).json()["rewards"]
    assert right > wrong
    await service.judges["main"].engine.close()
