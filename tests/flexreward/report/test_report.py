"""The pages: what they say is what the run folder holds, and nothing that a model wrote can act in them."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jinja2
import pytest

from flexreward.errors import OutputError
from flexreward.report import CONTENT_SECURITY_POLICY, render_page, report_html, write_report
from flexreward.report.charts import Point, curve, histogram
from flexreward.report.choose import choice_in_words, choose
from flexreward.report.reply import split
from flexreward.report.text import HEAD_CHARS, TAIL_CHARS, line_html, text_html, visible
from flexreward.report.why import disagreement
from flexreward.types import Scale

TAGS = {
    *("html", "head", "meta", "link", "title", "style", "body", "a", "header", "span", "nav", "main", "section", "h1"),
    *("h2", "h4", "h5", "p", "em", "strong", "b", "ol", "li", "figure", "figcaption", "svg", "rect", "line", "text"),
    *("polygon", "polyline", "circle", "g", "table", "caption", "thead", "tbody", "tr", "th", "td", "dl", "div", "dt"),
    *("dd", "details", "summary", "mark", "label", "select", "option", "input", "button", "code", "footer", "script"),
}

HOSTILE = (
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=alert(1)>",
    "\" onmouseover=alert(1) data-x=\"' onfocus=alert(1) autofocus='",
    "<a href='javascript:alert(1)'>click</a> [link](javascript:alert(1))",
    "</style><style>*{display:none}</style><link rel=stylesheet href=//example.org/x.css>",
    "</title></textarea></svg></details><iframe srcdoc='<script>1</script>'></iframe>",
    "{{ 7 * 7 }}{% raw %}{% include 'page.js' %}",
    "<!-- <base href=//example.org/> --> ]]> <?php ?>",
    "&lt;script&gt; &#x3C;script&#62; &amp;",
    "\u202eright to left\u202c \u2066isolated\u2069",
    "a\x00b\x1b[31mc\x7f\ud800\ufffe\ufeff",
)


class Elements(HTMLParser):
    """Every element and attribute of a page, as a browser's parser would find them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def assert_inert(html: str) -> None:
    """Only our own elements, one script and one style, no handler, no style attribute, no address but in the page."""
    found = Elements(html).found
    names = [tag for tag, _ in found]
    assert set(names) <= TAGS
    assert names.count("script") == names.count("style") == 1
    for tag, attributes in found:
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "src", "srcdoc")], tag
        assert (attributes.get("href") or "#").startswith("#") or attributes["href"] == "data:,"
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", html)


def rewrite(path: Path, change: Any) -> None:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(change(i, row)) + "\n" for i, row in enumerate(rows)))


def poisoned(run_dir: Path) -> Path:
    """The same run with hostile text in every place that a model or a user writes."""

    def sample(i: int, row: dict[str, Any]) -> dict[str, Any]:
        text = HOSTILE[i % len(HOSTILE)]
        return {**row, "prompt": text, "answer": text, "kind": text, "completions": [*HOSTILE, *HOSTILE][:16]}

    def outcome(i: int, row: dict[str, Any]) -> dict[str, Any]:
        text = HOSTILE[i % len(HOSTILE)]
        if "flexreward" in row:
            return row | {"judge": {"fingerprint": text, "model": text, "engine": text}}
        for order in row["orders"]:
            for vote in order["votes"]:
                vote["reply"] = f"<think>{text}</think>{text}<answer>{text}</answer>"
        return row

    rewrite(run_dir / "samples.jsonl", sample)
    rewrite(run_dir / "outcomes.jsonl", outcome)
    rewrite(run_dir / "pairs" / "pair_outcomes.jsonl", outcome)
    rewrite(run_dir / "pairs" / "dropped.jsonl", lambda i, row: {**row, "reason": HOSTILE[i % len(HOSTILE)]})
    return run_dir


def test_the_page_of_a_quickstart_is_inert_and_says_what_happened(run_dir: Path):
    html = report_html(run_dir)
    assert_inert(html)
    best = json.loads((run_dir / "summary.json").read_text())["best_of_n"]
    assert f"{100 * best['1']:.1f}\u00a0%" in html
    assert f"{100 * best['16']:.1f}\u00a0%" in html
    assert "wrote 16 completions for each" in html
    assert "In this reply" in html
    assert "Assistant 1 is B" in html


