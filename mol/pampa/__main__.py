"""``python -m mol.pampa RECIPE``."""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from flexreward.errors import UserError

app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode="rich", add_completion=False)
WrongUsage: type[Exception] = typer.BadParameter.__mro__[2]


def pampa(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A YAML file; recipes/mol has three.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Instead of the recipe's.", show_default=False)
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option("--task", metavar="NAME", help="One of the recipe's label definitions.")
    ] = None,
    style: Annotated[
        list[str] | None, typer.Option("--style", metavar="NAME", help="One of the recipe's ways to ask.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", metavar="N", min=1, help="Test and validate on N molecules of each fold, to try it."),
    ] = None,
    controls: Annotated[
        bool, typer.Option("--controls", help="The constant and the forest alone; no model is loaded.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Read, split, look for leaks, say what would be asked, and stop.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="The results as one line on stdout; the table on stderr.")
    ] = False,
) -> None:
    """Ask models for one of two labels of a molecule, and tell how good they are beside what knows nothing.

    A recipe says where the molecules are (the published pampa.json, a file of TDC, any table with SMILES), how their
    labels are made (each definition is a task with a table of its own), how they are split (scaffold, k-fold, a file),
    in which words models are asked, how a judge chooses among candidates, and which models.

    The table has a row for each method: the constant answer, a random forest over fingerprints that saw the training
    part alone, and each model greedy, with a threshold set on the validation part, and with the best of N candidates
    by the judge. Balanced accuracy is first, since a constant has 50 % of it whatever the labels' shares are. Answers
    that cannot be read are wrong; the published reading, which leaves them out, stands beside. Below are the judge's
    bins of scores among answers that say the same, and differences between methods by a paired bootstrap.

    Everything that is bought is kept in --out: after a crash, run the same again. results.json has all figures,
    answers.jsonl and candidates.jsonl every reply, report.md the table with a picture.

    A test molecule (by connectivity block of its InChIKey) in any file of trained_on is an error that names it.

    [bold]python -m mol.pampa recipes/mol/pampa.yaml --controls[/bold]: what any model must be above

    [bold]python -m mol.pampa recipes/mol/pampa.yaml --limit 8[/bold]: try the models on eight molecules

    [bold]python -m mol.pampa recipes/mol/pampa.yaml[/bold]: the table, beside the published one
    """
    from mol.pampa.prepared import prepare
    from mol.pampa.recipe import load_recipe
    from mol.pampa.run import evaluate
    from mol.pampa.told import report_lines, write_report

    loaded = load_recipe(recipe)
    if out is not None:
        loaded = loaded.model_copy(update={"out": out})
    prepared = prepare(loaded, limit=limit, tasks=task or (), styles=style or ())
    if check:
        num_best = sum(model.best_of_n for model in loaded.models.values())
        num_candidates = loaded.best_of_n.candidates if loaded.best_of_n else 0
        num_styles, num_tested = len(prepared.styles), len(prepared.tested)
        print(
            f"{len(prepared.source.rows)} molecules, {len(prepared.folds)} fold(s), {num_tested} tested; "
            f"{len(loaded.models) * num_styles * len(prepared.asked)} greedy answers, "
            f"{num_best * num_styles * num_tested * num_candidates} candidates to draw and to judge; no leak"
        )
        return
    results = evaluate(prepared, models=not controls)
    write_report(results, loaded.out)
    for line in report_lines(results):
        print(line, file=sys.stderr if as_json else sys.stdout)
    if as_json:
        print(json.dumps(results, ensure_ascii=False))


# Typer keeps the line breaks of a docstring; its paragraphs are what was meant.
_HELP = (" ".join(paragraph.split()) for paragraph in inspect.cleandoc(pampa.__doc__ or "").split("\n\n"))
app.command(help="\n\n".join(_HELP))(pampa)


def run(arguments: list[str]) -> int:
    """One run; its exit status: 0 done, 2 the user's mistake in one line, 130 interrupted with the work kept."""
    try:
        status = app(arguments or ["--help"], prog_name="python -m mol.pampa", standalone_mode=False)
    except UserError as error:
        return _mistake(str(error))
    except WrongUsage as error:
        message = error.format_message()  # type: ignore[attr-defined]
        return _mistake(f"{message} (--help lists the options)") if message else 2
    except (typer.Abort, KeyboardInterrupt):
        print("mol.pampa: interrupted; what was bought is kept, run the same again to go on", file=sys.stderr)
        return 130
    return status if isinstance(status, int) else 0


def _mistake(message: str) -> int:
    line = "".join(char if char.isprintable() else " " for char in message)
    print(f"mol.pampa: {line}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
