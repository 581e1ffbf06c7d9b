"""The browser of verdicts in a real browser: attempts do nothing, shards load, keys and links work, nothing stalls."""

from __future__ import annotations

import functools
import http.server
import json
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from flexreward.bench.chromium import Browser, chromium, started
from flexreward.bench.verdicts import write_eval_folder
from flexreward.report import write_compare, write_report
from flexreward.report.evals import shards

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium() is None, reason="no Chromium here; `apt-get install chromium` adds it"),
]

POLICY = '<meta http-equiv="Content-Security-Policy"[^>]*>'
READY = "document.getElementById('browser').dataset.ready"
CARDS = "[...document.querySelectorAll('.verdict')]"
SHOWN = "document.querySelectorAll('.verdict').length"
FOCUSED = "document.activeElement.closest('.verdict')?.dataset.row"
OPENED = f"{CARDS}.filter((card) => card.open).map((card) => card.dataset.row)"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with started(tmp_path_factory.mktemp("chromium")) as found:
        yield found


@pytest.fixture
def serve() -> Iterator[Callable[[Path], tuple[str, list[str]]]]:
    """Serves a folder on this machine; its address, and the paths that were asked of it."""
    servers = []

    def of(folder: Path) -> tuple[str, list[str]]:
        asked: list[str] = []

        class Handler(http.server.SimpleHTTPRequestHandler):
            def send_head(self) -> Any:
                asked.append(self.path)
                return super().send_head()

            def log_message(self, *args: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}", asked

    yield of
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def show(browser: Browser, page: Path | str) -> None:
    # A page that differs by its fragment alone would not be loaded again.
    browser.open("about:blank")
    browser.open(page if isinstance(page, str) else page.as_uri())
    browser.until(READY)


def open_all(browser: Browser) -> list[str]:
    """Opens every verdict of every page of the list, and every vote; what they say."""
    texts: list[str] = []
    while True:
        texts += browser.ask(
            f"""(async () => {{
              const texts = [];
              for (const card of {CARDS}) {{
                card.open = true;
                for (let i = 0; i < 500 && !card.querySelector(".sides, .problem"); i++)
                  await new Promise((resolve) => setTimeout(resolve, 10));
                texts.push(card.textContent);
                card.open = false;
              }}
              return texts;
            }})()"""
        )
        if browser.ask("pager.hidden || pager.lastElementChild.disabled"):
            return texts
        browser.ask("pager.lastElementChild.click()")


