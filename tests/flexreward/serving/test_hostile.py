"""Clients that mean harm, or are merely slow, at the real server: it answers them with a line, and others as ever."""

from __future__ import annotations

import base64
import os
import random
import socket
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from flexreward.bench.chromium import chromium, started
from recipes.serve.fuzz import BODIES, fault, raw, sent
from tests.flexreward.serving.conftest import BODY_S

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

QUICK = {"judge": "comparing"}
"""A judge that answers at once."""
MIB = 2**20


def connected(server, head: str, body: bytes = b"", **options: int) -> socket.socket:
    """A connection over which a request has gone, or as much of it as is given."""
    opened = socket.socket()
    for name, value in options.items():
        opened.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
    opened.connect(("127.0.0.1", httpx.URL(server.url).port))
    opened.settimeout(60)
    lines = [f"POST {head} HTTP/1.1", "Host: x", f"Authorization: Bearer {server.key}", "Connection: close"]
    opened.sendall("\r\n".join([*lines, "Content-Type: application/json", ""]).encode() + body)
    return opened


def rest_of(opened: socket.socket) -> bytes:
    found = bytearray()
    while part := opened.recv(MIB):
        found += part
    return bytes(found)


def still_answers(server) -> bool:
    body = {"prompts": [f"still {time.monotonic()}"], "completions": ["here"], "judge": "busy"}
    return server.post("/v1/rewards", body).json()["reasons"] == [None]


def test_a_body_of_a_hundred_megabytes_is_refused_whether_it_says_its_length_or_not(server):
    def parts() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * MIB

    headers = {"Authorization": f"Bearer {server.key}", "Content-Type": "application/json"}
    before = server.memory()
    for content in (b" " * (100 * MIB), parts()):
        answer = server.http.post(f"{server.url}/v1/judge", content=content, headers=headers, timeout=60)
        assert answer.status_code == 413
        assert "the limit max_body_bytes" in answer.json()["error"]
    assert server.memory() - before < 400 * MIB
    assert still_answers(server)


def test_neither_who_reads_slowly_nor_who_writes_slowly_holds_others_up(server):
    ids = [f"{i} " + "x" * 20_000 for i in range(200)]
    requests = ",".join(f'{{"id": "{id}", "prompt": "{i}", "completions": ["a"]}}' for i, id in enumerate(ids))
    asked = f'{{"requests": [{requests}], "judge": "comparing"}}'.encode()
    lines = "Accept: application/x-ndjson\r\nContent-Length: "
    with ExitStack() as open_sockets:
        writers = [
            open_sockets.enter_context(connected(server, "/v1/judge", b"Content-Length: 1000\r\n\r\n{"))
            for _ in range(20)
        ]
        reader = open_sockets.enter_context(
            connected(server, "/v1/judge", f"{lines}{len(asked)}\r\n\r\n".encode() + asked, SO_RCVBUF=4096)
        )
        begun = reader.recv(100)
        until = time.monotonic() + BODY_S / 2
        while time.monotonic() < until:
            assert still_answers(server)
        read, written = rest_of(reader), [rest_of(writer) for writer in writers]
    assert begun.startswith(b"HTTP/1.1 200")
    assert read.count(b'"index"') == 200
    assert {answer.split(b"\r\n")[0] for answer in written} == {b"HTTP/1.1 408 Request Timeout"}


def test_broken_bodies_over_the_wire_are_answered_200_or_4xx_with_one_line(server):
    # As many as take seconds; `make proof-serve` sends ten thousand.
    rng = random.Random(1)
    bodies = [(path, raw(rng, BODIES[path] | QUICK)) for path in rng.choices(list(BODIES), k=500)]
    answers = sent(server.url, server.key, bodies, server.http)
    assert {answer.status_code for answer in answers} >= {200, 400, 422}
    assert [(one, why) for one, answer in zip(bodies, answers, strict=True) if (why := fault(answer))] == []


@pytest.mark.parametrize(
    "sent",
    [
        b"\0" * 100,
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/judge HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/judge HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /k/%ff%00/healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ],
)
def test_what_is_no_http_ends_the_connection_or_is_refused(server, sent):
    with socket.create_connection(("127.0.0.1", httpx.URL(server.url).port), timeout=20) as opened:
        opened.sendall(sent)
        opened.shutdown(socket.SHUT_WR)
        try:
            answer = rest_of(opened)
        except ConnectionResetError:
            answer = b""
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert still_answers(server)


def details(server, *images: object) -> list[str]:
    """Why there is no judgment, of one request for each image."""
    requests = [{"prompt": "Which?", "completions": ["a", "b"], "images": [image]} for image in images]
    answer = server.post("/v1/judge", {"requests": requests} | QUICK)
    return [outcome["detail"] for outcome in answer.json()["outcomes"]]


