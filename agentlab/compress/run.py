"""`agentlab compress`: checks, a search that begins with known recipes, the whole portfolio beside it, a report."""

import importlib.util
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from agentlab import machine
from agentlab.compress.config import CompressConfig, point
from agentlab.compress.goal import Goal, read_goal
from agentlab.compress.intensity import Intensity, asked, key_of, known
from agentlab.compress.meter import Meter, OverBudgetError, Source, Spent, best_source
from agentlab.compress.objective import Measures, Recipes, Workshop
from agentlab.compress.recipe import ON_A_GRID, Recipe
from agentlab.compress.report import write_compress_report
from agentlab.compress.result import BASE, SPENT, WORDS, CompressPlan, CompressResult, plan_of
from agentlab.compress.texts import SHIPPED, pieces, windows
from agentlab.compress.verdict import Base, verdict
from agentlab.errors import GateError, MissingExtraError, ModelFileError, StorageError
from agentlab.models.base_model import BaseFile, find_base, imported
from agentlab.runs.branch import Branch
from agentlab.runs.context import Context
from agentlab.runs.events import noted
from agentlab.runs.run import Outcome, Run
from agentlab.search.screen import Rules
from agentlab.search.space import SearchSpace
from agentlab.search.types import Params, Proposal, TrialResult
from agentlab.study.evaluator import Fronts
from agentlab.study.executor import LocalExecutor
from agentlab.study.setup import Setup
from agentlab.study.state import Candidate, rebuild
from agentlab.study.steps import search
from agentlab.train.base import load_tokenizer, outline

if TYPE_CHECKING:
    from agentlab.study.executor import TrialExecutor

THREADS, INTENSITY = "threads.chosen", "intensity.chosen"
_PACKAGES = {"kquant": "llama_cpp", "bitsandbytes": "bitsandbytes"} | dict.fromkeys(ON_A_GRID, "compressed_tensors")
_EXPORTS = 4  # that lie on the disk at a time, about: those on the front
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
        result, outcome = self._verdict(run, self._energy(run, source), over)
        self._tidy(run)
        shutil.rmtree(run.folder.folder("stages").path, ignore_errors=True)  # made again where they are needed
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

        before = sum(_spent(run).values(), Spent())
        return Meter(source.joules, self._intensity(run).grams, self.config.budget.limits, before, record)

    def _intensity(self, run: Run) -> Intensity:
        """Of the grid, as it was when the run began."""
        if not noted(run.events, INTENSITY):
            energy, context = self.config.energy, self.context
            found = known(energy.intensity)
            if energy.zone is not None:
                cache = context.workspace.root / ".agentlab" / "compress" / "intensity.json"
                found = asked(energy.service, energy.zone, key_of(context.env), cache, found)
            run.emit(INTENSITY, **asdict(found))
        return Intensity(**noted(run.events, INTENSITY))

    def _energy(self, run: Run, source: Source) -> str:
        intensity, kind = self._intensity(run), "measured" if source.measured else "estimated"
        return f"{kind}: {source.label}; {intensity.grams:g} g a kWh, {intensity.source}"

    def _opened(self, run: Run, threads: int, meter: Meter) -> Workshop:
        from agentlab.compress.workshop import RealWorkshop

        run.stream("base.loading", self.base.name)
        base = imported(self.base)
        _check_base(base, self.config, self.context.workspace.root)
        return RealWorkshop(self.config, base, self.base.file, run, self.context, threads, meter)

    def _verdict(self, run: Run, energy: str = "", over: str | None = None) -> tuple[CompressResult, Outcome]:
        measured = noted(run.events, BASE)
        odd = measured.get("odd", (0, 0))
        sizes = measured.get("dense", 0), measured.get("source", 0)
        base = Base(self.base.name, *sizes, measured.get("stored"), bool(measured.get("grid")), (odd[0], odd[1]))
        searched, beside = rebuild(run.events).trials, rebuild(Branch(run, PORTFOLIO).events).trials
        exports = str(run.folder.folder("exports").path)
        return verdict(base, self.goal, searched, beside, _spent(run), energy, over, exports)

    def _tidy(self, run: Run) -> None:
        """Remove the exports that are not on the front: they are large, never come back to it, and have a recipe."""
        result, _ = self._verdict(run)
        kept = {row.file for row in result.rows if row.front}
        folder = run.folder.folder("exports").path
        for each in sorted(folder.iterdir()) if folder.is_dir() else []:
            if each.name not in kept:
                shutil.rmtree(each) if each.is_dir() else each.unlink()

    def _search(self, run: Run, workshop: Workshop, meter: Meter) -> None:
        """The search to its end, then what is left of the portfolio."""
        config = self.config
        space = SearchSpace.of(config.searched, config.rules)
        starts = [Proposal(point(recipe, space), PORTFOLIO) for recipe in config.recipes]
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

            return LocalExecutor(Recipes(workshop, self.goal, meter, place, known, lambda: self._tidy(run)))

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


