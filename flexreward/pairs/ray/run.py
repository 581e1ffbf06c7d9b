"""A run on a cluster: it is joined or begun, rows stream through the workers, and parts are written as they come."""

from __future__ import annotations

import logging
import os
import pickle
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from flexreward.errors import FlexRewardError, JudgeError, OutputError, RecipeError
from flexreward.files.appended import open_locked
from flexreward.files.outcome_file import OutcomeFile
from flexreward.files.samples import Sample
from flexreward.files.whole import replaced
from flexreward.pairs.build import OUTCOMES
from flexreward.pairs.ray.parts import PARTS, part_path, put_together, standing
from flexreward.pairs.ray.reader import Reading, dataset
from flexreward.pairs.ray.worker import AT_ONCE, Work, Worker, about
from flexreward.serving.start import CLUSTER

EVERY_S = 10.0
"""Between two lines about a run."""
PART_ROWS = 256
ROOM = 16 * 2**20
"""Bytes that Ray needs to begin, about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How a run is spread over a cluster."""

    workers: int | None = None
    """One a GPU where the cluster has some and the models run in the workers, else one."""
    gpus: float | None = None
    """Of a worker; ``model_gpus`` where the cluster has some and the models run in the workers, else none."""
    model_gpus: int = 1
    """That a model is spread over, the larger one of two."""
    part_rows: int = PART_ROWS
    embedded: bool = True
    """Whether the models run in the workers."""
    store: str | None = None
    """As ``LedgerOwner`` takes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What a run did."""

    num_judged: int
    num_cached: int
    seconds: float


Say = Callable[[str], None]
Kept = Callable[[Path], None]