def test_hostile_text_in_every_place_stays_dead_and_visible(run_dir: Path):
    html = report_html(poisoned(run_dir))
    assert_inert(html)
    assert "&lt;img src=x onerror=alert(1)&gt;" in html
    assert "{{ 7 * 7 }}" in html
    assert '<span class="unseen" title="right-to-left override">U+202E</span>' in html
    assert "U+0000" in html
    html.encode()


@pytest.mark.parametrize("text", HOSTILE)
def test_a_filter_leaves_no_tag_of_the_text_alive(text: str):
    for shown in (text_html(text), line_html(text)):
        assert "<" not in re.sub(r'<span class="unseen" title="[a-z -]+">U\+[0-9A-F]+( ×\d+)?</span>', "", shown)


def test_hidden_characters_are_spelled_out_even_where_a_template_forgets_the_filter(run_dir: Path):
    assert visible("a\u202eb\x00\x00") == "a⟨U+202E⟩b⟨U+0000 ×2⟩"
    assert visible("line\r\nline\tتجربة\u200cآزمون") == "line\nline\tتجربة\u200cآزمون"
    (run_dir.parent / "evil\u202efdp").mkdir()
    moved = run_dir.rename(run_dir.parent / "evil\u202efdp" / "run")
    html = report_html(moved)
    assert "\u202e" not in html
    assert "⟨U+202E⟩" in html


def test_a_megabyte_of_text_shows_its_ends_and_the_size_of_what_is_left_out(run_dir: Path):
    long = "start" + "x" * 1_000_000 + "the end"
    rewrite(run_dir / "samples.jsonl", lambda i, row: row if i else row | {"prompt": long, "completions": [long] * 16})
    html = report_html(run_dir)
    assert f"… {len(long) - HEAD_CHARS - TAIL_CHARS:,} characters left out of this page …" in html
    assert "the end" in html
    assert len(html) < 4_000_000


def test_the_policy_names_exactly_the_one_style_and_the_one_script(run_dir: Path):
    html = report_html(run_dir)
    for tag in ("style", "script"):
        (inline,) = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in CONTENT_SECURITY_POLICY
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert CONTENT_SECURITY_POLICY.startswith("default-src 'none'")
    policy = next(a["content"] for t, a in Elements(html).found if a.get("http-equiv") == "Content-Security-Policy")
    assert policy == CONTENT_SECURITY_POLICY


def test_no_template_switches_the_escaping_off():
    folder = Path(__import__("flexreward.report").report.__file__).parent / "templates"
    templates = list(folder.rglob("*.j2"))
    assert len(templates) >= 6
    for template in templates:
        assert not re.search(r"\|\s*safe|autoescape|Markup|\son[a-z]+=|style=|javascript:", template.read_text()), (
            template
        )


def test_a_name_that_the_context_lacks_is_an_error_and_not_an_empty_place():
    with pytest.raises(jinja2.UndefinedError):
        render_page("run.html.j2")