def _spent(run: Run) -> dict[str, Spent]:
    """What each stage has cost so far."""
    found: dict[str, Spent] = {}
    for event in run.events:
        if event.type == SPENT:
            found[event.id] = found.get(event.id, Spent()) + Spent(**event.data)
    return found


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


def prepare(config: CompressConfig, context: Context) -> CompressExperiment:
    """The way in: everything that can be wrong with the input is found here, before a run folder exists.

    Raises:
        MissingFileError: there is no such base or text.
        ModelFileError: the base is of an architecture that cannot be compressed, or too large for the memory.
        UsageError, DataError: the goal says nothing; there is too little text.
        StorageError: the disk is too full.
        MissingExtraError, MissingKeyError: a package is not there that a recipe needs, or the key of the service.
    """
    base = find_base(config.base, context.workspace)
    if config.energy.zone is not None:
        key_of(context.env)
    text = config.text
    parts = pieces(None if text.file is None else context.workspace.resolve(text.file))
    SearchSpace.of(config.searched, config.rules)
    searched = getattr(config.searched.root.get("quantizer"), "choices", ())
    _check_packages({*searched, *(recipe.quantizer for recipe in config.recipes)} - {"none"})
    if base.path.is_dir():  # else it is imported first, and this is found then
        _check_base(base.path, config, context.workspace.root)
        counts = (text.calibration, text.held_out)
        windows(load_tokenizer(base.path), parts, text.file or SHIPPED, counts, text.length)
    return CompressExperiment(config, context, base, read_goal(config.goal))


def _check_packages(quantizers: Iterable[str]) -> None:
    for quantizer in sorted(quantizers):
        package = _PACKAGES[quantizer]
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(
                f"{quantizer} needs the package {package}, which is not installed.",
                hint=f"pip install {package.replace('_', '-')}, or leave {quantizer} out of `portfolio` and `space`.",
            )


def _check_base(folder: Path, config: CompressConfig, root: Path) -> None:
    """See that a checkpoint can be compressed here: its architecture, and room in memory and on the disk."""
    from agentlab.compress.anatomy import check_architecture
    from agentlab.compress.calibration import memory_needed, statistics_bytes

    model = outline(folder)
    check_architecture(model.config)
    text, weights = config.text, sum(each.numel() for each in model.parameters())
    logits = 4 * text.length * int(model.config.vocab_size)
    statistics = memory_needed(model.config, text.calibration, text.length)
    recovery = 3 * config.recovery.batch * logits if any(recipe.recovery != "none" for recipe in config.recipes) else 0
    needed = 2 * 4 * weights + max(statistics, recovery, text.held_out * logits)
    there = machine.memory().available
    if needed > there:
        raise ModelFileError(
            f"{folder.name} takes {needed / 2**30:.1f} GiB of memory to compress; there are {there / 2**30:.1f} GiB.",
            hint="Use a smaller base, or less text: --set text.calibration=8 --set text.held_out=4.",
        )
    cuts = len({(recipe.structure, recipe.kept, recipe.recovery) for recipe in config.recipes if recipe.shaped})
    kept = text.held_out * logits + statistics_bytes(model.config)  # and a file in float32, of the base and each cut
    needed = kept + 4 * weights + cuts * (2 * 4 * weights + statistics_bytes(model.config)) + _EXPORTS * 2 * weights
    free = shutil.disk_usage(root).free
    if needed > free:
        raise StorageError(
            f"Compressing {folder.name} takes {needed / 2**30:.1f} GiB on the disk; {root} has {free / 2**30:.1f} GiB.",
            hint="Free some space, or choose another workspace with AGENTLAB_HOME.",
        )