def test_a_path_or_a_file_url_in_a_request_is_never_opened(server, tmp_path):
    os.mkfifo(pipe := tmp_path / "pipe")
    found = details(server, str(pipe), f"file://{pipe}", {"path": str(pipe)}, {"url": f"file://{pipe}"})
    assert [detail for detail in found if not detail] == []
    with pytest.raises(OSError, match="No such device or address"):  # whoever had opened it would wait there
        os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)


def test_only_what_the_recipe_names_is_fetched_wherever_an_address_leads(server, pictures):
    here = f"http://127.0.0.1:{pictures.port}"
    pictures.asked.clear()
    assert details(server, f"{here}/a.png") == [""]
    other = f"http://127.0.0.1:{httpx.URL(server.url).port}"
    named = (
        f"http://localhost:{pictures.port}/b.png"  # a name may lead anywhere, so it may not lead to a private address
    )
    leads = [
        "http://169.254.169.254/latest/meta-data",
        "http://10.0.0.1/",
        f"{other}/metrics",
        named,
        "file:///etc/passwd",
    ]
    refused = details(server, *leads, *(f"{here}/to/{url}" for url in leads))
    assert len([detail for detail in refused if "allow" in detail or "private" in detail or "no http" in detail]) == 10
    assert sorted(pictures.asked) == sorted(["/a.png", *(f"/to/{url}" for url in leads)])


def test_a_name_that_leads_elsewhere_when_it_is_asked_for_again_leads_to_no_private_address(server, pictures):
    pictures.asked.clear()
    # Of three, two reach one ingress copy, each of which is led to a public address first.
    asked = [details(server, f"http://turning.test:{pictures.port}/{i}.png")[0] for i in range(3)]
    assert {"private" in detail or "cannot be fetched" in detail for detail in asked} == {True}
    assert {"leads to the private address 127.0.0.1" in detail for detail in asked} == {True, False}
    assert pictures.asked == []


def test_texts_are_judged_while_films_come_in(server):
    film = b"\0\0\0\x18ftypisom\0\0\0\0isomiso2" + random.Random(0).randbytes(10 * MIB)
    completions = [{"video": f"data:video/mp4;base64,{base64.b64encode(film).decode()}"}] * 2
    with ThreadPoolExecutor(1) as pool:
        films = pool.submit(
            server.post, "/v1/judge", {"requests": [{"prompt": "A dog.", "completions": completions}]} | QUICK
        )
        num_texts = 0
        while not films.done():
            text = {"prompts": ["beside a film"], "completions": [f"{num_texts}"]}
            assert server.post("/v1/rewards", text | QUICK).status_code == 200
            num_texts += 1
    (outcome,) = films.result().json()["outcomes"]
    assert (outcome["template"], outcome["status"]) == ("gen-video", "scored")
    assert num_texts >= 3


def listening(pids: set[int]) -> dict[int, tuple[str, int]]:
    """Ports that these processes listen on, with the address and the process."""
    owners = {}
    for pid in pids:
        for entry in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                owners.setdefault(os.readlink(entry), pid)
            except OSError:
                continue
    found = {}
    for family, kind in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/net/{family}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and (pid := owners.get(f"socket:[{fields[9]}]")):
                address, port = fields[1].split(":")
                words = bytes.fromhex(address)
                packed = b"".join(
                    struct.pack("!I", *struct.unpack_from("=I", words, at)) for at in range(0, len(words), 4)
                )
                found[int(port, 16)] = (socket.inet_ntop(kind, packed), pid)
    return found


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray 2.60 asks of pydantic what pydantic 2 warns of
def test_rays_own_ports_stand_on_loopback_or_take_a_token(server):
    import grpc
    from ray.serve.generated.serve_pb2 import ASGIRequest
    from ray.serve.generated.serve_pb2_grpc import ASGIServiceStub

    family = server.family()
    ports = listening(set(family))
    assert len(ports) > 10
    wide = {
        port: family[pid]
        for port, (address, pid) in ports.items()
        if not address.removeprefix("::ffff:").startswith("127.") and address != "::1"
    }
    assert {name[:11] for name in wide.values()} == {"ray::ServeR"}
    for port in wide:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, pytest.raises(grpc.RpcError) as refused:
            ASGIServiceStub(channel).HandleRequest(ASGIRequest(), timeout=10)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.browser
@pytest.mark.skipif(chromium() is None, reason="no Chromium here; `apt-get install chromium` adds it")
def test_the_live_page_shows_what_the_real_server_does(server, tmp_path):
    assert still_answers(server)
    with started(tmp_path) as browser:
        browser.open(f"{server.url}/k/{server.admin_key}/")
        browser.until("document.querySelectorAll('#last .card').length")
        browser.until("document.getElementById('state').textContent.includes('2 ingress copies')")
        assert "busy" in browser.ask("document.getElementById('each').textContent")
    assert httpx.get(f"{server.url}/k/{server.key}/", trust_env=False).status_code == 403
