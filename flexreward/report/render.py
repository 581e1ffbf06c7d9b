"""Every page that the project writes goes through ``render_page``: autoescaped, self-contained, closed by a policy."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from flexreward.report import figures, text, words


def _asset(name: str) -> Markup:
    return Markup(files("flexreward.report").joinpath("templates", name).read_text("utf-8"))


def _source(asset: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(asset.encode()).digest()).decode() + "'"


def _policy(style: Markup, script: Markup, *, scripts: str = "", media: str = "img-src data:") -> str:
    return (
        f"default-src 'none'; style-src {_source(style)}; script-src {_source(script)}{scripts}; {media}; "
        "base-uri 'none'; form-action 'none'"
    )


STYLE, SCRIPT = _asset("page.css"), _asset("page.js")
CONTENT_SECURITY_POLICY = _policy(STYLE, SCRIPT)
"""Only our own style and script, named by their digests, may act: what slips into a page stays dead text."""

VERDICTS_STYLE, VERDICTS_SCRIPT = STYLE + _asset("verdicts.css"), _asset("verdicts.js")
VERDICTS_POLICIES = (
    _policy(
        VERDICTS_STYLE,
        VERDICTS_SCRIPT,
        scripts=" 'strict-dynamic'",
        media="img-src data: 'self'; media-src data: 'self'",
    ),
    f"script-src {_source(VERDICTS_SCRIPT)} 'self'",
)
"""A page with a browser of verdicts: media and shards that lie beside it may be loaded, and nothing else.

A browser obeys both: a script must be ours or be asked for by ours (no markup can ask for one), and it must come from
where the page came from.
"""

LIVE_SCRIPT = _asset("live.js")
LIVE_POLICY = _policy(STYLE, LIVE_SCRIPT) + "; connect-src 'self'"
"""A page that a server sends asks that server, and nobody else, for its numbers."""


def render_page(template_name: str, *, verdicts: bool = False, live: bool = False, **context: object) -> str:
    """One HTML file that asks nothing of any network, or of the server alone that sent it.

    Args:
        template_name: A file of ``flexreward/report/templates`` that extends ``base.html.j2``.
        verdicts: Whether the page has a browser of verdicts, with its own script, and files beside it.
        live: Whether it is a server's, with a script that asks for news.
        context: What the template names. A name that it misses raises ``jinja2.UndefinedError``.
    """
    look: dict[str, object] = {"style": STYLE, "script": SCRIPT, "policies": (CONTENT_SECURITY_POLICY,)}
    if verdicts:
        look = {"style": VERDICTS_STYLE, "script": VERDICTS_SCRIPT, "policies": VERDICTS_POLICIES}
    if live:
        look = {"style": STYLE, "script": LIVE_SCRIPT, "policies": (LIVE_POLICY,)}
    return _environment().get_template(template_name).render(**look, **context)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("flexreward.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        text=text.text_html,
        line=text.line_html,
        percent=words.percent,
        interval=words.interval,
        number=words.number,
        plural=words.plural,
        figure=figures.figure_text,
        spread=figures.spread_text,
        difference=figures.difference_text,
        in_plain=figures.in_plain,
        is_share=figures.is_share,
    )
    return environment


def _finalize(value: object) -> object:
    # Runs before escaping on every expression of every template: hidden characters cannot reach a page by any path.
    return text.visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
