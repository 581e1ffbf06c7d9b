"""``flexreward check``: a recipe read, nothing started."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from flexreward.config import JudgeRecipe
    from flexreward.serving.recipe import Scaling


def check(
    recipe: Annotated[
        str,
        typer.Argument(metavar="RECIPE", help="A recipe.yaml of a judge or a server, or anything that --judge takes."),
    ],
) -> None:
    """Load a recipe and say what it would start. No model is loaded and no code that it names is imported.

    [bold]flexreward check recipes/judge.yaml[/bold]
    """
    from flexreward.config import resolve_judge
    from flexreward.errors import RecipeError
    from flexreward.serving.recipe import is_serve_recipe, load_serve_recipe

    if not is_serve_recipe(recipe):
        print(f"{_judge(resolve_judge(recipe), recipe)}: ok")
        return
    server = load_serve_recipe(recipe)
    judges = [
        f"{name}: {_copies(one.replicas)} of {_judge(one.judge, f'{recipe}: {name}')}"
        for name, one in server.judges.items()
    ]
    serves = f"serves http://{server.host}:{server.port}"
    try:
        reward, _ = server.keys()
    except RecipeError:  # keys may lie elsewhere; all else is told first
        print(f"{serves}; {'; '.join(judges)}")
        raise
    keyed = f"behind {len(reward)} key(s)" if reward else "without a key"
    print(f"{serves} {keyed}; {'; '.join(judges)}: ok")


def _copies(copies: int | Scaling) -> str:
    if isinstance(copies, int):
        return f"{copies} {'copy' if copies == 1 else 'copies'}"
    return f"{copies.min} to {copies.max} copies"


def _judge(resolved: JudgeRecipe, recipe: str) -> str:
    """What a judge's recipe would start, in one line."""
    from pathlib import Path

    from flexreward.calibrator import load_calibrator
    from flexreward.engines import ENGINES
    from flexreward.engines.adapter import Adapter
    from flexreward.errors import RecipeError
    from flexreward.stops import name_of_stop
    from flexreward.templates import load_template

    if resolved.engine not in ENGINES and ":" not in resolved.engine:
        known = f"{', '.join(ENGINES)} or package.module:Class"
        raise RecipeError(f"{recipe}: engine: no engine {resolved.engine!r}, expected one of {known}")
    if resolved.engine == "scripted":
        from flexreward.engines.scripts import script_named

        script_named(resolved.model)
    at = []
    if resolved.engine == "openai":
        from flexreward.engines.remote import read_options

        remote = read_options(resolved.model, resolved.options)
        at.append(f"at {remote.base_url} (its weights cannot be verified)")
    if resolved.lora:
        at.append(f"with the adapter {resolved.lora} (rank {Adapter(Path(resolved.lora)).rank})")
    more = [f"{resolved.waits} wait(s)"] if resolved.waits else []
    if resolved.think:
        more.append(f"at most {resolved.think} tokens of thought, then a forced answer")
    if resolved.context == "cut":
        more.append("prompts that are too long cut at their head")
    if resolved.stop_error is not None:
        more.append(f"stop {name_of_stop(resolved.stop_error)}")
    if resolved.media:
        more.append("media " + ", ".join(f"{name} {value}" for name, value in resolved.media.items()))
    if resolved.calibrator:
        curve = load_calibrator(Path(resolved.calibrator))
        more.append(f"rewards calibrated on {curve.n} rows of {curve.benchmark or 'unknown data'} ({curve.kind})")
    template = load_template(resolved.template).id if resolved.template else "the template that fits the completions"
    here = " (a folder here)" if Path(resolved.model).is_dir() else ""
    drawn = "greedy" if resolved.temperature == 0 else f"temperature {resolved.temperature:g}"
    orders = "both orders" if resolved.both_orders else "one order"
    parts = [*at, template, orders, f"{resolved.votes} vote(s)", drawn, *more]
    return f"{resolved.model}{here} on {resolved.engine}, {', '.join(parts)}"
