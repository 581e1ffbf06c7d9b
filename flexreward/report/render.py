"""Every page that the project writes goes through ``render_page``: autoescaped, self-contained, closed by a policy."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from flexreward.report import text, words


def _asset(name: str) -> Markup:
    return Markup(files("flexreward.report").joinpath("templates", name).read_text("utf-8"))


def _source(asset: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(asset.encode()).digest()).decode() + "'"


STYLE, SCRIPT = _asset("page.css"), _asset("page.js")
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src {_source(STYLE)}; script-src {_source(SCRIPT)}; img-src data:; "
    "base-uri 'none'; form-action 'none'"
)
"""Only our own style and script, named by their digests, may act: what slips into a page stays dead text."""


def render_page(template_name: str, **context: object) -> str:
    """One HTML file that asks nothing of any network.

    Args:
        template_name: A file of ``flexreward/report/templates`` that extends ``base.html.j2``.
        context: What the template names. A name that it misses raises ``jinja2.UndefinedError``.
    """
    return _environment().get_template(template_name).render(**context)


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
    environment.globals.update(style=STYLE, script=SCRIPT, policy=CONTENT_SECURITY_POLICY)
    environment.filters.update(
        text=text.text_html,
        line=text.line_html,
        percent=words.percent,
        interval=words.interval,
        number=words.number,
        plural=words.plural,
    )
    return environment


def _finalize(value: object) -> object:
    # Runs before escaping on every expression of every template: hidden characters cannot reach a page by any path.
    return text.visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
