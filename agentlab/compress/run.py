"""`agentlab compress`: checks, a search that begins with known recipes, the whole portfolio beside it, a report."""

import importlib.util
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
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
from agentlab.compress.result import BASE, SPENT, WORDS, CompressPlan, CompressResult, ModelResult, plan_of
from agentlab.compress.texts import SHIPPED, pieces, windows
from agentlab.compress.verdict import Base, answer, verdict
from agentlab.errors import GateError, MissingExtraError, ModelFileError, StorageError, UsageError
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
from agentlab.study.state import Candidate, TrialState, rebuild
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
    """Checked bases and a goal. Implements `commands.Experiment`."""

    config: CompressConfig
    context: Context
    bases: tuple[BaseFile, ...]
    goal: Goal

    def plan(self) -> CompressPlan:
        """What it would do and cost."""
        return plan_of(self.config, self.bases, self.goal)

    def run(self, run: Run) -> tuple[CompressResult, Outcome]:
        """Search, or go on with a search, and report.

        Raises:
            Interrupted: a signal asked to stop; everything so far is in the run.
            RunMismatchError: base or texts are not those that the run began with.
            GateError: no recipe of any base reaches the goal; all is reported.
        """
        parts = [Part(run, base, base.path.name if len(self.bases) > 1 else "", self.goal) for base in self.bases]
        done, total = sum(len(part.searched) for part in parts), self.config.budget.trials * len(parts)
        run.emit("study.opened", summary=self.plan().summary, done=done, total=total)
        source, over = best_source(self.config.energy.watts), None
        meter = self._meter(run, source)
        threads = machine.threads(self.config.threads or noted(run.events, THREADS).get("count"))
        run.emit_once(THREADS, count=threads)
        try:
            with machine.torch_threads(threads):
                for part in parts:
                    self._search(part, Late(partial(self._opened, part, threads, meter)), meter)
        except OverBudgetError as error:
            over = error.message
        finally:
            meter.flush()
        for part in parts:
            part.tidy()
        if over is None:  # else more budget may go on with them
            shutil.rmtree(run.folder.folder("stages").path, ignore_errors=True)
        models = [part.result() for part in parts]
        result, outcome = answer(models, self.goal, _spent(run), self._energy(run, source), over)
        write_compress_report(run, result)
        if not any(model.winner for model in models):
            raise GateError(result.sentence, hint="The report shows what was tried. Ask for less, or raise the budget.")
        return result, outcome

    def _meter(self, run: Run, source: Source) -> Meter:
        def record(stage: str, spent: Spent) -> None:
            run.emit(SPENT, stage, **asdict(spent))

        before = [(event.id, Spent(**event.data)) for event in run.events if event.type == SPENT]
        return Meter(source.joules, self._intensity(run).grams, self.config.budget.limits, before, record)

    def _intensity(self, run: Run) -> Intensity:
        """Of the grid, as it was when the run began."""
        if not run.has(INTENSITY):
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

    def _opened(self, part: "Part", threads: int, meter: Meter) -> Workshop:
        from agentlab.compress.workshop import RealWorkshop

        part.run.stream("base.loading", part.base.name)
        meter.stage("open")
        folder = imported(part.base)
        _check_base(folder, self.config, self.context.workspace.root)
        return RealWorkshop(self.config, folder, part.base.file, part.name, part.run, self.context, threads, meter)

    def _search(self, part: "Part", workshop: Workshop, meter: Meter) -> None:
        """The search to its end, then what is left of the portfolio."""
        config = self.config
        space = SearchSpace.of(config.searched, config.rules)
        starts = [Proposal(point(recipe, space), PORTFOLIO) for recipe in config.recipes]
        if len(rebuild(part.beside.events).judged) < len(starts):
            dense = f"{workshop.dense:,} bytes in bfloat16"  # what is wrong with the base is no trial's
            part.run.stream("base.loading", dense)

        def check() -> None:
            self.context.stop.check()
            meter.check()

        def executor(branch: Run | Branch) -> "TrialExecutor":
            beside = branch is part.beside

            def place(candidate: Candidate) -> Path:
                return part.exports / (f"{PORTFOLIO}-{candidate.name}" if beside else candidate.name)

            def known(params: Params) -> TrialResult | None:
                ended = {space.key(t.proposal.params): t.result for t in part.searched} if beside else {}
                return ended.get(space.key(params))

            return LocalExecutor(Recipes(workshop, self.goal, meter, place, known, part.tidy))

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
        search(setup.study(part.study, config.seed), check)
        beside = replace(setup, starts=starts, budget={"trials": len(starts)})
        search(beside.study(part.beside, config.seed), check)


class Part:
    """One base of a run: its studies, its exports and what came of them. The only one has no name."""

    def __init__(self, run: Run, base: BaseFile, name: str, goal: Goal) -> None:
        self.run, self.base, self.name, self._goal = run, base, name, goal
        self.study: Run | Branch = Branch(run, name) if name else run
        self.beside = Branch(run, f"{name}/{PORTFOLIO}" if name else PORTFOLIO)
        self._place = f"exports/{name}" if name else "exports"
        self.exports = run.folder.folder(self._place).path

    @property
    def searched(self) -> list[TrialState]:
        """The trials of the search."""
        return list(rebuild(self.study.events).trials)

    def result(self) -> ModelResult:
        """What came of it so far."""
        measured = noted(self.run.events, BASE, self.name)
        odd = measured.get("odd", (0, 0))
        sizes = measured.get("dense", 0), measured.get("source", 0)
        base = Base(self.base.name, *sizes, measured.get("stored"), bool(measured.get("grid")), (odd[0], odd[1]))
        return verdict(base, self._goal, self.searched, rebuild(self.beside.events).trials, self.run.path, self._place)

    def tidy(self) -> None:
        """Remove the exports that are not on the front: they are large, never come back to it, and have a recipe."""
        kept = {row.file for row in self.result().rows if row.front}
        for each in sorted(self.exports.iterdir()) if self.exports.is_dir() else []:
            if each.name not in kept:
                shutil.rmtree(each) if each.is_dir() else each.unlink()


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
    bases = tuple(find_base(name, context.workspace) for name in config.bases)
    folders = [base.path.name for base in bases]
    if alike := {name for name in folders if folders.count(name) > 1}:
        raise UsageError(f"Two bases are called {', '.join(sorted(alike))}.", hint="Rename the folder of one of them.")
    if config.energy.zone is not None:
        key_of(context.env)
    text = config.text
    parts = pieces(None if text.file is None else context.workspace.resolve(text.file))
    SearchSpace.of(config.searched, config.rules)
    searched = getattr(config.searched.root.get("quantizer"), "choices", ())
    _check_packages({*searched, *(recipe.quantizer for recipe in config.recipes)} - {"none"})
    for base in bases:
        if base.path.is_dir():  # else it is imported first, and this is found then
            _check_base(base.path, config, context.workspace.root)
            counts = (text.calibration, text.held_out)
            windows(load_tokenizer(base.path), parts, text.file or SHIPPED, counts, text.length)
    return CompressExperiment(config, context, bases, read_goal(config.goal))


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
