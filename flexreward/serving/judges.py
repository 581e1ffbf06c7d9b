"""The judges of a server by name: which one is asked, by which template, and which model it runs by now."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

from flexreward.config import JudgeRecipe, open_judge
from flexreward.engines.base import Engine
from flexreward.engines.ray import RayEngine
from flexreward.errors import RecipeError, SampleError, UserError
from flexreward.groups import Method
from flexreward.judge import Judge
from flexreward.ledger import Ledger
from flexreward.serving.admission import Admission
from flexreward.serving.contract import Caller
from flexreward.templates import load_template
from flexreward.templates.fitting import fitting_id
from flexreward.types import JudgeRequest

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class OpenJudge:
    """One of the server's judges, its engine open."""

    recipe: JudgeRecipe
    engine: Engine
    admission: Admission


def usual_template(recipe: JudgeRecipe) -> str:
    """The recipe's, or the simplest: with a stop, that is one where somebody wins."""
    return recipe.template or ("score" if recipe.stop_error is None else "pair")


class Judges(dict[str, OpenJudge]):
    """By name; the first answers where none is named, as by an empty one.

    Args:
        share_verdicts: Whether callers find each other's replies.
    """

    def __init__(self, judges: Mapping[str, OpenJudge], *, ledger: Ledger, share_verdicts: bool) -> None:
        super().__init__(judges)
        self._ledger = ledger
        self._share = share_verdicts
        self._opened: dict[tuple[str, str, str], Judge] = {}

    def name_of(self, judge: str) -> str:
        return judge or next(iter(self))

    def named(self, name: str) -> OpenJudge:
        """Raises RecipeError where there is no such judge."""
        if not name:
            return next(iter(self.values()))
        if name not in self:
            raise RecipeError(f"judge: no judge {name!r}, expected one of {', '.join(self)}")
        return self[name]

    def usual(self, judge: str) -> str:
        """The template where nothing says which one fits."""
        return usual_template(self.named(judge).recipe)

    def fitting(self, request: JudgeRequest, judge: str) -> str:
        """The recipe's template where it judges so many completions, else the one that fits."""
        own = self.named(judge).recipe.template
        fits = fitting_id(request.completions, request.media)
        if own is not None and (fits is None or self._judges_as_many(own, len(request.completions))):
            return own
        if fits is None:
            raise SampleError("no bundled template shows such completions with such media; name one by template")
        return fits

    @staticmethod
    def _judges_as_many(template: str, count: int) -> bool:
        takes = load_template(template).num_completions
        return takes == count or (takes is None and count > 1)

    def open(self, name: str, template: str, caller: Caller) -> Judge:
        """The judge with a template, whose verdicts are this caller's unless all share them."""
        namespace = "" if self._share else caller.namespace
        key = (name, template, namespace)
        if key not in self._opened:
            one = self.named(name)
            opened = open_judge(one.recipe, template=template, ledger=self._ledger, engine=one.engine)
            self._opened[key] = opened.variant(namespace=namespace)
        return self._opened[key]

    def check(
        self, request: JudgeRequest, *, caller: Caller, judge: str = "", template: str = "", where: str = "the request"
    ) -> None:
        """Refuse a request that the judge cannot be shown.

        Raises:
            UserError: One line that begins with ``where``.
        """
        try:
            self.open(judge, template or self.fitting(request, judge), caller).template.render(request)
        except UserError as error:
            raise SampleError(f"{where}: {error}") from error

    def shown_at_once(self, judge: str, method: Method) -> int | None:
        """Completions in one judgment for such rewards; ``None`` is any number."""
        if method in ("win_rate", "bradley_terry"):
            return 2
        own = self.named(judge).recipe.template
        if method == "listwise" or own is None:
            return None if method == "listwise" else 1
        return load_template(own).num_completions

    def followed(self, judge: str, engine: Engine) -> bool:
        """Whether a judge's engine runs another model than ``engine`` does: from now on the judge is that one.

        A calibrated judge follows none, since its calibrator was fitted to the model that it had.
        """
        opened = self.named(judge)
        if opened.recipe.calibrator is not None:
            return False
        if opened.engine is engine and isinstance(engine, RayEngine) and (newer := engine.successor()) is not None:
            name = self.name_of(judge)
            log.warning("the engine of the judge %s runs another model now", name)
            self[name] = replace(opened, engine=newer)
            self._opened = {key: one for key, one in self._opened.items() if self.name_of(key[0]) != name}
        return self.named(judge).engine is not engine