def test_attempts_do_nothing_in_the_page_and_in_shards(
    browser: Browser,
    folder: Path,
    poison: Any,
    attempts: tuple[str, ...],
    serve: Any,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(shards, "PAGE_VERDICTS", 30)
    host, asked = serve(folder.parent)
    page = write_report(poison(folder, host))
    assert (folder / "report.shards" / "000.js").is_file()
    show(browser, page)
    texts = open_all(browser)
    assert len(attempts) >= 30
    assert len(texts) == 60
    assert browser.ask("document.documentElement.dataset.owned") is None
    for text in (*attempts[:5], attempts[14].replace("HOST", host)):
        assert sum(text in shown for shown in texts) > 1, text
    assert sum("U+202E" in shown for shown in texts) > 1
    tags = browser.ask("[...new Set([...document.querySelectorAll('#verdicts *')].map((node) => node.localName))]")
    allowed = {"details", "summary", "span", "div", "p", "h4", "h5", "a", "b", "mark"}
    assert set(tags) <= allowed
    links = "[...document.querySelectorAll('a')].every((a) => a.getAttribute('href').startsWith('#'))"
    assert browser.ask(links)
    assert asked == []
    assert [event for event in browser.events if event["method"] == "Runtime.exceptionThrown"] == []


def test_the_attempts_can_act_where_the_page_is_built_wrongly(browser: Browser, folder: Path, poison: Any, serve: Any):
    host, asked = serve(folder.parent)
    page = write_report(poison(folder, host))
    html = page.read_text()
    broken = html.replace("\\u003c", "<")  # as if texts were put into the page as they are
    assert broken != html
    page.write_text(re.sub(POLICY, "", broken))
    browser.open(page.as_uri())
    assert browser.until("document.documentElement.dataset.owned")
    page.write_text(broken)
    asked.clear()
    browser.open(page.as_uri())
    assert browser.ask("document.documentElement.dataset.owned") is None, "the policy must hold where escaping fails"
    assert asked == []


@pytest.mark.parametrize("served", [False, True])
def test_verdicts_in_shards_are_read_from_disk_and_from_a_server(
    browser: Browser, folder: Path, serve: Any, monkeypatch: pytest.MonkeyPatch, served: bool
):
    monkeypatch.setattr(shards, "PAGE_VERDICTS", 6)
    monkeypatch.setattr(shards, "SHARD_CHARS", 60_000)
    page = write_report(folder)
    assert len(list((folder / "report.shards").iterdir())) > 3
    show(browser, serve(folder)[0] + "/report.html" if served else page)
    texts = open_all(browser)
    lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert len(texts) == len(lines) == 60
    for text, line in zip(texts, lines, strict=True):
        assert line["prompt"] in text
        assert line["completions"][1] in text
    monkeypatch.setattr(shards, "PAGE_VERDICTS", 2_000)


def test_a_page_without_its_shards_says_so_and_keeps_its_own(
    browser: Browser, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(shards, "PAGE_VERDICTS", 6)
    alone = tmp_path / "alone.html"
    alone.write_bytes(write_report(folder).read_bytes())
    show(browser, alone)
    texts = open_all(browser)
    assert sum("report.shards, which is not beside this page" in text for text in texts) == 54
    browser.ask("document.querySelector('[data-filter=here]').click()")
    assert browser.ask(SHOWN) == 6
    assert browser.ask("count.textContent").startswith("6 of 60 verdicts")


def choose(browser: Browser, name: str, words: str) -> None:
    browser.ask(
        f"""{{ const node = document.querySelector("[data-filter={name}]");
        node.value = [...node.options].find((option) => option.textContent.startsWith({json.dumps(words)})).value;
        node.dispatchEvent(new Event("change")); }}"""
    )


def test_filters_and_search_find_what_is_there(browser: Browser, folder: Path, change: Any):
    def marked(i: int, row: dict[str, Any]) -> None:
        if i == 7:
            row["orders"][1]["votes"][0]["reply"] = "<think>a needle in the reasoning</think><answer>1</answer>"
        if i == 9:
            row["orders"] = row["orders"][:1]

    change(folder / "outcomes.jsonl", marked)
    show(browser, write_report(folder))
    rows = [json.loads(line) for line in (folder / "outcomes.jsonl").read_text().splitlines()[1:]]
    choose(browser, "group", "reasoning")
    wanted = [row["id"] for row in rows if row["group"] == "reasoning"]
    assert browser.ask("count.textContent") == f"{len(wanted)} of 60 verdicts"
    assert browser.ask(SHOWN) == len(wanted)
    choose(browser, "group", "all")
    unscored = sum(row["scores"] is None for row in rows)
    choose(browser, "result", "unscored")
    assert browser.ask("count.textContent") == f"{unscored} of 60 verdicts"
    choose(browser, "result", "all")
    browser.ask("search.value = 'NEEDLE in the'; search.dispatchEvent(new Event('input'))")
    browser.until("count.textContent === '1 of 60 verdicts'")
    assert browser.ask(f"{CARDS}.map((card) => card.dataset.row)") == ["6"]
    browser.ask("search.value = 'nowhere at all'; search.dispatchEvent(new Event('input'))")
    browser.until("count.textContent === '0 of 60 verdicts'")
    assert "No verdict is like this" in browser.ask("verdicts.textContent")


def test_a_search_goes_into_the_shards_when_it_is_told_to(
    browser: Browser, folder: Path, change: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shards, "PAGE_VERDICTS", 6)

    def marked(i: int, row: dict[str, Any]) -> None:
        row["completions"][0] += " needle"

    change(folder / "samples.jsonl", marked)
    show(browser, write_report(folder))
    browser.ask("search.value = 'needle'; search.dispatchEvent(new Event('input'))")
    browser.until("count.textContent === '6 of 60 verdicts' && !further.hidden")
    assert browser.ask("further.textContent") == "search the whole texts of 54 more"
    browser.ask("further.click()")
    browser.until("count.textContent === '60 of 60 verdicts'")


def test_keys_walk_the_list_open_search_and_help(browser: Browser, folder: Path):
    show(browser, write_report(folder))
    for key in ("j", "j", "k", "j"):
        browser.press(key)
    assert browser.ask(FOCUSED) == "1"
    browser.press("Enter")
    browser.until(f"{OPENED}.join() === '1'")
    browser.press("j")  # reading goes on: the next one opens
    browser.until(f"{OPENED}.join() === '2'")
    browser.press("ArrowDown")
    browser.until(f"{OPENED}.join() === '3'")
    browser.press("ArrowUp")
    browser.until(f"{OPENED}.join() === '2'")
    browser.press("Escape")
    browser.until(f"{OPENED}.length === 0")
    assert browser.ask(FOCUSED) == "2"
    browser.press("]")
    assert browser.ask(f"{CARDS}[0].dataset.row") == "40"
    browser.press("j")
    browser.press("k")  # back over the edge of the page
    assert browser.ask(FOCUSED) == "39"
    browser.press("?")
    assert browser.ask("help.open")
    browser.press("Escape")
    browser.until("!help.open")
    browser.press("/")
    assert browser.ask("document.activeElement.id") == "search"
    browser.press("j")  # typed, not obeyed
    assert browser.ask("search.value") == "j"


def test_a_link_opens_its_verdict_whatever_is_filtered_and_an_opened_one_gives_its_link(
    browser: Browser, folder: Path, change: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shards, "PAGE_VERDICTS", 6)
    name = "a/b c#d?é<&\u202e"

    def renamed(i: int, row: dict[str, Any]) -> None:
        if row.get("id") == "row-000050":
            row["id"] = name

    change(folder / "outcomes.jsonl", renamed)
    change(folder / "samples.jsonl", renamed)
    page = write_report(folder)
    shown = name.replace("\u202e", "⟨U+202E⟩")
    show(browser, f"{page.as_uri()}#{quote(shown, safe='')}")
    browser.until(f"{OPENED}.join() === '50'")
    assert browser.ask("document.querySelector('.verdict[open] .link').textContent") == shown.replace(
        "⟨U+202E⟩", "U+202E"
    )
    choose(browser, "result", "unscored")
    browser.ask("location.hash = '#row-000003'")
    browser.until(f"{OPENED}.join() === '3'")
    browser.ask(f"{CARDS}[5].open = true")
    browser.until("location.hash === '#row-000005'")
    browser.ask("location.hash = '#health'")  # a section is a section
    assert browser.ask(OPENED) == ["3", "5"]


def test_pictures_and_sounds_are_shown_from_the_page_and_from_beside_it(
    browser: Browser, folder: Path, change: Any, monkeypatch: pytest.MonkeyPatch
):
    from PIL import Image

    monkeypatch.setattr(shards, "PAGE_VERDICTS", 30)
    (folder / "media").mkdir()
    Image.new("RGB", (40, 30), "red").save(folder / "media" / "red one.png")

    def pictured(i: int, row: dict[str, Any]) -> None:
        row |= {"images": ["red one.png", "gone.png"], "completions": [None, None]}

    change(folder / "samples.jsonl", pictured)
    show(browser, write_report(folder))
    inlined = set()
    for place in range(10):
        browser.ask(f"{CARDS}[{place}].open = true")
        picture = f"{CARDS}[{place}].querySelector('img')"
        browser.until(f"{picture}?.naturalWidth === 40")
        inlined.add(browser.ask(f"{picture}.src.startsWith('data:')"))
    assert inlined == {True, False}
    assert browser.ask(f"{CARDS}[0].textContent.includes('gone.png is not in this folder')")


def test_two_judges_stand_side_by_side(browser: Browser, tmp_path: Path):
    a, b, out = write_eval_folder(tmp_path / "a", 8), write_eval_folder(tmp_path / "b", 8), tmp_path / "cmp"
    rows = [json.loads(line) for line in (a / "samples.jsonl").read_text().splitlines()]
    out.mkdir()
    found = {
        "benchmark": "made-up",
        "title": "t",
        "task": "pair",
        "figures": {},
        "differ": [{"id": r["id"]} for r in rows],
    }
    (out / "compare.json").write_text(json.dumps(found))
    show(browser, write_compare(a, b, out))
    texts = open_all(browser)
    assert len(texts) == 8
    assert all("undefined" not in text and rows[i]["prompt"] in text for i, text in enumerate(texts))
    browser.ask(f"{CARDS}[0].open = true")
    browser.until("document.querySelectorAll('.verdict[open] .why').length === 2")


def test_an_opened_verdict_says_that_its_prompt_or_a_thought_was_cut(browser: Browser, folder: Path, change: Any):
    def cut(i: int, row: dict[str, Any]) -> None:
        if i == 2:
            row["prompt_cut"] = 1
            row["orders"][1]["votes"][0]["thought_cut"] = True

    change(folder / "outcomes.jsonl", cut)
    show(browser, write_report(folder))
    texts = open_all(browser)
    assert ["Thought cut short." in text for text in texts] == [i == 1 for i in range(len(texts))]
    assert ["Prompt cut by 1 character." in text for text in texts] == [i == 1 for i in range(len(texts))]


def test_a_phone_needs_no_sideways_scrolling_and_print_has_no_controls(browser: Browser, folder: Path):
    page = write_report(folder)
    browser.call("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2, mobile=True)
    try:
        show(browser, page)
        browser.ask(f"{CARDS}[0].open = true")
        browser.until("!!document.querySelector('.verdict[open] .prose')")
        assert browser.ask("document.documentElement.scrollWidth") <= 360
    finally:
        browser.call("Emulation.clearDeviceMetricsOverride")
    browser.call("Emulation.setEmulatedMedia", media="print")
    try:
        styles = "['.filters', '#pager', 'nav'].map((name) => getComputedStyle(document.querySelector(name)).display)"
        assert set(browser.ask(styles)) == {"none"}
        assert browser.ask(f"{CARDS}.filter((card) => getComputedStyle(card).display !== 'none').length") == 1
    finally:
        browser.call("Emulation.setEmulatedMedia", media="")
