"""``flexreward pairs --ray`` ends in the files of one machine, whoever is killed on the way."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import random
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from flexreward.cli import run
from flexreward.config import BUNDLED
from flexreward.errors import OutputError, SampleError
from flexreward.files.samples import Sample
from flexreward.ledger.store import Store
from flexreward.pairs.ray import run as ray_run
from flexreward.pairs.ray.parts import Lines, drop_halves, part_file, part_path, put_together, rows_digest, standing
from flexreward.pairs.ray.reader import Reading, blocks
from flexreward.pairs.ray.run import not_there
from flexreward.serving.app import build_app
from recipes.tiny import domain
from tests.faulty_server import listening
from tests.flexreward.engines_conformance.test_vllm_processes import below, gone
from tests.flexreward.openai_engine.server import Server, completion
from tests.flexreward.serving.conftest import PATHS
from tests.flexreward.serving.served import service_over

WHO = {"flexreward": "1", "judge": {"fingerprint": "j"}, "template": {"id": "pair"}, "pairs": {"seed": 0}}
SAME = ("sampled.jsonl", "pair_outcomes.jsonl", "train.jsonl", "dropped.jsonl", "summary.json", "shown.jsonl")


def samples(count: int) -> list[Sample]:
    return [Sample(id=f"q{i}", prompt=f"Why {i}?", completions=("a", "b")) for i in range(count)]


def read(reading: Reading) -> list[tuple[int, str, object]]:
    rows = [row for block in blocks(reading) for row in block.to_pylist()]
    return [(row["number"], row["digest"], pickle.loads(row["rows"])) for row in rows]  # noqa: S301  # our own


def reading(rows: Callable[[], Iterator[Sample]], standing: dict[int, str] | None = None) -> Reading:
    return Reading(prompts=rows, rows=2, standing=standing or {}, folder=os.getcwd())


def test_rows_are_cut_into_parts_in_their_order_and_parts_that_stand_are_passed_over():
    parts = read(reading(lambda: iter(samples(5)), {1: rows_digest(samples(4)[2:])}))
    assert [(number, bool(digest)) for number, digest, _ in parts] == [(0, True), (2, True), (3, False)]
    assert parts[1][2] == samples(5)[4:]


def test_a_part_of_other_rows_and_a_bad_row_are_told_after_the_parts_before_them():
    def broken() -> Iterator[Sample]:
        yield from samples(3)
        raise SampleError("line 4: broken")

    *parts, (_, _, error) = read(reading(broken))
    assert [number for number, _, _ in parts] == [0]
    assert str(error) == "line 4: broken"
    *_, (_, _, other) = read(reading(lambda: iter(samples(4)), {1: "another"}))
    assert str(other).startswith("part-00001.jsonl: was made of other rows than stand there now")


def write(folder: Path, number: int, who: dict = WHO) -> None:
    path = part_path(folder, number)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = Lines(b"", b'{"id": "o%d"}\n' % number, b'{"id": "t%d"}\n' % number)
    path.write_bytes(part_file(who, number, f"rows-{number}", lines))


def test_parts_are_put_together_in_order(tmp_path):
    for number in (1, 0):
        write(tmp_path, number)
    assert standing(tmp_path, WHO) == {0: "rows-0", 1: "rows-1"}
    put_together(tmp_path, 2, WHO)
    header, *rows = (json.loads(line) for line in (tmp_path / "pair_outcomes.jsonl").read_text().splitlines())
    assert header == {name: WHO[name] for name in ("flexreward", "judge", "template")}
    assert rows == [{"id": "o0"}, {"id": "o1"}]
    assert not (tmp_path / "parts").exists()


def test_parts_of_another_judge_and_parts_beyond_the_input_are_refused(tmp_path):
    write(tmp_path, 0, {**WHO, "judge": {"fingerprint": "other"}})
    with pytest.raises(OutputError, match=r"part-00000\.jsonl: is of another judge; give another --out"):
        standing(tmp_path, WHO)
    with pytest.raises(OutputError, match=r"part-00000\.jsonl: was made of other rows"):
        put_together(tmp_path, 0, WHO)


def test_a_part_that_is_not_whole_is_made_again(tmp_path):
    for number in range(4):
        write(tmp_path, number)
    paths = [part_path(tmp_path, number) for number in range(4)]
    for path, size in ((paths[1], -1), (paths[2], 9), (paths[3], 0)):
        path.write_bytes(path.read_bytes()[:size])
    drop_halves(paths)
    assert standing(tmp_path, WHO) == {0: "rows-0"}


def test_what_ray_needs_is_said_in_one_line(tmp_path, capsys, monkeypatch):
    path = tmp_path / "s.jsonl"
    path.write_text('{"prompt": "x", "completions": ["a", "b"]}\n')
    assert run(["pairs", str(path), "--out", str(tmp_path / "o"), "--workers", "2"]) == 2
    assert "--workers, --worker-gpus, --part-rows: need --ray" in capsys.readouterr().err
    assert run(["pairs", str(path), "--out", "s3://bucket/run"]) == 2
    assert "--out s3://bucket/run: an address needs --ray; or give a folder here" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "ray", None)
    assert run(["pairs", str(path), "--out", str(tmp_path / "o"), "--ray"]) == 2
    assert "--ray: Ray is not installed; " in capsys.readouterr().err


def test_where_ray_does_not_begin_it_is_said_why_in_one_line(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    waited = Exception("The current node timed out during startup.\nMore")
    assert str(not_there(waited)) == "Ray does not begin on this machine (The current node timed out during startup.)"
    monkeypatch.setattr(ray_run, "ROOM", 2**60)
    assert str(not_there(waited)).startswith(f"{tmp_path}: Ray writes its files there and finds no room; make some")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert str(not_there(waited)).startswith("RAY_ADDRESS: the cluster cannot be joined (The current node")


CLUSTER = """
import sys, ray
options = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
print(ray.init("local", _node_ip_address="127.0.0.1", num_cpus=2, **options).address_info["gcs_address"], flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One of two processors for all tests here, which find it by RAY_ADDRESS."""
    from flexreward.serving.start import environment

    before = dict(os.environ)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (*PATHS, os.environ.get("PYTHONPATH"))))
    # vLLM's first step would wait for a compiler, and each engine be bound to the same core.
    os.environ |= {"TORCHDYNAMO_DISABLE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    environment()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", CLUSTER], text=True, **pipes) as process:
        os.environ["RAY_ADDRESS"] = process.stdout.readline().strip()
        yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


def actors(name: str) -> list[int]:
    """Process ids of actors on this cluster: others may run beside it."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            ours = os.environ["RAY_AUTH_TOKEN"].encode() in (path / "environ").read_bytes()
            if ours and (path / "cmdline").read_bytes().startswith(f"ray::{name}".encode()):
                found.append(int(path.name))
    return found


quiet = pytest.mark.filterwarnings("ignore")
"""Ray 2.60 warns of much that is its own."""
ROWS, IN_FLIGHT = 24, 24
"""What one worker has asked for and not settled is at most of two parts, of each four judgments in both orders and two
prompts at both temperatures."""


def command(arguments: Sequence[str], file_bytes: int = resource.RLIM_INFINITY) -> subprocess.CompletedProcess[str]:
    """Run in a process of its own: Ray reads the environment when it is imported, which other tests have done here.

    Args:
        file_bytes: Most that it can write into a file, as if the disk were full then.
    """
    return subprocess.run(
        [sys.executable, "-m", "flexreward", *arguments],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, resource.RLIM_INFINITY)),
        capture_output=True,
        text=True,
        check=False,
    )


