"""The bench of the page: it measures what it says, and says so where it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from flexreward.bench import met, page
from flexreward.bench.chromium import BrowserError, chromium, started


def test_without_a_browser_a_line_says_so_and_nothing_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(page, "chromium", lambda: None)
    assert page.bars() == {}
    assert capsys.readouterr().err == "page: not measured, no Chromium here; `apt-get install chromium` adds it\n"


@pytest.mark.browser
@pytest.mark.skipif(chromium() is None, reason="no Chromium here; `apt-get install chromium` adds it")
def test_a_page_of_many_verdicts_never_stands_still():
    bars = page.bars(num_rows=4_000, repeats=1, cores={"": 1})
    assert list(bars) == ["page_open_longest_task_ms", "page_use_longest_task_ms"]
    assert all(met(name, bar) for name, bar in bars.items()), bars


@pytest.mark.browser
@pytest.mark.skipif(chromium() is None, reason="no Chromium here; `apt-get install chromium` adds it")
def test_a_page_that_stands_still_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    still = tmp_path / "still.html"
    wait = "const end = performance.now() + 300; while (performance.now() < end);"
    still.write_text(f"<body><p id=browser data-ready=yes><p id=count><script>setTimeout(() => {{ {wait} }})</script>")
    monkeypatch.setattr(page, "STEPS", (f"{{ {wait} }}",))
    with started(tmp_path) as browser:
        browser.call("Page.addScriptToEvaluateOnNewDocument", source=page.OBSERVE)
        opening, using = page.measure(browser, still.as_uri())
    assert opening >= 300
    assert using >= 300


@pytest.mark.browser
@pytest.mark.skipif(chromium() is None, reason="no Chromium here; `apt-get install chromium` adds it")
def test_a_browser_that_tells_nothing_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    page_path = tmp_path / "page.html"
    page_path.write_text("<body><p id=browser data-ready=yes><p id=count><script>longest_task = () => 0</script>")
    monkeypatch.setattr(page, "STEPS", ())
    with started(tmp_path) as browser, pytest.raises(BrowserError, match="told nothing of a task of 120 ms"):
        page.measure(browser, page_path.as_uri())
