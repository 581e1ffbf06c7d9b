"""The options that several commands share, declared once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

SAMPLES, JUDGE, POLICY, ROWS, RUN = "Samples", "Judge", "Policy", "Which rows", "Run"


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeOptions:
    """By which judge, and how."""

    judge: Annotated[
        str | None,
        typer.Option(
            "--judge",
            metavar="J",
            rich_help_panel=JUDGE,
            help="tiny (bundled), a model's folder, a hub id, an OpenAI-compatible server's URL, or a recipe.yaml. "
            "Default: FLEXREWARD_RECIPE, else tiny.",
        ),
    ] = None
    template: Annotated[
        str | None,
        typer.Option(
            "--template",
            metavar="T",
            rich_help_panel=JUDGE,
            help="What the judge is asked: score (1 completion), pair (2), batch (more), ... or a .toml of your own.",
        ),
    ] = None
    votes: Annotated[
        int | None,
        typer.Option("--votes", metavar="K", rich_help_panel=JUDGE, help="Replies to each order, averaged."),
    ] = None
    waits: Annotated[
        int | None,
        typer.Option("--waits", metavar="W", min=0, rich_help_panel=JUDGE, help="How often a thought must go on."),
    ] = None
    think: Annotated[
        int | None,
        typer.Option(
            "--think",
            metavar="N",
            min=1,
            rich_help_panel=JUDGE,
            help="At most N tokens of thought, in place of the recipe's max_tokens; then an answer that can be read, "
            "written under constraint. Replies whose thought was cut say so.",
        ),
    ] = None
    temperature: Annotated[
        float | None, typer.Option("--temperature", rich_help_panel=JUDGE, help="0 is greedy. Default: the recipe's.")
    ] = None
    seed: Annotated[
        int | None, typer.Option("--seed", rich_help_panel=JUDGE, help="Of the replies, and of what is drawn.")
    ] = None
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", min=1, rich_help_panel=ROWS, help="Only the first N rows.")
    ] = None
    overwrite: Annotated[
        bool, typer.Option("--overwrite", rich_help_panel=RUN, help="Begin anew instead of going on with --out.")
    ] = False
    max_in_flight: Annotated[
        int | None, typer.Option("--max-in-flight", min=1, rich_help_panel=RUN, help="Requests at work at once.")
    ] = None
    store: Annotated[
        Path | None, typer.Option("--store", metavar="FILE", rich_help_panel=RUN, help="Where replies are kept.")
    ] = None
    no_store: Annotated[
        bool, typer.Option("--no-store", rich_help_panel=RUN, help="Neither read nor keep replies elsewhere.")
    ] = False
    estimate: Annotated[
        bool, typer.Option("--estimate", rich_help_panel=RUN, help="Judge a few rows, print tokens and time, stop.")
    ] = False
    max_unscored: Annotated[
        float | None,
        typer.Option(
            "--max-unscored", metavar="SHARE", min=0, max=1, rich_help_panel=RUN, help="Exit 1 above it, such as 0.05."
        ),
    ] = None
    as_json: Annotated[
        bool, typer.Option("--json", rich_help_panel=RUN, help="One line of JSON on stdout; the rest on stderr.")
    ] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions(JudgeOptions):
    """What to judge, by which judge, and how."""

    samples: Annotated[
        str,
        typer.Argument(
            metavar="SAMPLES",
            help="A JSONL, JSON or Parquet file, here or at a URL that fsspec opens (s3://...), a folder saved by "
            "`datasets`, or a hub id NAME:SPLIT.",
            show_default=False,
        ),
    ]
    map: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="FIELD=COLUMN",
            rich_help_panel=ROWS,
            help="prompt=question, completions=answer1,answer2, prompt='{instruction} {input}'; FIELD= leaves it out.",
        ),
    ] = None
    shard: Annotated[
        str | None, typer.Option("--shard", metavar="I/N", rich_help_panel=ROWS, help="Share I of N, counted from 1.")
    ] = None
    refuse_empty: Annotated[
        bool, typer.Option("--refuse-empty", rich_help_panel=ROWS, help="Stop at an empty completion.")
    ] = False
    max_row_mib: Annotated[
        float, typer.Option("--max-row-mib", rich_help_panel=ROWS, help="Longest row that is read, in MiB.")
    ] = 16
    media_host: Annotated[
        list[str] | None,
        typer.Option(
            "--media-host",
            metavar="HOST",
            rich_help_panel=ROWS,
            help="A host that images, videos and audios may be fetched from; may be repeated. What they are held to "
            "stands in the recipe, as media.",
        ),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledOptions(JobOptions):
    """The same, where completions may be drawn from a policy first."""

    policy: Annotated[
        str | None,
        typer.Option(
            "--policy",
            metavar="P",
            rich_help_panel=POLICY,
            help="Draw the completions: SAMPLES then holds prompts. tiny (bundled), a model's folder, a hub id, an "
            "OpenAI-compatible server's URL, the address of `trl vllm-serve`, or a recipe.yaml.",
        ),
    ] = None
    temperatures: Annotated[
        str | None,
        typer.Option(
            "--temperatures",
            metavar="T,T",
            rich_help_panel=POLICY,
            help="Completions are drawn at each. Default: the recipe's, else 0.8,1.2 for pairs and 1 for best-of-n.",
        ),
    ] = None
    completions: Annotated[
        int | None,
        typer.Option("--completions", metavar="K", min=1, rich_help_panel=POLICY, help="So many at each temperature."),
    ] = None
    max_completion_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-completion-tokens",
            metavar="N",
            min=1,
            rich_help_panel=POLICY,
            help="Longer ones are cut, and marked so: --keep uncut drops them.",
        ),
    ] = None
    policy_seed: Annotated[
        int | None, typer.Option("--policy-seed", rich_help_panel=POLICY, help="Of the completions.")
    ] = None
    right: Annotated[
        str | None,
        typer.Option(
            "--right",
            metavar="R",
            rich_help_panel=POLICY,
            help="The column 'right', from the rows' reference: number (the last numbers are the same), exact, "
            "contains, or module:function of (completion, reference). No judge is told.",
        ),
    ] = None


def takes_job(command: Callable[..., None]) -> Callable[..., None]:
    """Give ``command(job, ...)`` the options of its first parameter's class in place of that parameter."""
    own = get_type_hints(command, include_extras=True)
    signature = inspect.signature(command)
    options: type[JudgeOptions] = own[next(iter(signature.parameters))]
    shared = get_type_hints(options, include_extras=True)
    defaults = {field.name: field.default for field in fields(options)}
    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=shared[name], default=_default(default))
        for name, default in defaults.items()
    ]
    others = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=own[name])
        for name, parameter in list(signature.parameters.items())[1:]
    ]

    @functools.wraps(command)
    def wrapped(**values: Any) -> None:
        job = options(**{name: values.pop(name) for name in defaults})
        command(job, **values)

    # SAMPLES, then the command's own options, then the shared ones.
    needed = [parameter for parameter in parameters if parameter.default is inspect.Parameter.empty]
    parameters = [*needed, *others, *(parameter for parameter in parameters if parameter not in needed)]
    wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return wrapped


def _default(value: Any) -> Any:
    from dataclasses import MISSING

    return inspect.Parameter.empty if value is MISSING else value
