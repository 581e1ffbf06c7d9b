"""Whether an engine waits for rows: the share of its time that it stands idle while a benchmark is judged.

The engine answers each prompt after a stated delay and works on so many at once; what it could have answered in the
time that the run took, less what it did, is its idle share. The run is the one of ``flexreward eval``: rows are read
from a file, their picture decoded, rendered, judged, and written to an outcome file. Beside it stands the same run in
two steps, all rows read before the first is judged, as a script would do it.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from flexreward.bench import Bar, interval
from flexreward.engines.base import Prompt, Sampling
from flexreward.engines.scripted import ScriptedEngine
from flexreward.evals.base import Row
from flexreward.evals.rows import item_of
from flexreward.files.outcomes import Item
from flexreward.files.rows import read_rows
from flexreward.jobs.run import judge_to_file
from flexreward.judge import Judge
from flexreward.templates import load_template
from flexreward.types import JudgeRequest, Reply

NUM_ROWS = 480
AT_ONCE = 16
DELAY_S = 0.05
REPEATS = 3
GOAL = 0.10
REPLY = f"<think>{'The steps hold. ' * 40}</think><answer>7</answer><answer>4</answer>"
ANSWER = "In order they are 1, 3, 5, 7 and 9, so that the number in the middle is 5. " * 12


class Slots(ScriptedEngine):
    """Works on ``AT_ONCE`` prompts at a time; the others wait for a slot."""

    def __init__(self) -> None:
        super().__init__(lambda _: REPLY, delay_s=DELAY_S)
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncIterator[Reply]:
        async with self._slots:
            async for reply in super().generate(prompt, sampling):
                yield reply


def bars() -> dict[str, Bar]:
    """The idle share; the baseline is that of two steps."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "rows.jsonl"
        write_rows(source, NUM_ROWS)
        idle, apart = [], []
        for number in range(REPEATS):
            idle.append(idle_share(source, Path(folder) / f"overlapped-{number}.jsonl", ahead=False))
            apart.append(idle_share(source, Path(folder) / f"apart-{number}.jsonl", ahead=True))
    return {
        "engine_idle": Bar(
            value=sum(idle) / REPEATS,
            goal=GOAL,
            baseline=sum(apart) / REPEATS,
            n=NUM_ROWS * REPEATS,
            interval=interval(idle),
        )
    }


def write_rows(path: Path, num_rows: int) -> None:
    """Pairs about a picture, which stands in the row as publishers put it there."""
    from PIL import Image

    image = io.BytesIO()
    Image.effect_noise((448, 448), 60).convert("RGB").save(image, "JPEG")
    picture = base64.b64encode(image.getvalue()).decode()
    with path.open("w") as file:
        for number in range(num_rows):
            row = {"id": number, "image": picture, "prompt": f"Which number? {number}", "answers": [ANSWER, ANSWER[9:]]}
            file.write(json.dumps(row) + "\n")


def items(source: Path) -> Iterator[Item]:
    """The rows as a benchmark yields them, their picture decoded."""
    from PIL import Image

    for row in read_rows(str(source)):
        with Image.open(io.BytesIO(base64.b64decode(row.fields["image"]))) as image:
            size = image.convert("RGB").size
        request = JudgeRequest(
            id=str(row.number), prompt=row.fields["prompt"], completions=tuple(row.fields["answers"])
        )
        yield item_of(Row(request=request, human=(1.0, 0.0), columns={"size": list(size)}))


def idle_share(source: Path, out: Path, *, ahead: bool) -> float:
    """One run; ``ahead`` reads and decodes every row before the first is judged."""
    engine = Slots()
    judge = Judge(engine, load_template("pair"), both_orders=False)
    began = time.perf_counter()
    rows = list(items(source)) if ahead else items(source)
    asyncio.run(judge_to_file(judge, rows, out))
    seconds = time.perf_counter() - began
    return 1 - engine.num_calls * DELAY_S / (AT_ONCE * seconds)