def test_the_sentences_say_why_a_pair_was_kept_or_dropped(run_dir: Path):
    template = json.loads((run_dir / "pairs" / "pair_outcomes.jsonl").read_text().splitlines()[1])

    def row(index: int, first: list[float] | None, second: list[float] | None) -> dict[str, Any]:
        orders = [
            {"order": order, "scores": scores, "votes": [{"reply": "", "scores": scores, "reason": "no_end"}]}
            for order, scores in (([0, 1], first), ([1, 0], second))
        ]
        scored = first is not None and second is not None
        scores = [(a + b) / 2 for a, b in zip(first, second, strict=True)] if scored else None
        status = "scored" if scored else "unscored"
        return template | {
            "id": f"p000#0-{index}",
            "status": status,
            "scores": scores,
            "orders": orders,
            "reason": "quorum",
        }

    rows = [
        row(1, [9, 2], [8, 3]),
        row(2, [9, 2], [2, 9]),
        row(3, [9, 2], [5, 5]),
        row(4, [4, 4], [5, 5]),
        row(5, [9, 2], None),
    ]
    (run_dir / "pairs" / "pair_outcomes.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (run_dir / "pairs" / "dropped.jsonl").unlink()
    html = report_html(run_dir)
    assert "Kept: both orders prefer A, so the verdict does not hang on the place." in html
    assert "With A shown first it prefers A and with B shown first it prefers B." in html
    assert "With A shown first it prefers A and with B shown first it sees a tie." in html
    assert "Tied: both get the same score." in html
    assert "Dropped: with B shown first no score could be read." in html
    assert "Unscored: the judge&#39;s reasoning never ended" in html
    assert re.findall(r'data-status="(\w+)" data-reason="(\w*)"', html) == [
        ("kept", ""),
        ("dropped", "flipped"),
        ("dropped", "half_tied"),
        ("tied", "tied"),
        ("dropped", "unscored"),
    ]


def test_what_the_pair_builder_wrote_wins_over_what_could_be_inferred(run_dir: Path):
    kept = json.loads((run_dir / "pairs" / "pair_outcomes.jsonl").read_text().splitlines()[1])["id"]
    (run_dir / "pairs" / "dropped.jsonl").write_text(json.dumps({"id": kept, "reason": "margin"}) + "\n")
    html = report_html(run_dir)
    assert 'data-status="dropped" data-reason="margin"' in html


def test_winners_disagree_only_when_both_orders_name_something_else():
    assert disagreement([0, 0]) == disagreement([None, None]) == disagreement([1]) == ""
    assert disagreement([0, 1]) == "flipped"
    assert disagreement([None, 1]) == "half_tied"


@pytest.mark.parametrize(
    ("reply", "reasoning", "final"),
    [
        ("<think>\nbecause</think> <answer>3</answer>", "because", ["<answer>", "*3", "</answer>"]),
        ("because</think><answer> 3 </answer>", "because", ["<answer> ", "*3", " </answer>"]),
        ("<think>it says <answer>9</answer>", "it says <answer>9</answer>", []),
        ("<think>a</think>quoted</think><answer>1</answer>", "a</think>quoted", ["<answer>", "*1", "</answer>"]),
        ("<answer>4</answer><think>late</think>", "late", ["<answer>", "*4", "</answer>"]),
        ("no tags at all", None, ["no tags at all"]),
        ("", None, []),
    ],
)
def test_a_reply_is_split_where_it_was_read(reply: str, reasoning: str | None, final: list[str]):
    found = split(reply, mark=True)
    assert found[0] == reasoning
    assert ["*" * part.score + part.text for part in found[1]] == final


def test_scores_are_not_marked_in_a_reply_that_could_not_be_read():
    assert not any(part.score for part in split("<think>a</think><answer>99</answer>", mark=False)[1])


def test_a_thought_and_a_prompt_that_were_cut_are_told_where_they_stand_and_nowhere_else(run_dir: Path):
    assert not re.search("cut short|cut by", report_html(run_dir))

    def cut(i: int, row: dict[str, Any]) -> dict[str, Any]:
        if i == 1:
            row["prompt_cut"] = 1234
            row["orders"][0]["votes"][0]["thought_cut"] = True
        return row

    rewrite(run_dir / "outcomes.jsonl", cut)
    alone = report_html(run_dir)
    assert alone.count('<p class="aside">Thought cut short.</p>') == 1
    assert alone.count('<p class="aside">Prompt cut by 1,234 characters.</p>') == 1
    rewrite(run_dir / "pairs" / "pair_outcomes.jsonl", cut)
    both = report_html(run_dir)
    assert both.count("Thought cut short.") == both.count("Prompt cut by 1,234 characters.") == 2
    assert_inert(both)


def test_a_page_shows_failures_first_and_says_what_it_leaves_out(build: Any, tmp_path: Path):
    html = report_html(build(tmp_path / "large", num_problems=40))
    assert html.count('class="completion ') <= 400
    assert re.search(r"This page shows 25 of 40 problems: (all \d+|\d+ of the \d+) with a wrong pick", html)
    assert "drawn at random with a fixed seed" in html
    assert_inert(html)


def test_a_choice_keeps_the_order_and_fills_the_page():
    items = list(range(100))
    shown = choose(items, limit=12, is_failure=lambda i: i % 10 == 0)
    assert shown == sorted(shown) == choose(items, limit=12, is_failure=lambda i: i % 10 == 0)
    assert len(shown) == 12
    assert sum(i % 10 == 0 for i in shown) == 8
    assert choose(items, limit=12, is_failure=lambda i: True) == sorted(
        choose(items, limit=12, is_failure=lambda i: True)
    )
    assert len(choose(items, limit=12, is_failure=lambda i: i < 98)) == 12
    assert choose([1, 2], limit=12, is_failure=lambda i: False) == [1, 2]
    assert choice_in_words("problem", "bad", shown=2, failures=0, total=2, all_failures=0) == ""


def test_a_curve_needs_two_points_and_stays_inside_its_frame():
    points = [Point(n, 0.1 * n, 0.0, 1.0, 0.2 * n, 0.1) for n in (1, 2, 4)]
    assert curve(points[:1]) is None
    drawn = curve(points)
    assert drawn is not None
    assert [line.name for line in drawn.lines] == ["oracle", "judge", "shuffled"]
    heights = sorted(line.label_y for line in drawn.lines)
    assert all(b - a >= 14 for a, b in itertools.pairwise(heights))
    assert all(0 <= mark.y <= 210 for line in drawn.lines for mark in line.marks)


def test_scores_are_counted_by_truth_and_decimals_fall_into_the_nearest_bin():
    drawn = histogram([(5.0, True), (4.6, True), (1.0, False)], Scale(low=1, high=5))
    assert drawn is not None
    assert [(b.label, b.right, b.wrong) for b in drawn.bins if b.right or b.wrong] == [("1", 0, 1), ("5", 2, 0)]
    assert histogram([], Scale(low=1, high=5)) is None
    shares = histogram([(1.0, None), (0.3, None)], Scale(low=0, high=1))
    assert shares is not None
    assert (shares.known, len(shares.bins), shares.bins[-1].right) == (False, 10, 1)
    labels = histogram([(1.0, None), (0.5, None), (1.0, None)], Scale(low=0, high=1))
    assert labels is not None
    assert [(b.label, b.right) for b in labels.bins] == [("0", 0), ("0.5", 1), ("1", 2)]


def test_a_folder_with_outcomes_alone_still_gets_its_page(run_dir: Path):
    for name in ("samples.jsonl", "summary.json", "pairs/pair_outcomes.jsonl", "pairs/dropped.jsonl"):
        (run_dir / name).unlink()
    html = report_html(run_dir)
    assert_inert(html)
    assert "text not in this folder" in html
    assert "--samples FILE" in html
    assert "Best of N" not in html


def test_samples_may_stand_elsewhere(run_dir: Path, tmp_path: Path):
    (run_dir / "summary.json").unlink()
    samples = (run_dir / "samples.jsonl").rename(tmp_path / "rows.jsonl")
    assert "text not in this folder" not in report_html(run_dir, samples)
    with pytest.raises(OutputError, match="--samples takes the rows that were judged"):
        report_html(run_dir, tmp_path / "none.jsonl")


@pytest.mark.parametrize("name", ["samples.jsonl", "outcomes.jsonl", "pairs/pair_outcomes.jsonl"])
def test_a_missing_file_is_named_with_the_command_that_makes_it(run_dir: Path, name: str):
    (run_dir / name).unlink()
    with pytest.raises(OutputError, match=rf"{Path(name).name}: missing; `make quickstart` makes it"):
        report_html(run_dir)


def test_an_empty_folder_and_no_folder_are_told_apart(tmp_path: Path):
    with pytest.raises(OutputError, match=r"outcomes.jsonl: missing; `flexreward judge SAMPLES --out .*` makes it"):
        report_html(tmp_path)
    with pytest.raises(OutputError, match="no such run"):
        report_html(tmp_path / "none")


def test_broken_json_is_named_by_its_line_and_a_line_cut_short_is_left_out(run_dir: Path):
    path = run_dir / "outcomes.jsonl"
    whole = report_html(run_dir)
    path.write_text(path.read_text() + '{"id": "p0')
    assert report_html(run_dir) == whole
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:4], "{broken", *lines[5:]]))
    with pytest.raises(OutputError, match=r"outcomes.jsonl: line 5: broken JSON"):
        report_html(run_dir)


def test_a_run_may_be_one_file_with_the_others_beside_it(run_dir: Path, tmp_path: Path):
    judged = (run_dir / "outcomes.jsonl").rename(tmp_path / "best.outcomes.jsonl")
    samples = run_dir / "samples.jsonl"
    choices = tmp_path / "best.jsonl"
    choices.write_text('{"best": 0}\n')
    assert write_report(choices, samples) == tmp_path / "best.report.html"
    html = report_html(choices, samples)
    of_judged = report_html(judged, samples)
    assert html.replace("best.outcomes.jsonl", "best.jsonl") == of_judged.replace("best.outcomes.jsonl", "best.jsonl")
    assert json.loads(samples.read_text().splitlines()[0])["prompt"] in html
    judged.unlink()
    with pytest.raises(OutputError, match=r"best.jsonl: holds no outcomes; name the file or folder"):
        report_html(choices, samples)


def test_the_report_stands_in_the_run_folder_and_is_the_same_each_time(run_dir: Path):
    path = write_report(run_dir)
    assert path == run_dir / "report.html"
    first = path.read_bytes()
    assert write_report(run_dir).read_bytes() == first
    assert [p.name for p in run_dir.iterdir() if "part" in p.name] == []