def same(one: Path, other: Path) -> bool:
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in SAME)


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., list[str]]:
    prompts = [{"prompt": f"Why {i}?"} for i in range(ROWS)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in prompts))

    def arguments(name: str, *more: str, delay_s: float = 0.0) -> list[str]:
        engine = "engine: 'tests.flexreward.counted:CountedEngine'\nmax_in_flight: "
        rest = f"\nmodel: {tmp_path / name}.sold\noptions: {{delay_s: {delay_s}}}\n"
        (tmp_path / f"{name}-policy.yaml").write_text(f"{engine}2{rest}completions: 2\n")
        (tmp_path / f"{name}-judge.yaml").write_text(f"{engine}4{rest}temperature: 0.7\n")
        options = ["--policy", f"{tmp_path / name}-policy.yaml", "--judge", f"{tmp_path / name}-judge.yaml"]
        store = ["--store", str(tmp_path / f"{name}.sqlite"), "--out", str(tmp_path / name)]
        return ["pairs", str(tmp_path / "prompts.jsonl"), *options, *store, *more]

    return arguments


@pytest.mark.ray
@quiet
def test_whoever_is_killed_the_rows_are_the_same_and_little_is_bought_twice(cluster, job, tmp_path):
    assert run(job("plain")) == 0
    num_bought = len((tmp_path / "plain.sold").read_text().splitlines())
    arguments, sold = job("spread", "--ray", "--part-rows", "2", delay_s=0.15), tmp_path / "spread.sold"

    def wait(share: float) -> None:
        until = time.monotonic() + 240
        while not sold.exists() or len(sold.read_bytes().splitlines()) < share * num_bought:
            assert time.monotonic() < until
            time.sleep(0.02)

    def worker() -> int:
        return int(sold.read_text().rpartition("\n")[0].split()[-1])

    driver = subprocess.Popen([sys.executable, "-m", "flexreward", *arguments])
    wait(0.2)
    former = worker()
    driver.kill()
    driver.wait()
    while Path(f"/proc/{former}").exists():  # Ray ends what its driver has begun
        time.sleep(0.02)
    assert not (tmp_path / "spread/pair_outcomes.jsonl").exists()

    full = command(arguments, file_bytes=1000)
    assert full.returncode == 2
    assert re.search(
        r"spread/parts/part-\d+\.jsonl: cannot be written: File too large; make room and run the same again\n$",
        full.stderr,
    )

    killed: list[str] = []

    def kill() -> None:
        wait(0.5)
        os.kill(worker(), signal.SIGKILL)
        killed.append("worker")
        wait(0.7)
        (owner,) = actors("LedgerOwner")
        os.kill(owner, signal.SIGKILL)
        killed.append("owner")
        wait(0.9)
        sold.with_suffix(".dies").touch()
        killed.append("engine")

    killer = threading.Thread(target=kill)
    killer.start()
    assert command(arguments).returncode == 0
    killer.join()
    assert killed == ["worker", "owner", "engine"]
    assert not sold.with_suffix(".dies").exists()
    assert same(tmp_path / "plain", tmp_path / "spread")
    lines = [line.split()[0] for line in sold.read_text().splitlines()]
    assert len(set(lines)) == num_bought
    assert len(lines) - num_bought <= 3 * IN_FLIGHT
    with Store(tmp_path / "spread.sqlite") as store:
        assert len(store) == num_bought
    # Other rules on what stands there, and nothing is judged again.
    assert json.loads(command([*arguments, "--keep", "margin=2", "--json"]).stdout)["judged_now"] == 0
    assert len(sold.read_text().splitlines()) == len(lines)