@contextmanager
def cluster() -> Iterator[Any]:
    """The cluster that RAY_ADDRESS names, which is left as it is; else one on this machine for as long as the block.

    Raises:
        RecipeError: Ray is not installed.
        JudgeError: The cluster cannot be reached.
        OutputError: Ray cannot write its own files.
    """
    from flexreward.serving.start import environment

    environment()
    try:
        import ray
        import ray.data
    except ImportError as error:
        from flexreward.health import extra_command

        raise RecipeError(f"--ray: Ray is not installed; {extra_command('serve')}") from error
    if ray.is_initialized():
        yield ray
        return
    own: dict[str, Any] = {
        "address": "local",
        "_node_ip_address": "127.0.0.1",
        "include_dashboard": False,
        # Cores are a count of who may run, and nobody else shares this cluster.
        "num_cpus": max(os.cpu_count() or 1, 2),
    }
    try:
        ray.init(
            log_to_driver=False, logging_level="ERROR", **({"address": "auto"} if os.environ.get(CLUSTER) else own)
        )
    except Exception as error:  # Ray has a bare one where its processes do not begin
        raise not_there(error) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def not_there(error: Exception) -> FlexRewardError:
    """Why there is no cluster. Ray itself only says that it waited, where it could not write its own files."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    if os.environ.get(CLUSTER):
        return JudgeError(f"{CLUSTER}: the cluster cannot be joined ({line})")
    folder = os.environ.get("RAY_TMPDIR") or gettempdir()
    if shutil.disk_usage(folder).free < ROOM:
        return OutputError(f"{folder}: Ray writes its files there and finds no room; make some, or set RAY_TMPDIR")
    return JudgeError(f"Ray does not begin on this machine ({line})")


def spread_out(
    prompts: Callable[[], Iterator[Sample]],
    work: Work,
    folder: Path,
    spread: Spread,
    *,
    is_whole: Callable[[], bool],
    overwrite: bool,
    say: Say,
    kept: Kept = lambda path: None,
) -> Ran:
    """Judge what ``folder`` does not hold yet, on a cluster: afterwards its files are those of one machine.

    Args:
        prompts: Reads the rows, on the node that this runs on.
        is_whole: Whether the outcomes that are there, this judge's, are those of all rows.
        kept: Called with each part that was written.

    Raises:
        SampleError, OutputError, JudgeError, RecipeError: As on one machine.
    """
    with cluster() as ray:
        spread = _fitted(ray, spread)
        who = _about(ray, work, spread)
        if not overwrite and not (folder / PARTS).exists() and _has_begun(folder, who) and is_whole():
            return Ran(num_judged=0, num_cached=0, seconds=0.0)
        if overwrite:
            shutil.rmtree(folder / PARTS, ignore_errors=True)
        lock = open_locked(folder / PARTS / "lock")
        try:
            return _run(ray, prompts, work, folder, spread, who, say, kept)
        finally:
            os.close(lock)


def _run(
    ray: Any,
    prompts: Callable[[], Iterator[Sample]],
    work: Work,
    folder: Path,
    spread: Spread,
    who: Mapping[str, Any],
    say: Say,
    kept: Kept,
) -> Ran:
    there = standing(folder, who)
    if there:
        say(f"{len(there)} parts are there already")
    node = ray.get_runtime_context().get_node_id()
    owner = _owner(ray, node, spread.store)
    reading = Reading(prompts=prompts, rows=spread.part_rows, standing=there, folder=work.folder)
    began = told = time.monotonic()
    num_parts = num_judged = num_cached = 0
    count, unread = 0, None
    for block in _stream(reading, {"work": work, "owner": owner, "who": who}, spread, node):
        wrong = pickle.loads(block["wrong"])  # noqa: S301  # of our own workers
        if block["is_last"]:
            count, unread = block["number"], wrong
            continue
        if wrong is not None:
            raise wrong
        path = part_path(folder, block["number"])
        with replaced(path) as file:
            file.write(block["file"])
        kept(path)
        num_parts += 1
        num_judged += block["num_judged"]
        num_cached += block["num_cached"]
        if (now := time.monotonic()) - told >= EVERY_S:
            told = now
            say(f"{num_parts} parts, {num_judged} judged, {num_judged / (now - began):.1f}/s")
    if unread is not None:
        raise unread
    seconds = time.monotonic() - began
    say(f"{num_parts} parts, {num_judged} judged, {num_judged / seconds:.1f}/s: all are there")
    put_together(folder, count, who)
    return Ran(num_judged=num_judged, num_cached=num_cached, seconds=seconds)


def _stream(reading: Reading, told: Mapping[str, Any], spread: Spread, node: str) -> Iterator[dict[str, Any]]:
    """What comes of each block, as it ends.

    Args:
        told: What a ``Worker`` is made with.
        node: Id of the one that the rows are read on.
    """
    from ray.data import ActorPoolStrategy, DataContext
    from ray.exceptions import RayError

    context = DataContext.get_current()
    context.target_max_block_size = 1  # a block is a part: what goes to workers, and what is made again
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray.data", "ray"):
        logging.getLogger(name).setLevel(logging.ERROR)
    pool = ActorPoolStrategy(
        size=spread.workers, max_tasks_in_flight_per_actor=AT_ONCE, max_concurrent_calls_per_actor=AT_ONCE
    )
    made = dataset(reading, node=node).map_batches(
        Worker,
        fn_constructor_kwargs=dict(told),
        batch_size=1,
        batch_format="pyarrow",
        compute=pool,
        num_cpus=1,
        num_gpus=spread.gpus or None,
    )
    try:
        for table in made.iter_batches(batch_size=None, batch_format="pyarrow"):
            yield from table.to_pylist()
    except RayError as error:
        raise JudgeError(
            f"the cluster gave up ({_line(error)}); what was judged is kept: run the same again"
        ) from error


def _owner(ray: Any, node: str, store: str | None) -> Any:
    """The owner of the ledger, on the node that has the store's file; killed, it is started anew.

    Raises:
        OutputError: The store cannot be opened.
    """
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from flexreward.serving.keeper import MANY
    from flexreward.serving.ledger_owner import LedgerOwner

    here = NodeAffinitySchedulingStrategy(node, soft=False)
    owner = (
        ray.remote(LedgerOwner)
        .options(
            num_cpus=0,
            max_concurrency=MANY,
            max_restarts=-1,
            scheduling_strategy=here,
            enable_task_events=False,  # Ray would hold an account of each question: a MB a second
        )
        .remote(store)
    )
    try:
        ray.get(owner.find.remote(""))
    except RayError as error:
        raise OutputError(_line(error).rpartition("Error: ")[2]) from error
    return owner


def _about(ray: Any, work: Work, spread: Spread) -> dict[str, Any]:
    """Who makes the parts: models must be loaded to know, those that need a GPU in a process that then ends."""
    from ray.exceptions import RayError

    if not spread.gpus:
        found = about(work)
    else:
        try:
            found = ray.get(ray.remote(num_cpus=1, num_gpus=spread.gpus, max_calls=1)(about).remote(work))
        except RayError as error:
            raise JudgeError(f"judge or policy cannot be started on the cluster: {_line(error)}") from error
    if isinstance(found, FlexRewardError):
        raise found
    return found


def _has_begun(folder: Path, who: Mapping[str, Any]) -> bool:
    """Whether the outcomes of a whole or a plain run are there, of this judge."""
    if not (folder / OUTCOMES).exists():
        return False
    header = {name: who[name] for name in ("flexreward", "judge", "template")}
    with OutcomeFile(folder / OUTCOMES, header) as file:
        return not file.is_new


def _fitted(ray: Any, spread: Spread) -> Spread:
    """With what was left open, by what the cluster has."""
    num_gpus = int(ray.cluster_resources().get("GPU", 0)) if spread.embedded else 0
    gpus = spread.gpus if spread.gpus is not None else float(spread.model_gpus if num_gpus else 0)
    workers = spread.workers or (max(1, int(num_gpus / gpus)) if gpus else 1)
    return replace(spread, gpus=gpus, workers=workers)


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
