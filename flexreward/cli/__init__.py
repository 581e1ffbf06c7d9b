"""The commands. Each reads its options, calls the library, and returns an exit status.

0 done, 1 finished with more unscored than allowed (or, for doctor, something is broken), 2 the user's mistake in one
line, 130 interrupted with the work kept.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable

import typer

from flexreward.cli.bench import bench
from flexreward.cli.best_of_n import best_of_n
from flexreward.cli.check import check
from flexreward.cli.compare import compare
from flexreward.cli.doctor import doctor
from flexreward.cli.eval import eval_
from flexreward.cli.judge import judge
from flexreward.cli.pairs import pairs
from flexreward.cli.report import report
from flexreward.cli.serve import serve
from flexreward.cli.store import store_app
from flexreward.errors import UserError

app = typer.Typer(
    help="A judge that thinks before it scores, and whose scores can be used as rewards.",
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    add_completion=False,
)


def _add(command: Callable[..., None], name: str | None = None) -> None:
    paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    app.command(name, help="\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs))(command)


_add(judge)
_add(best_of_n, "best-of-n")
_add(pairs)
_add(eval_, "eval")
_add(compare)
_add(report)
_add(serve)
_add(check)
_add(doctor)
_add(bench)
app.add_typer(store_app, name="store")

# Typer shows a wrong flag in a box of several lines; its base class lets us show it in one. Typer does not export it,
# and carries its own copy of click in some versions and not in others.
WrongUsage: type[Exception] = typer.BadParameter.__mro__[2]


def main() -> None:
    """The entry point ``flexreward``."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command; its exit status."""
    try:
        status = app(arguments or ["--help"], prog_name="flexreward", standalone_mode=False)
    except UserError as error:
        return _mistake(str(error))
    except WrongUsage as error:
        message = error.format_message()  # type: ignore[attr-defined]
        return _mistake(f"{message} (--help lists the options)") if message else 2  # without one, help was shown
    except typer.Abort:
        return 130
    return status if isinstance(status, int) else 0


def _mistake(message: str) -> int:
    # Messages quote what users and files say: no line breaks, and nothing that a terminal would act on.
    line = "".join(char if char.isprintable() else " " for char in message)
    print(f"flexreward: {line}", file=sys.stderr)
    return 2
