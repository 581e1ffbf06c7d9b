"""Chromium as a reader's hands and eyes, driven over a pipe: the standard library is enough.

with started(folder) as browser:
    browser.open(page.as_uri())
    browser.press("j")
    browser.ask("document.title")
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-default-apps", "--disable-extensions"),
    *("--disable-dev-shm-usage", "--remote-debugging-pipe"),
)
PATIENCE_S = 30.0
KEYS = {"ArrowDown": (40, ""), "ArrowUp": (38, ""), "Enter": (13, "\r"), "Escape": (27, "")}
"""Keys with names: the code that Windows gave them and browsers kept, and what they type."""

# Chromium reads commands from descriptor 3 and answers on 4; a child of its own puts ours there.
WIRED = "import os, sys; r, w, *run = sys.argv[1:]; os.dup2(int(r), 3); os.dup2(int(w), 4); os.execv(run[0], run)"


class BrowserError(Exception):
    """There is no browser, it refused a command, its page threw, or it stopped answering."""


def chromium() -> str | None:
    """Where Chromium stands on this machine; ``None`` without one."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextmanager
def started(folder: Path, *, width: int = 1280, height: int = 900) -> Iterator[Browser]:
    """A headless browser with its profile below ``folder``; it ends with the block.

    Raises:
        BrowserError: There is no Chromium on this machine, or it does not start.
    """
    path = chromium()
    if path is None:
        raise BrowserError("no Chromium on this machine; `apt-get install chromium` adds it")
    read, to = _pipe()
    back, write = _pipe()
    window = (f"--user-data-dir={folder / 'profile'}", f"--window-size={width},{height}", "about:blank")
    command = [sys.executable, "-S", "-E", "-c", WIRED, str(read), str(write), path, *FLAGS, *window]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, pass_fds=(read, write), stdin=quiet, stdout=quiet, stderr=quiet)
    os.close(read)
    os.close(write)
    try:
        yield Browser(to, back)
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
        os.close(to)
        os.close(back)


class Browser:
    """One page, by the commands of the DevTools protocol."""

    def __init__(self, to: int, back: int) -> None:
        self._to, self._back, self._unread = to, back, b""
        self._number, self._session = 0, ""
        self.events: list[dict[str, Any]] = []
        """What the browser told of its own accord, oldest first: ``method`` and ``params``."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def open(self, address: str) -> None:
        """Go there, and wait until the page has loaded."""
        self.events.clear()
        self.call("Page.navigate", url=address)
        self.wait_for("Page.loadEventFired")

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited where it is a promise."""
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            details = found["exceptionDetails"]
            raise BrowserError(f"{expression}: {details.get('exception', {}).get('description', details['text'])}")
        return found["result"].get("value")

    def until(self, expression: str) -> Any:
        """Ask until the answer is truthy."""
        end = time.monotonic() + PATIENCE_S
        while not (value := self.ask(expression)):
            if time.monotonic() > end:
                raise BrowserError(f"never became true: {expression}")
            time.sleep(0.02)
        return value

    def press(self, key: str) -> None:
        """One key, down and up; a character is typed."""
        code, text = KEYS.get(key, (0, key))
        typed = {"text": text} if text else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, **typed)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def wait_for(self, method: str) -> dict[str, Any]:
        """The params of the first event of that name since the page was opened."""
        while True:
            for event in self.events:
                if event["method"] == method:
                    return dict(event["params"])
            self._take()

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command and its result.

        Raises:
            BrowserError: It was refused, or there is no answer in ``PATIENCE_S``.
        """
        self._number += 1
        command = {"id": self._number, "method": method, "params": params}
        if self._session:
            command["sessionId"] = self._session
        data = memoryview(json.dumps(command).encode() + b"\0")
        while data:
            data = data[os.write(self._to, data) :]
        while True:
            message = self._take()
            if message.get("id") == self._number:
                if "error" in message:
                    raise BrowserError(f"{method}: {message['error'].get('message')}")
                return dict(message["result"])

    def _take(self) -> dict[str, Any]:
        """The next message; an event is kept as well."""
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._back], [], [], PATIENCE_S)
            data = os.read(self._back, 2**20) if ready else b""
            if not data:
                raise BrowserError("the browser ended" if ready else f"no answer in {PATIENCE_S:g} s")
            self._unread += data
        raw, _, self._unread = self._unread.partition(b"\0")
        message: dict[str, Any] = json.loads(raw)
        if "method" in message:
            self.events.append(message)
        return message


def _pipe() -> tuple[int, int]:
    """Read end and write end, both far from the descriptors that the child must fill."""
    ends = os.pipe()
    read, write = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return read, write
