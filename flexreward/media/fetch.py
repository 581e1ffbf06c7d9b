"""Media from URLs: of hosts that the operator names, never in a private network, never more than so many bytes."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import SplitResult, urljoin, urlsplit, urlunsplit

from flexreward.errors import MediaError

TIMEOUT_S = 20.0
"""For all of a fetch, redirects included."""
MAX_REDIRECTS = 3
NAT64 = ipaddress.ip_network("64:ff9b::/96")
PORTS = {"http": 80, "https": 443}


def fetch(
    url: str, *, hosts: Collection[str], max_bytes: int, where: str = "the medium", timeout_s: float = TIMEOUT_S
) -> bytes:
    """What lies at ``url``.

    The connection goes to the very address that was checked, so that a name cannot lead elsewhere the second time it is
    asked; no proxy, cookie or credential of the environment is used.

    Args:
        hosts: ``example.org`` for the ports 80 and 443, ``example.org:8443`` for one other; exact, no subdomains. An
            address that stands here itself, ``127.0.0.1:8000``, may be private; what a name leads to may not.
        max_bytes: Longest answer that is read.

    Raises:
        MediaError: One line: the host is not named, its address is private, or there is no such file of such a size.
    """
    # A loop of its own in a thread of its own, so that whoever calls may be in a loop or not.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, _fetched(url, hosts, max_bytes, where, timeout_s)).result()


async def _fetched(url: str, hosts: Collection[str], max_bytes: int, where: str, timeout_s: float) -> bytes:
    at = url
    try:
        async with asyncio.timeout(timeout_s):
            for _ in range(MAX_REDIRECTS + 1):
                answer = await _once(at, hosts, max_bytes, where)
                if isinstance(answer, bytes):
                    return answer
                at = urljoin(at, answer)
    except TimeoutError as error:
        raise MediaError(f"{where}: {_shown(at)} did not come within {timeout_s:g} s") from error
    raise MediaError(f"{where}: {_shown(at)} redirects more than {MAX_REDIRECTS} times")


async def _once(url: str, hosts: Collection[str], max_bytes: int, where: str) -> bytes | str:
    """The file, or where else it is said to be."""
    import httpx

    parts = _allowed(url, hosts, where)
    name, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
    address = await _address(name, port, where)
    literal = f"[{address}]" if ":" in address else address
    target = urlunsplit((parts.scheme, f"{literal}:{port}", parts.path or "/", parts.query, ""))
    headers = {"Host": parts.netloc, "Accept-Encoding": "identity"}
    found = bytearray()
    try:
        async with (
            httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=None) as client,
            client.stream("GET", target, headers=headers, extensions={"sni_hostname": name}) as answer,
        ):
            if answer.status_code in (301, 302, 303, 307, 308) and "location" in answer.headers:
                return str(answer.headers["location"])
            if answer.status_code != 200:
                raise MediaError(f"{where}: {_shown(url)} answers with status {answer.status_code}")
            async for part in answer.aiter_raw():
                found += part
                if len(found) > max_bytes:
                    raise MediaError(f"{where}: {_shown(url)} has more than {max_bytes} bytes, the limit for its kind")
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise MediaError(f"{where}: {_shown(url)} cannot be fetched ({reason})") from error
    return bytes(found)


def _allowed(url: str, hosts: Collection[str], where: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise MediaError(f"{where}: {_shown(url)} is no URL") from error
    if parts.scheme not in PORTS or not parts.hostname or not url.isascii() or not url.isprintable():
        raise MediaError(f"{where}: {_shown(url)} is no http or https URL")
    if parts.username is not None or parts.password is not None:
        raise MediaError(f"{where}: a URL with a user name or password is not fetched")
    host = parts.hostname.lower().rstrip(".")
    named = {one.lower() for one in hosts}
    default = port is None or port == PORTS[parts.scheme]
    if not (f"{host}:{port or PORTS[parts.scheme]}" in named or (default and host in named)):
        allowed = ", ".join(sorted(named)) or "none"
        raise MediaError(f"{where}: {_shown(url)} is of a host that the operator does not allow; allowed: {allowed}")
    return parts


async def _address(name: str, port: int, where: str) -> str:
    """One address of the host, after all of them were found to be public ones."""
    try:
        return str(ipaddress.ip_address(name))  # it was named as such
    except ValueError:
        pass
    try:
        found = await asyncio.get_running_loop().getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise MediaError(f"{where}: the host {name} is not known") from error
    addresses = [str(entry[4][0]) for entry in found]
    for address in addresses:
        ip = ipaddress.ip_address(address.partition("%")[0])
        inner = getattr(ip, "ipv4_mapped", None) or getattr(ip, "sixtofour", None)
        if ip in NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if not ip.is_global or ip.is_multicast or (inner is not None and not inner.is_global):
            raise MediaError(f"{where}: the host {name} leads to the private address {address}; it is not asked")
    return addresses[0]


def _shown(url: str) -> str:
    text = url.partition("?")[0]
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= 120 else text[:117] + "..."
