"""What every client of a server over HTTP knows: which failures may pass, when to come back, what the server said."""

from __future__ import annotations

import random
import re
import ssl
from email.utils import parsedate_to_datetime
from functools import lru_cache
from time import time

import httpx

CONNECT_S = 10.0
LINE = 500
"""Characters of a message; servers may repeat a whole request in theirs."""
AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
"""Statuses of failures that may pass."""


def pause_s(tries: int, after_s: float, *, first_s: float, longest_s: float) -> float:
    """How long to wait before the next try: what the server asked for, and a random part that grows with the tries.

    Args:
        tries: So far, from 1.
        after_s: The server's own word on when to come back.
        first_s: The random part is drawn from 0 up to this limit, which doubles with each try,
        longest_s: and ends here.
    """
    return after_s + random.uniform(0, min(longest_s, first_s * 2.0 ** min(tries - 1, 30)))


def one_line(text: str, *, secret: str | None) -> str:
    """A message without line breaks and without the key, whatever the server has repeated."""
    line = " ".join(text.split())
    line = line.replace(secret, "***") if secret else line
    return line if len(line) <= LINE else f"{line[:LINE]} ..."


@lru_cache(maxsize=1)
def trusted() -> ssl.SSLContext:
    """Whom to believe over https; 20 ms to read, so once."""
    return httpx.create_ssl_context()


def message_of(response: httpx.Response) -> str:
    """What the server says is wrong, in any of the shapes that are in use."""
    try:
        found = response.json()
    except (ValueError, RecursionError):
        return ""
    for name in ("error", "detail", "message"):
        while isinstance(found, dict) and name in found:
            found = found[name]
    return f": {found}" if isinstance(found, str) else ""


def after_s(header: str) -> float:
    """Retry-After in seconds, whether it is a number or a date; 0 where it is neither."""
    if re.fullmatch(r"\d{1,9}(\.\d+)?", header):
        return float(header)
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time())
    except ValueError:
        return 0.0
