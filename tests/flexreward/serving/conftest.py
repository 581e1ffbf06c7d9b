"""One real server for all tests that need one: two ingress copies, a ledger with a store, and several judges."""

from __future__ import annotations

import base64
import contextlib
import http.server
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml

from flexreward.config import BUNDLED
from tests.flexreward.serving.slow import LANES

SESSION = re.compile(rb"/tmp/ray/session_[0-9_-]+")
START_S = 400.0
BODY_S = 6.0
DOT = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
"""A picture of one point."""
TINY = BUNDLED / "tiny-judge"
KEYS = [f"reward-key-{i:010}" for i in range(500)]
"""What is bought under one is not found under another."""
TOLD_SOON = {"RAY_metrics_report_interval_ms": "1000"}
"""Ray tells its metrics every ten seconds by itself."""
MARK = "FLEXREWARD_TEST_SERVER"
"""Environment variable by which a server's own processes are known: others may run beside it."""

TESTS = Path(__file__).parents[2]
PATHS = [str(TESTS.parent), str(TESTS / "with_a_turning_name")]
if importlib.util.find_spec("vllm"):  # vLLM needs torchvision, and the one here may be built for another torch
    PATHS.append(str(TESTS / "without_torchvision_kernels"))
    name = "without_torchvision_kernels"
    if name not in sys.modules and "torchvision" not in sys.modules:
        found = importlib.util.spec_from_file_location(name, TESTS / name / "sitecustomize.py")
        sys.modules[name] = importlib.util.module_from_spec(found)
        found.loader.exec_module(sys.modules[name])


class Pictures(http.server.ThreadingHTTPServer):
    """A host that the server may fetch images from; ``/to/URL`` leads on to there."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Pictures)
        self.asked: list[str] = []

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _Pictures(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.send_response(302 if self.path.startswith("/to/") else 200)
        self.send_header("Location", self.path.removeprefix("/to/"))
        self.end_headers()
        self.wfile.write(DOT)

    def log_message(self, *parts: object) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class Running:
    """A server that ``flexreward serve`` started."""

    url: str
    process: subprocess.Popen[str]
    log: Path
    http: httpx.Client
    """One for all threads: to make one takes as long as many requests do."""
    key: str = KEYS[0]
    admin_key: str = "admin-key-0123456789"

    def post(self, route: str, body: object, *, key: str = "", **options: object) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key or self.key}"}
        return self.http.post(f"{self.url}{route}", json=body, headers=headers, timeout=120, **options)

    def change(self, **fields: object) -> None:
        """Change fields of the recipe, each judge's by itself, and wait until that is what runs."""
        path, num_runs = self.log.parent / "recipe.yaml", self._num_runs()
        recipe = yaml.safe_load(path.read_text())
        if (changed := merged(recipe, fields)) == recipe:
            return
        path.write_text(yaml.safe_dump(changed, sort_keys=False))
        self.process.send_signal(signal.SIGHUP)
        until = time.monotonic() + START_S
        while self._num_runs() == num_runs:
            assert "the recipe that runs stays" not in self.log.read_text()
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.1)

    def _num_runs(self) -> int:
        """Changed recipes that have begun to run."""
        return self.log.read_text().count(" runs\n")

    def counted(self, name: str, judge: str) -> int:
        """What all copies of a judge's vLLM have counted, as Ray tells it some seconds later."""
        (port,) = self._session().glob("metrics_export_port_*")
        text = self.http.get(f"http://127.0.0.1:{port.read_text().strip()}/metrics", timeout=30).text
        lines = re.findall(rf"^ray_vllm_{name}_total\{{(.*?)\}} (\S+)$", text, re.MULTILINE)
        return sum(int(float(value)) for labels, value in lines if f'model_name="{judge}"' in labels)

    def replicas(self, name: str) -> list[int]:
        """Process ids of the copies of a deployment."""
        return self._named(f"ray::ServeReplica:flexreward:{name}")

    def owner(self) -> int:
        """Process id of the owner of the ledger."""
        (pid,) = self._named("ray::LedgerOwner")
        return pid

    def _named(self, start: str) -> list[int]:
        return [pid for pid, command in self._processes() if command.startswith(start.encode())]

    def family(self) -> dict[int, str]:
        """All processes that this server has begun, by process id."""
        parents = {}
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        found = {self.process.pid}
        while more := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= more
        return {pid: (Path(f"/proc/{pid}/comm").read_text().strip()) for pid in found}

    def memory(self) -> int:
        """Bytes that the server's processes hold for themselves alone."""
        found = 0
        for pid, _ in self._processes():
            with contextlib.suppress(OSError):
                found += sum(
                    int(line.split()[1]) * 1024
                    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
                    if line.startswith(("Private_Clean", "Private_Dirty"))
                )
        return found

    def written(self) -> list[Path]:
        """All log files of the server, Ray's included."""
        return [self.log, *(path for path in self._session().glob("logs/**/*") if path.is_file())]

    def _session(self) -> Path:
        """Ray's own folder."""
        (session,) = {found[0] for _, command in self._processes() if (found := SESSION.search(command))}
        return Path(session.decode())

    def _processes(self) -> Iterator[tuple[int, bytes]]:
        """Those that belong to this server, with their command lines."""
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"{MARK}={self.url}".encode() in (path / "environ").read_bytes():
                    yield int(path.name), (path / "cmdline").read_bytes()