@pytest.mark.ray
@quiet
def test_workers_ask_servers_for_judge_and_policy_and_what_stands_at_an_address_is_gone_on_with(
    cluster, server, tmp_path
):
    """A bad row is told after the others."""
    path, out = tmp_path / "s.jsonl", tmp_path / "out"
    rows = [json.dumps({"prompt": f"Which digit comes after {i}?"}) + "\n" for i in range(5)]
    path.write_text("".join(rows[:4]) + "{broken\n")
    server.script = lambda body: completion(f"It is {body['temperature']}")
    with listening(build_app(service_over(template="pair"))) as url:
        options = ["--judge", url, "--policy", server.url, "--out", f"file://{out}", "--no-store", "--json"]
        arguments = ["pairs", str(path), *options, "--ray", "--part-rows", "2"]
        done = command(arguments)
        assert done.returncode == 2
        assert f"{path}: line 5: broken JSON" in done.stderr
        assert sorted(found.name for found in out.rglob("*.jsonl")) == ["part-00000.jsonl", "part-00001.jsonl"]
        path.write_text("".join(rows))
        done = command(arguments)
        found = json.loads(done.stdout)
    assert (found["out"], found["rows"], found["judged_now"]) == (f"file://{out}", 5, 1)
    assert f"file://{out}/report.html" in done.stderr
    assert {body["temperature"] for body in server.bodies} == {0.8, 1.2}
    assert len(server.bodies) == 10
    assert {*SAME, "report.html"} <= {found.name for found in out.iterdir()}
    assert not (out / "parts").exists()


