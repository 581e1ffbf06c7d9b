import http.server
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from flexreward.errors import MediaError
from flexreward.media.fetch import fetch
from flexreward.media.intake import Reach, image_of


class Host(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked.append((self.path, dict(self.headers)))
        name, _, query = self.path.partition("?")
        to = query.removeprefix("to=")
        if name == "/redirect":
            self.send_response(302)
            self.send_header("Location", to)
            self.end_headers()
        elif name == "/none":
            self.send_error(404)
        else:
            self.send_response(200)
            self.end_headers()
            try:
                while name == "/slow":
                    self.wfile.write(b"x")
                    time.sleep(0.02)
                self.wfile.write(b"picture" if name == "/a.png" else b"x" * 100_000)
            except OSError:
                pass

    def log_message(self, *parts: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[http.server.ThreadingHTTPServer]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Host) as server:
        server.daemon_threads = True
        server.asked = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def host(server) -> str:
    server.asked.clear()
    return f"127.0.0.1:{server.server_port}"


def refused(url: str, *hosts: str, **options: object) -> str:
    with pytest.raises(MediaError) as error:
        fetch(url, hosts=hosts, **{"max_bytes": 1_000, **options})
    assert str(error.value).isprintable()
    return str(error.value)


def test_a_file_of_a_host_that_is_named_is_fetched_without_the_environment(server, host, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert fetch(f"http://{host}/a.png?x=1", hosts=[host], max_bytes=7) == b"picture"
    ((path, headers),) = server.asked
    assert (path, headers["Host"]) == ("/a.png?x=1", host)
    assert not {"Cookie", "Authorization"} & set(headers)
    assert image_of(f"http://{host}/a.png", reach=Reach(hosts=frozenset([host]))).data == b"picture"


@pytest.mark.parametrize(
    "hosts", [(), ("example.org",), ("127.0.0.1",), ("127.0.0.1:1",), ("0.0.1",), ("7.0.0.1:{port}",), ("*",)]
)
def test_a_host_that_is_not_named_is_not_asked(server, host, hosts):
    named = [one.format(port=server.server_port) for one in hosts]
    assert "is of a host that the operator does not allow" in refused(f"http://{host}/a.png", *named)
    assert server.asked == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://example.org/a", "is no http or https URL"),
        ("file:///etc/hostname", "is no http or https URL"),
        ("http://", "is no http or https URL"),
        ("http://example.org:99999/", "is no URL"),
        ("http://[::1/", "is no URL"),
        ("http://user:secret@example.org/a", "with a user name or password"),
        ("http://example.org@evil.test/", "with a user name or password"),
        ("http://example.org.evil.test/", "does not allow; allowed: example.org"),
        ("http://evil.test/#example.org", "does not allow"),
        ("http://example.org\r\nX: 1/", "http"),
        ("http://ex\u0430mple.org/", "is no http or https URL"),
    ],
)
def test_an_address_that_is_none_or_pretends_is_one_line(url, message):
    found = refused(url, "example.org")
    assert message in found
    assert "secret" not in found


def test_a_name_that_leads_to_a_private_address_is_not_asked(server, host):
    local = f"localhost:{server.server_port}"
    assert "leads to the private address" in refused(f"http://{local}/a.png", local)
    assert server.asked == []


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1",
        "169.254.169.254",
        "192.168.1.1",
        "100.64.0.1",
        "::1",
        "fe80::1",
        "fc00::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::1",
        "0.0.0.0",
        "224.0.0.1",
    ],
)
def test_every_address_of_a_name_must_be_a_public_one(monkeypatch, address):
    def answer(name: str, port: int, *parts: object, **options: object) -> list[tuple[object, ...]]:
        found = [socket.AddressFamily.AF_INET, socket.SOCK_STREAM, 6, ""]
        return [(*found, ("93.184.215.14", port)), (*found, (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    assert f"leads to the private address {address}" in refused("http://example.org/a.png", "example.org")


def test_a_name_is_asked_once_so_that_it_cannot_lead_elsewhere_after_it_was_checked(server, monkeypatch):
    asked, real = [], socket.getaddrinfo

    def answer(name: str, port: int, *parts: object, **options: object) -> list[tuple[object, ...]]:
        if name != "changes.test":
            return real(name, port, *parts, **options)
        asked.append(name)
        address = "2000::1" if len(asked) == 1 else "127.0.0.1"  # nobody's, then the one that is wanted
        return [(socket.AddressFamily.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    server.asked.clear()
    host = f"changes.test:{server.server_port}"
    message = refused(f"http://{host}/a.png", host, timeout_s=1.0)
    assert "cannot be fetched" in message or "did not come" in message
    assert (asked, server.asked) == (["changes.test"], [])


def test_a_redirect_is_followed_only_to_where_the_operator_allows(server, host):
    assert fetch(f"http://{host}/redirect?to=/a.png", hosts=[host], max_bytes=9) == b"picture"
    for to in ("http://127.0.0.1:1/x", "http://evil.test/", "file:///etc/hostname", "//evil.test/a"):
        message = refused(f"http://{host}/redirect?to={to}", host)
        assert "does not allow" in message or "is no http" in message
    assert "redirects more than 3 times" in refused(f"http://{host}/redirect?to=/redirect?to=/redirect", host)


def test_an_answer_is_held_to_its_size_its_time_and_its_status(host):
    assert "has more than 1000 bytes, the limit for its kind" in refused(f"http://{host}/large", host)
    assert "did not come within 0.2 s" in refused(f"http://{host}/slow", host, max_bytes=10**9, timeout_s=0.2)
    assert "answers with status 404" in refused(f"http://{host}/none", host)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        closed = f"127.0.0.1:{nobody.getsockname()[1]}"
        assert "cannot be fetched" in refused(f"http://{closed}/a", closed)
