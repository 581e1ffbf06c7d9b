"""The page in a real browser: hostile text does nothing, asks for nothing, and the policy stops what is injected."""

from __future__ import annotations

import http.server
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flexreward.report import report_html

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; `apt-get install chromium` adds it"),
]

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-default-apps", "--disable-extensions"),
)

POLICY = '<meta http-equiv="Content-Security-Policy"[^>]*>'

# Each tries to leave a mark on the document, or to fetch from HOST.
ATTACKS = """
<script>document.documentElement.dataset.owned = "inline"</script>
<img src=x onerror="document.documentElement.dataset.owned = 'handler'">
<img src="HOST/image.png"><link rel="stylesheet" href="HOST/style.css"><script src="HOST/script.js"></script>
<iframe src="HOST/frame.html"></iframe><object data="HOST/object"></object><video src="HOST/video" autoplay></video>
<style>body { background: url("HOST/background.png") }</style><div style="background: url(HOST/attribute.png)">x</div>
<svg><script>document.documentElement.dataset.owned = "svg"</script><image href="HOST/svg.png"/></svg>
<meta http-equiv="refresh" content="0; url=javascript:document.documentElement.dataset.owned='refresh'">
"""


@pytest.fixture
def host() -> Iterator[tuple[str, list[str]]]:
    """A server on this machine, and the paths that were asked of it."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(404)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def browse(tmp_path: Path) -> Callable[[str], str]:
    """What the document is once the browser has loaded ``html`` and run what it lets run."""

    def dump(html: str) -> str:
        assert CHROMIUM is not None
        page = tmp_path / "page.html"
        page.write_text(html, encoding="utf-8")
        profile = f"--user-data-dir={tmp_path / 'profile'}"
        command = [CHROMIUM, *FLAGS, profile, "--dump-dom", page.as_uri()]
        # Into a file: what Chromium leaves running for a moment would hold a pipe open.
        with (tmp_path / "document").open("wb") as out:
            subprocess.run(command, stdout=out, stderr=subprocess.DEVNULL, timeout=120, check=True)
        return (tmp_path / "document").read_text("utf-8", "replace")

    return dump


def test_attacks_written_by_a_model_do_nothing(
    run_dir: Path, browse: Callable[[str], str], host: tuple[str, list[str]]
):
    address, asked = host
    attack = ATTACKS.replace("HOST", address).replace('"', '\\"').replace("\n", "\\n")
    for path in (run_dir / "samples.jsonl", run_dir / "outcomes.jsonl", run_dir / "pairs" / "pair_outcomes.jsonl"):
        text = path.read_text()
        path.write_text(text.replace("The answer is", attack).replace("says", attack).replace("What is", attack))
    document = browse(report_html(run_dir))
    assert "data-owned" not in document.partition("<body")[0]
    assert "&lt;script&gt;document.documentElement.dataset.owned" in document
    assert re.search(r'<span class="count"[^>]*>\d+ of \d+ shown</span>', document), "our own script did not run"
    assert asked == []


def test_the_policy_stops_what_is_injected_past_the_escaping(
    run_dir: Path, browse: Callable[[str], str], host: tuple[str, list[str]]
):
    address, asked = host
    html = report_html(run_dir)
    injected = html.replace("</main>", ATTACKS.replace("HOST", address) + "</main>")
    assert injected != html
    assert "data-owned" not in browse(injected).partition("<body")[0]
    assert asked == []
    # The same attacks on a page without the policy do act: the test above can fail.
    unguarded = re.sub(POLICY, "", injected)
    assert "data-owned" in browse(unguarded).partition("<body")[0]
    assert "/image.png" in asked


def test_filters_and_sorting_work_and_the_page_is_whole_without_them(run_dir: Path, browse: Callable[[str], str]):
    html = report_html(run_dir)
    without = re.sub("<script>.*?</script>", "", html, flags=re.DOTALL)
    plain = [card.replace(' open=""', " open") for card in re.findall(r'class="card[^>]*>', browse(without))]
    assert plain == re.findall(r'class="card[^>]*>', html)
    # A driver, for which the policy makes way, chooses a filter as a reader would.
    driver = """
      const choose = (node, value) => { node.value = value; node.dispatchEvent(new Event("change")); };
      choose(document.querySelector("#problems [data-sort]"), "right:-1");
      choose(document.querySelector("#comparisons [data-filter=status]"), "kept");
      document.querySelector("#problems [data-open=yes]").click();
    """
    document = browse(re.sub(POLICY, "", html).replace("</body>", f"<script>{driver}</script></body>"))
    problems, comparisons = document.split('id="problems"')[1].split('id="comparisons"')
    rights = [int(n) for n in re.findall(r'data-right="(\d+)"', problems)]
    assert rights == sorted(rights, reverse=True)
    assert len(re.findall(r'<details class="card [^>]*open=""', problems)) == len(rights)
    cards = re.findall(r'<details class="card [^>]*>', comparisons)
    assert any('data-status="kept"' in card for card in cards)
    for card in cards:
        assert ("hidden" in card) != ('data-status="kept"' in card)