@pytest.mark.ray
@quiet
def test_the_bundled_judge_and_policy_end_in_the_bytes_of_one_machine(cluster, tmp_path):
    problems = domain.problems(random.Random("spread"), held_out=False)
    rows = [{"prompt": next(problems).question} for _ in range(3)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ["--policy", "tiny", "--temperature", "0.7", "--no-store"]
    common = ["pairs", str(tmp_path / "prompts.jsonl"), *options]
    assert run([*common, "--out", str(tmp_path / "plain")]) == 0
    assert command([*common, "--out", str(tmp_path / "spread"), "--ray", "--part-rows", "2"]).returncode == 0
    assert same(tmp_path / "plain", tmp_path / "spread")


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.mark.ray
@pytest.mark.vllm
@pytest.mark.timeout(900)
@quiet
def test_policy_and_judge_share_the_vllm_of_a_worker_and_it_ends_with_a_worker_that_is_killed(cluster, tmp_path):
    pytest.importorskip("vllm", reason="vLLM is not installed here", exc_type=ModuleNotFoundError)
    problems = domain.problems(random.Random("vllm"), held_out=False)
    (tmp_path / "p.jsonl").write_text("".join(json.dumps({"prompt": next(problems).question}) + "\n" for _ in range(8)))
    engine = f"model: {BUNDLED}/tiny-judge\nengine: vllm\noptions: {{max_context: 1024}}\n"
    (tmp_path / "judge.yaml").write_text(f"{engine}max_tokens: 192\n")
    (tmp_path / "policy.yaml").write_text(f"{engine}max_tokens: 24\n")
    models = ["--judge", str(tmp_path / "judge.yaml"), "--policy", str(tmp_path / "policy.yaml")]
    arguments = ["pairs", str(tmp_path / "p.jsonl"), *models, "--out", str(tmp_path / "out"), "--no-store", "--ray"]
    driver = subprocess.Popen([sys.executable, "-m", "flexreward", *arguments, "--part-rows", "2"])
    try:
        until, first = time.monotonic() + 800, tmp_path / "out/parts/part-00000.jsonl"
        while not first.exists():
            assert driver.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)
        (worker,) = actors("MapWorker")
        engines = below(worker)
        os.kill(worker, signal.SIGKILL)
        assert len(engines) >= 2
        assert gone(engines, within_s=10) == []
    finally:
        driver.kill()
        driver.wait()
    header, *lines = map(json.loads, first.read_text().splitlines())
    assert header["lines"] == {"sampled": 2, "outcomes": 2, "timings": 2}
    assert (header["judge"]["engine"], header["policy"]["engine"]) == ("vllm", "vllm")
    assert [len(line["completions"]) for line in lines[:2]] == [2, 2]