def merged(fields: dict, changes: dict) -> dict:
    """Fields with those changed that ``changes`` names, at any depth."""
    both = {name: merged(fields[name], one) for name, one in changes.items() if isinstance(fields.get(name), dict)}
    return {**fields, **changes, **both}


def free_port() -> int:
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return int(tried.getsockname()[1])


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Running]]:
    """Starts servers from the text of a recipe, and ends them with the session."""
    started: list[Running] = []

    def begin(recipe: str) -> Running:
        folder = tmp_path_factory.mktemp("server")
        port = free_port()
        (folder / "keys.txt").write_text("\n".join(KEYS))
        (folder / "admin.txt").write_text("admin-key-0123456789\n")
        keys = "reward_keys: {file: keys.txt}\nadmin_keys: {file: admin.txt}"
        (folder / "recipe.yaml").write_text(f"{recipe}\nport: {port}\n{keys}\n")
        url, log = f"http://127.0.0.1:{port}", folder / "log.txt"
        path = os.pathsep.join(filter(None, (*PATHS, os.environ.get("PYTHONPATH"))))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        with log.open("w") as written:
            process = subprocess.Popen(
                [sys.executable, "-m", "flexreward", "serve", str(folder / "recipe.yaml")],
                stdout=written,
                stderr=subprocess.STDOUT,
                text=True,
                env={**environment, **TOLD_SOON, MARK: url, "PYTHONPATH": path},
            )
        http = httpx.Client(trust_env=False, limits=httpx.Limits(max_connections=None))
        server = Running(url=url, process=process, log=log, http=http)
        started.append(server)
        until = time.monotonic() + START_S
        while "serving " not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.2)
        return server

    yield begin
    for server in started:
        if server.process.poll() is None:
            server.process.send_signal(signal.SIGTERM)
    for server in started:
        server.http.close()
        try:
            server.process.wait(60)
        except subprocess.TimeoutExpired:
            server.process.kill()


@pytest.fixture(scope="session")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the judge ``endless`` writes into, beside its weights and others."""
    folder = tmp_path_factory.mktemp("endless")
    for score, name in enumerate(("first", "second"), 1):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(f'{{"score": {score}}}')
    return folder / "closed.txt"


@pytest.fixture(scope="session")
def adapted(closed: Path, adapter: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """An adapter over the bundled judge, and beside it what it makes of that judge, ``merged``; the judge without it
    may be loaded, as ``plain``. ``None`` where there is no vLLM to run it."""
    if importlib.util.find_spec("vllm") is None:
        return None
    folder = tmp_path_factory.mktemp("adapted")
    shutil.copytree(TINY, closed.parent / "plain")
    return adapter(TINY, folder / "adapter", alpha=7, merged=folder / "merged")


@pytest.fixture(scope="session")
def pictures() -> Iterator[Pictures]:
    with Pictures() as host:
        threading.Thread(target=host.serve_forever, daemon=True).start()
        yield host
        host.shutdown()


@pytest.fixture(scope="session")
def server(start: Callable[[str], Running], closed: Path, pictures: Pictures, adapted: Path | None) -> Running:
    """The server of all tests. Its first judge takes 400 ms, so that there is time to kill somebody."""
    vllm = f"""
  vllm:
    judge: {{model: '{TINY}', lora: '{adapted}', engine: vllm, max_tokens: 192}}
    cpus: 0.5
"""
    return start(
        f"""
judges:
  judge:
    judge: {{model: 'scripted:longer', engine: scripted, options: {{delay_s: 0.4}}}}
    replicas: 2
    cpus: 0.5
    max_in_flight: 16
  comparing:
    judge: 'scripted:longer'
    cpus: 0.5
    group_reward: win_rate
  endless:
    judge: {{model: '{closed.parent / "first"}', engine: 'tests.flexreward.serving.slow:EndlessEngine'}}
    cpus: 0.5
    hang_s: 4.0
  busy:
    judge: {{model: busy, engine: 'tests.flexreward.serving.slow:BusyEngine'}}
    cpus: 0.5
    max_in_flight: {LANES}
{vllm if adapted else ""}
ingress_replicas: 2
store: store.sqlite
reload_from: {closed.parent}
media_hosts: ['127.0.0.1:{pictures.port}', 'localhost:{pictures.port}', 'turning.test:{pictures.port}']
max_body_bytes: {32 * 2**20}
body_s: {BODY_S}
drain_s: 20.0
openai: true
"""
    )


@pytest.fixture
def ending(server: Running) -> Running:
    """The same server, for tests that change it for good or end it: they come after all others."""
    return server


@pytest.fixture
def last(ending: Running) -> Running:
    """The same server, for the test that ends it."""
    return ending


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: [name in getattr(item, "fixturenames", ()) for name in ("last", "ending")])
