"""The compression of one base: its search, the whole portfolio beside it, and what came of both."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from agentlab.compress.config import CompressConfig, point
from agentlab.compress.goal import read_goal
from agentlab.compress.meter import Meter
from agentlab.compress.objective import Measures, Recipes, Workshop
from agentlab.compress.recipe import Recipe
from agentlab.compress.result import BASE, WORDS, ModelResult
from agentlab.compress.verdict import Base, verdict
from agentlab.models.base_model import BaseFile, imported
from agentlab.runs.branch import Branch
from agentlab.runs.context import Context
from agentlab.runs.events import noted
from agentlab.runs.run import Run
from agentlab.search.screen import Rules
from agentlab.search.space import SearchSpace
from agentlab.search.types import Params, Proposal, TrialResult
from agentlab.study.evaluator import Fronts
from agentlab.study.executor import LocalExecutor, TrialExecutor
from agentlab.study.setup import Setup
from agentlab.study.state import Candidate, TrialState, rebuild
from agentlab.study.steps import search

PORTFOLIO = "portfolio"  # the branch in which what the search left out of it is carried out


class Part:
    """One base of a run: its studies, its exports and what came of them. The only one has no name."""

    def __init__(self, run: Run, base: BaseFile, name: str, config: CompressConfig) -> None:
        self.run, self.base, self.name, self._config = run, base, name, config
        self._goal = read_goal(config.goal)
        self._study: Run | Branch = Branch(run, name) if name else run
        self._beside = Branch(run, f"{name}/{PORTFOLIO}" if name else PORTFOLIO)
        self._place = f"exports/{name}" if name else "exports"
        self._exports = run.folder.folder(self._place).path

    @property
    def searched(self) -> list[TrialState]:
        """The trials of the search."""
        return list(rebuild(self._study.events).trials)

    def search(self, workshop: Workshop, meter: Meter, stop: Callable[[], None]) -> None:
        """The search to its end, then what is left of the portfolio.

        Raises:
            OverBudgetError: see `Meter`.
            Whatever `stop` raises.
        """
        config = self._config
        space = SearchSpace.of(config.searched, config.rules)
        starts = [Proposal(point(recipe, space), PORTFOLIO) for recipe in config.recipes]
        if len(rebuild(self._beside.events).judged) < len(starts):
            dense = f"{workshop.dense:,} bytes in bfloat16"  # what is wrong with the base is no trial's
            self.run.stream("base.loading", dense)

        def check() -> None:
            stop()
            meter.check()

        def executor(branch: Run | Branch) -> TrialExecutor:
            beside = branch is self._beside

            def place(candidate: Candidate) -> Path:
                return self._exports / (f"{PORTFOLIO}-{candidate.name}" if beside else candidate.name)

            def known(params: Params) -> TrialResult | None:
                ended = {space.key(t.proposal.params): t.result for t in self.searched} if beside else {}
                return ended.get(space.key(params))

            return LocalExecutor(Recipes(workshop, self._goal, meter, place, known, self.tidy))

        setup = Setup(
            words=WORDS,
            rules=Rules(space),
            starts=starts[: config.first],
            base=config.sampler,
            budget={"trials": config.budget.trials},
            evaluator=lambda *_: Fronts(WORDS),
            executor=executor,
            check=check,
        )
        search(setup.study(self._study, config.seed), check)
        beside = replace(setup, starts=starts, budget={"trials": len(starts)})
        search(beside.study(self._beside, config.seed), check)

    def result(self) -> ModelResult:
        """What came of it so far."""
        measured = noted(self.run.events, BASE, self.name)
        odd = measured.get("odd", (0, 0))
        sizes = measured.get("dense", 0), measured.get("source", 0)
        base = Base(self.base.name, *sizes, measured.get("stored"), bool(measured.get("grid")), (odd[0], odd[1]))
        beside = rebuild(self._beside.events).trials
        return verdict(base, self._goal, self.searched, beside, self.run.path, self._place)

    def tidy(self) -> None:
        """Remove all exports but the front and the winner: they are large, never come back, and have a recipe."""
        kept = self.result().kept.values()
        for each in sorted(self._exports.iterdir()) if self._exports.is_dir() else []:
            if each.name not in kept:
                shutil.rmtree(each) if each.is_dir() else each.unlink()


class Late:
    """A workshop that opens when it is first needed: a run that only lacks its report loads no model."""

    def __init__(self, come: Callable[[], Workshop]) -> None:
        self._come = come

    @cached_property
    def _there(self) -> Workshop:
        return self._come()

    @property
    def dense(self) -> int:
        """See `Workshop`."""
        return self._there.dense

    def make(self, recipe: Recipe, out: Path) -> Measures:
        """See `Workshop`."""
        return self._there.make(recipe, out)


def opened(part: Part, config: CompressConfig, context: Context, threads: int, meter: Meter) -> Workshop:
    """The workshop of a base, which is read now."""
    from agentlab.compress.workshop import RealWorkshop

    part.run.stream("base.loading", part.base.name)
    meter.stage("open")
    base = part.base
    return RealWorkshop(config, imported(base), base.file, part.name, part.run, context, threads, meter)
