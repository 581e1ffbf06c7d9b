"""Whether the page of an eval stands still: the longest task of its one thread, in headless Chromium.

Twenty-two thousand pairs with replies as long as real ones: 2,000 lie in the page, the others in shards beside it. A
timer that begins before the page does comes every few milliseconds, and what keeps it waiting for 50 ms or more is a
long task, by the clock, so that a busy machine shows; 0 means that there was none. Chromium's own list of them
(``longtask``) is not used: on a busy machine it left out the first task of one opening in ten.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from flexreward.bench import Bar, interval
from flexreward.bench.chromium import Browser, BrowserError, chromium, started
from flexreward.bench.verdicts import write_eval_folder

NUM_ROWS, NUM_FEW = 22_000, 40
GOAL_MS = 200.0
REPEATS = 3
CORES = {"": 1, "_slow_core": 4}
"""How many times slower than it is Chromium makes its page run."""

OBSERVE = """
{
  let longest = 0, last = performance.now();
  const beat = () => { const now = performance.now(); longest = Math.max(longest, now - last); last = now; };
  const again = () => { beat(); setTimeout(again); };
  setTimeout(again);
  window.longest_task = () => { beat(); const found = longest; longest = 0; return found >= 50 ? found : 0; };
}
"""
READY = "document.getElementById('browser')?.dataset.ready"
SETTLED = "new Promise((resolve) => setTimeout(resolve, 200))"
DONE = "!document.getElementById('count').textContent.includes('texts')"
STEPS = (
    *(f"choose('result', {value})" for value in ("1", "0", "''")),
    *(f"choose('group', {value})" for value in ("1", "''")),
    "choose('orders', 1)",
    "choose('orders', '')",
    "find('critic')",
    "find('relevant image')",
    "find('')",
    "turn()",
    "open(7)",
)
"""What a reader does, each followed until the page has settled."""
# What a driver asks is no task of the page's own, so each act is made one.
HANDS = """
window.as_task = (act) => new Promise((resolve) => setTimeout(() => { act(); resolve(); }));
const set = (node, value, event) => { node.value = value; node.dispatchEvent(new Event(event)); };
window.choose = (name, value) => set(document.querySelector(`[data-filter=${name}]`), value, "change");
window.find = (text) => set(document.getElementById("search"), text, "input");
window.turn = () => document.querySelector("#pager").lastElementChild.click();
window.open = (place) => { document.querySelectorAll(".verdict")[place].open = true; };
"""


def bars(num_rows: int = NUM_ROWS, repeats: int = REPEATS, cores: Mapping[str, int] = CORES) -> dict[str, Bar]:
    """Longest task while the page opens, and while it is filtered, searched and read; none without a browser."""
    from flexreward.report import write_report

    if chromium() is None:
        print("page: not measured, no Chromium here; `apt-get install chromium` adds it", file=sys.stderr)
        return {}
    found = {}
    with tempfile.TemporaryDirectory() as place:
        pages = [write_report(write_eval_folder(Path(place) / str(num), num)) for num in (num_rows, NUM_FEW)]
        with started(Path(place)) as browser:
            browser.call("Page.addScriptToEvaluateOnNewDocument", source=OBSERVE)
            for name, rate in cores.items():
                browser.call("Emulation.setCPUThrottlingRate", rate=rate)
                (opening, using), (few_opening, few_using) = (
                    zip(*(measure(browser, page.as_uri()) for _ in range(repeats)), strict=True) for page in pages
                )
                found[f"page_open{name}_longest_task_ms"] = _bar(opening, few_opening, num_rows)
                found[f"page_use{name}_longest_task_ms"] = _bar(using, few_using, num_rows)
    return found


def measure(browser: Browser, address: str) -> tuple[float, float]:
    """Milliseconds of the longest task of opening the page, and of using it.

    Raises:
        BrowserError: The page does not come, or the browser does not tell of long tasks.
    """
    browser.open("about:blank")
    browser.open(address)
    browser.until(READY)
    browser.ask(SETTLED)
    opening = float(browser.ask("longest_task()"))
    browser.ask(HANDS)
    for step in STEPS:
        browser.ask(f"as_task(() => {step})")
        browser.ask(SETTLED)
        browser.until(DONE)
    browser.ask(SETTLED)
    using = float(browser.ask("longest_task()"))
    browser.ask("as_task(() => { const end = performance.now() + 120; while (performance.now() < end); })")
    browser.ask(SETTLED)
    if browser.ask("longest_task()") < 100:
        raise BrowserError("the browser told nothing of a task of 120 ms: what it says of long tasks is worth nothing")
    return opening, using


def _bar(values: tuple[float, ...], few: tuple[float, ...], num_rows: int) -> Bar:
    """The median; the baseline is a page of few verdicts."""
    return Bar(
        value=statistics.median(values),
        goal=GOAL_MS,
        baseline=statistics.median(few),
        n=num_rows,
        interval=interval(values),
    )
