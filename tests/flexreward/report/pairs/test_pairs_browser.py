"""The page of pairs in a real browser: filters, search, both orders, phone and dark, and attempts that do nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flexreward.bench.chromium import Browser, chromium, started

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium() is None, reason="no Chromium here; `apt-get install chromium` adds it"),
]

READY = "document.getElementById('browser').dataset.ready"
CARDS = "[...document.querySelectorAll('.verdict')]"
OWN = "document.documentElement.dataset.owned="
ATTEMPTS = (
    f"</script><script>{OWN}1</script>",
    f"<img src=x onerror={OWN}2>",
    f"<svg onload={OWN}3><script>{OWN}4</script></svg>",
    f'");{OWN}5;("',
    "\u202eright to left\u202c",
)
HANDS = """
window.choose = (name, text) => {
  const node = document.querySelector(`[data-filter=${name}]`);
  node.value = [...node.options].find((one) => one.text.startsWith(text)).value;
  node.dispatchEvent(new Event("change"));
};
window.find = (text) => {
  const node = document.getElementById("search");
  node.value = text;
  node.dispatchEvent(new Event("input"));
};
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with started(tmp_path_factory.mktemp("chromium")) as found:
        yield found


def show(browser: Browser, folder: Path) -> None:
    browser.open("about:blank")
    browser.open((folder / "report.html").as_uri())
    browser.until(READY)
    browser.ask(HANDS)


def test_a_reader_filters_searches_and_reads_both_orders(browser: Browser, folder: Path):
    show(browser, folder)
    count = "document.getElementById('count').textContent"
    assert browser.ask(count) == "90 of 90 pairs"
    browser.ask("choose('result', 'kept')")
    kept = int(browser.ask(count).split()[0])
    assert 0 < kept < 90
    badges = browser.ask(f"{CARDS}.map((card) => card.querySelector('summary .badge').textContent)")
    assert set(badges) == {"kept"}
    browser.ask("choose('result', 'all'); find('Prompt 7:')")
    browser.until(f"{CARDS}.length === 3")
    browser.ask(f"{CARDS}[0].open = true")
    browser.until(f"!!{CARDS}[0].querySelector('.order')")
    text = browser.ask(f"{CARDS}[0].textContent")
    assert "A shown first" in text
    assert "B shown first" in text
    assert text.count("Longer is better.") == 2
    assert "temperature 0.8" in text
    assert "people" not in text


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (390, "dark"), (1200, "dark")])
def test_the_page_fits_a_phone_and_is_dark_where_that_is_liked(browser: Browser, folder: Path, width: int, scheme: str):
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 500)
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    show(browser, folder)
    assert browser.ask("document.documentElement.scrollWidth <= window.innerWidth")
    ground = browser.ask("getComputedStyle(document.body).backgroundColor")
    light = sum(map(int, ground.partition("(")[2].rstrip(")").split(",")[:3])) > 380
    assert light == (scheme == "light")


def test_attempts_written_by_a_model_do_nothing(browser: Browser, build_pairs: Callable[..., Path]):
    folder = build_pairs(10, says=lambda i: ATTEMPTS[i % len(ATTEMPTS)])
    show(browser, folder)
    browser.ask(f"{CARDS}.forEach((card) => {{ card.open = true; }})")
    browser.until(f"{CARDS}.every((card) => !!card.querySelector('.order'))")
    assert browser.ask("document.documentElement.dataset.owned") is None
    assert "onerror=" in browser.ask(f"{CARDS}.map((card) => card.textContent).join()")
