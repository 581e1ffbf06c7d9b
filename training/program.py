"""What every program here is on a command line: one recipe in, an exit status out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from transformers.utils.logging import disable_progress_bar

from flexreward.errors import UserError
from training.recipe import Strict, load

Recipe = TypeVar("Recipe", bound=Strict)


def program(
    name: str, description: str | None, train: Callable[[Recipe], object], recipe: type[Recipe]
) -> Callable[[list[str] | None], int]:
    """The ``main`` of ``python -m NAME RECIPE.yaml``. Where it is given no arguments, it takes the command line's.

    It returns 0 when what ``train`` makes is in place, 2 with one line when the user has something to mend.
    """

    def main(arguments: list[str] | None = None) -> int:
        parser = argparse.ArgumentParser(prog=f"python -m {name}", description=description)
        parser.add_argument("recipe", type=Path)
        disable_progress_bar()  # the loading of weights; the training prints lines of its own
        try:
            train(load(parser.parse_args(arguments).recipe, recipe))
        except UserError as error:
            print(error, file=sys.stderr)
            return 2
        return 0

    return main
