"""`agentlab compress`: checks, a search that begins with known recipes, the whole portfolio beside it, a report."""

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from agentlab import machine
from agentlab.compress.config import CompressConfig
from agentlab.compress.goal import Goal, read_goal
from agentlab.compress.meter import Meter, OverBudgetError, Source, Spent, best_source
from agentlab.compress.objective import Measures, Recipes, Workshop
from agentlab.compress.recipe import Recipe
from agentlab.compress.report import write_compress_report
from agentlab.compress.result import BASE, SPENT, WORDS, CompressPlan, CompressResult, plan_of
from agentlab.compress.texts import SHIPPED, pieces, windows
from agentlab.compress.verdict import Base, verdict
from agentlab.errors import GateError
from agentlab.models.base_model import BaseFile, find_base, imported
from agentlab.runs.branch import Branch
from agentlab.runs.context import Context
from agentlab.runs.events import noted
from agentlab.runs.run import Outcome, Run
from agentlab.search.screen import Rules
from agentlab.search.space import SearchSpace
from agentlab.search.types import Params, Proposal, TrialResult, Value
from agentlab.study.evaluator import Fronts
from agentlab.study.executor import LocalExecutor
from agentlab.study.setup import Setup
from agentlab.study.state import Candidate, rebuild
from agentlab.study.steps import search
from agentlab.train.base import load_tokenizer, outline

if TYPE_CHECKING:
    from agentlab.study.executor import TrialExecutor

THREADS = "threads.chosen"
PORTFOLIO = "portfolio"  # the branch in which what the search left out of it is carried out


@dataclass(frozen=True)
class CompressExperiment:
    """A checked base and goal. Implements `commands.Experiment`."""

    config: CompressConfig
    context: Context
    base: BaseFile
    goal: Goal

    def plan(self) -> CompressPlan:
        """What it would do and cost."""
        return plan_of(self.config, self.base, self.goal)

    def run(self, run: Run) -> tuple[CompressResult, Outcome]:
        """Search, or go on with a search, and report.

        Raises:
            Interrupted: a signal asked to stop; everything so far is in the run.
            RunMismatchError: base or texts are not those that the run began with.
            GateError: no recipe reaches the goal; all is reported.
        """
        run.emit("study.opened", summary=self.plan().summary, done=len(rebuild(run.events).trials), total=self._total)
        source, over = best_source(self.config.energy.watts), None
        meter = self._meter(run, source)
        threads = machine.threads(self.config.threads or noted(run.events, THREADS).get("count"))
        run.emit_once(THREADS, count=threads)
        workshop = Late(lambda: self._opened(run, threads, meter))
        try:
            with machine.torch_threads(threads):
                self._search(run, workshop, meter)
        except OverBudgetError as error:
            over = error.message
        finally:
            meter.flush()
        result, outcome = self._verdict(run, meter.total, source.label, over)
        _tidy(run, result)
        write_compress_report(run, result)
        if result.winner is None:
            raise GateError(result.sentence, hint="The report shows what was tried. Ask for less, or raise the budget.")
        return result, outcome

    @property
    def _total(self) -> int:
        return self.config.budget.trials

    def _meter(self, run: Run, source: Source) -> Meter:
        def record(stage: str, spent: Spent) -> None:
            run.emit(SPENT, stage, **asdict(spent))

        before = sum((Spent(**event.data) for event in run.events if event.type == SPENT), Spent())
        return Meter(source.joules, self.config.energy.intensity, self.config.budget.limits, before, record)

    def _opened(self, run: Run, threads: int, meter: Meter) -> Workshop:
        from agentlab.compress.workshop import RealWorkshop

        run.stream("base.loading", self.base.name)
        base = imported(self.base)
        return RealWorkshop(self.config, base, self.base.file, run, self.context, threads, meter)

    def _verdict(self, run: Run, spent: Spent, energy: str, over: str | None) -> tuple[CompressResult, Outcome]:
        measured = noted(run.events, BASE)
        odd = measured.get("odd", (0, 0))
        sizes = measured.get("dense", 0), measured.get("source", 0)
        base = Base(self.base.name, *sizes, measured.get("stored"), (odd[0], odd[1]))
        searched, beside = rebuild(run.events).trials, rebuild(Branch(run, PORTFOLIO).events).trials
        exports = str(run.folder.folder("exports").path)
        return verdict(base, self.goal, searched, beside, spent, energy, over, exports)

    def _search(self, run: Run, workshop: Workshop, meter: Meter) -> None:
        """The search to its end, then what is left of the portfolio."""
        config = self.config
        space = SearchSpace.of(config.searched, config.rules)
        starts = [Proposal(_params(recipe, space), PORTFOLIO) for recipe in config.recipes]
        if len(rebuild(Branch(run, PORTFOLIO).events).judged) < len(starts):
            run.stream("base.loading", f"{workshop.dense:,} bytes in bfloat16")  # what is wrong with it is no trial's

        def check() -> None:
            self.context.stop.check()
            meter.check()

        def executor(branch: Run | Branch) -> "TrialExecutor":
            def place(candidate: Candidate) -> Path:
                prefix = f"{branch.name}-" if isinstance(branch, Branch) else ""
                return run.folder.folder("exports").path / f"{prefix}{candidate.name}"

            def known(params: Params) -> TrialResult | None:
                if not isinstance(branch, Branch):
                    return None
                ended = {space.key(t.proposal.params): t.result for t in rebuild(run.events).trials}
                return ended.get(space.key(params))

            return LocalExecutor(Recipes(workshop, self.goal, meter, place, known))

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
        search(setup.study(run, config.seed), check)
        beside = replace(setup, starts=starts, budget={"trials": len(starts)})
        search(beside.study(Branch(run, PORTFOLIO), config.seed), check)


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


def _params(recipe: Recipe, space: SearchSpace) -> dict[str, Value]:
    """The recipe as a point: the parameters that are active."""
    return space.reduce(recipe.model_dump())


def _tidy(run: Run, result: CompressResult) -> None:
    """Keep the exports on the front, and remove the others: they are large, and made again by their recipe."""
    kept = {row.file for row in result.rows if row.front}
    folder = run.folder.folder("exports").path
    for each in sorted(folder.iterdir()) if folder.is_dir() else []:
        if each.name not in kept:
            shutil.rmtree(each) if each.is_dir() else each.unlink()


def prepare(config: CompressConfig, context: Context) -> CompressExperiment:
    """The way in: everything that can be wrong with the input is found here, before a run folder exists.

    Raises:
        MissingFileError: there is no such base or text.
        ModelFileError: the base is of an architecture that cannot be compressed.
        UsageError, DataError: the goal says nothing; there is too little text.
        MissingExtraError: a package is not there that a recipe needs.
    """
    base = find_base(config.base, context.workspace)
    text = config.text
    parts = pieces(None if text.file is None else context.workspace.resolve(text.file))
    SearchSpace.of(config.searched, config.rules)
    if base.path.is_dir():  # else it is imported first, and this is found then
        from agentlab.compress.anatomy import check_architecture

        check_architecture(outline(base.path).config)
        counts = (text.calibration, text.held_out)
        windows(load_tokenizer(base.path), parts, text.file or SHIPPED, counts, text.length)
    return CompressExperiment(config, context, base, read_goal(config.goal))
