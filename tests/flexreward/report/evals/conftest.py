"""Eval folders of any size, and texts that try everything."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flexreward.bench.verdicts import write_eval_folder

OWN = "document.documentElement.dataset.owned="

ATTEMPTS = (
    f"</script><script>{OWN}1</script>",
    f"<!--<script>{OWN}2</script>-->",
    f"--!><script>{OWN}3</script>",
    f"]]><script>{OWN}4</script>",
    f"<img src=x onerror={OWN}5>",
    f"<svg onload={OWN}6><script>{OWN}7</script></svg>",
    f"<math><mtext><style><img src=x onerror={OWN}8></style></mtext></math>",
    f"<iframe srcdoc='<script>parent.{OWN}9</script>'></iframe>",
    f"<details open ontoggle={OWN}10><summary>x</summary></details>",
    f"<input autofocus onfocus={OWN}11>",
    f"<video autoplay><source onerror={OWN}12></video>",
    f"<a href='javascript:{OWN}13' id=click>click</a>",
    f"<meta http-equiv=refresh content='0;url=javascript:{OWN}14'>",
    "<base href=HOST/base/>",
    "<img src=HOST/image.png>",
    "<link rel=stylesheet href=HOST/style.css><style>*{background:url(HOST/background.png)}</style>",
    "<script src=HOST/script.js></script>",
    "<object data=HOST/object></object><embed src=HOST/embed>",
    "<form action=HOST/form><button autofocus>x</button></form>",
    f'");{OWN}15;("',
    f"');{OWN}16;('",
    f"`${{{OWN}17}}`",
    f"*/{OWN}18;/*",
    f'\\");{OWN}19;//',
    f"\u2028{OWN}20;\u2029{OWN}21",
    f"\\u003c/script>\\u003cscript>{OWN}22</script>",
    f"\\x3cscript\\x3e{OWN}23\\x3c/script\\x3e",
    "&lt;script&gt; &#60;img src=x&#62; &amp;amp; &#x3C;",
    f"{{{{ {OWN}24 }}}}{{% raw %}}{{% include 'page.js' %}}",
    "\u202eright to left\u202c \u2066isolated\u2069 \u200f\u061c",
    "a\x00b\x1b[31mc\x7f\x85\x08d",
    "half \ud800 a pair \udc00, \ufeff\ufffe\uffff",
    "__proto__ constructor toString hasOwnProperty",
    f"</textarea></title></noscript></template></select><script>{OWN}25</script>",
    f"<x id=browser><y id=verdicts><z id=settings><script>{OWN}26</script>",
    "\\",
    f'"}}]);{OWN}27;flexrewardShard(0,"[',
)
"""Markup, scripts, entities, control and bidirectional characters, and what would break out of a shard."""


@pytest.fixture
def attempts() -> tuple[str, ...]:
    return ATTEMPTS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Sixty pairs in both orders."""
    return write_eval_folder(tmp_path / "run", 60)


@pytest.fixture
def change() -> Callable[[Path, Callable[[int, dict[str, Any]], Any]], None]:
    """Rewrites the objects of a JSONL file in place."""

    def rewrite(path: Path, of: Callable[[int, dict[str, Any]], Any]) -> None:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(of(i, row) or row) + "\n" for i, row in enumerate(rows)))

    return rewrite


@pytest.fixture
def poison(change: Any) -> Callable[[Path, str], Path]:
    """Puts the attempts into every place of an eval folder that a model, a user or a publisher writes."""

    def poisoned(folder: Path, host: str = "https://example.org") -> Path:
        texts = [text.replace("HOST", host) for text in ATTEMPTS]

        def text(i: int) -> str:
            return texts[i % len(texts)]

        def sample(i: int, row: dict[str, Any]) -> None:
            row |= {"id": f"{i} {text(i)}", "prompt": text(i), "completions": [text(i), text(i + 1)], "group": text(i)}
            row["images"] = [text(i), "../../etc/passwd", "/etc/passwd.png"]

        def outcome(i: int, row: dict[str, Any]) -> None:
            if "flexreward" in row:
                row["judge"] = {"fingerprint": text(0), "model": text(1), "engine": text(2), "aggregate": "mean"}
                return
            i -= 1
            row |= {"id": f"{i} {text(i)}", "group": text(i), "systems": [text(i), text(i + 2)], "reason": text(i)}
            for order in row["orders"]:
                for vote in order["votes"]:
                    vote |= {"reply": f"<think>{text(i)}</think>{text(i)}<answer>{text(i)}</answer>", "reason": text(i)}

        change(folder / "samples.jsonl", sample)
        change(folder / "outcomes.jsonl", outcome)
        summary = json.loads((folder / "summary.json").read_text())
        figures = {f"accuracy/{one}": 0.5 for one in texts} | {"accuracy": 0.6, texts[0]: 0.1}
        summary |= {"title": texts[0], "quirks": texts, "notes": texts, "published": figures}
        summary |= {"judge": {"model": texts[1]}, "template": {"id": texts[2]}, "protocol": {texts[3]: texts[4]}}
        summary |= {"unscored": {texts[5]: 3}, "reply_reasons": {texts[6]: 2}}
        (folder / "summary.json").write_text(json.dumps(summary))
        return folder

    return poisoned
