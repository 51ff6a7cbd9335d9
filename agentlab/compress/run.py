"""`agentlab compress`: checks, a search that begins with known recipes, the whole portfolio beside it, a report."""

import importlib.util
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path

from agentlab import machine
from agentlab.compress.agent import open_agent_router
from agentlab.compress.base_compression import CompressPart, Search, open_workshop
from agentlab.compress.config import CompressConfig, apply_limits, limits_of
from agentlab.compress.costs import cheapest, opening, weights_of, work_of, work_of_run
from agentlab.compress.experiment_memory import known_rate, memory_of
from agentlab.compress.goal import Goal, read_goal
from agentlab.compress.intensity import Intensity, fetch_intensity, key_of, look_up_intensity
from agentlab.compress.meter import CompressCost, EnergySource, Meter, best_source, budget_remark
from agentlab.compress.objective import Workshop
from agentlab.compress.processes import search_side_by_side
from agentlab.compress.recipe import QUANTIZERS
from agentlab.compress.report import compress_report
from agentlab.compress.result import SPENT, TERMS, CompressPlan, CompressResult, charges, plan_of
from agentlab.compress.texts import MOST, SHIPPED, check_enough, pieces
from agentlab.compress.verdict import answer
from agentlab.errors import (
    BudgetExceededError,
    ConfigError,
    GateError,
    MissingExtraError,
    ModelFileError,
    StorageError,
    UsageError,
)
from agentlab.experiment import THREADS, fixed_threads
from agentlab.llm.load import check_optional
from agentlab.llm.recorder import RunRecorder
from agentlab.models.base_model import BaseFile, find_base, import_base
from agentlab.runs.context import Context
from agentlab.runs.events import first_event_data
from agentlab.runs.run import OpenRun, RunOutcome
from agentlab.search.space import SearchSpace
from agentlab.study.calls import model_rows, totals
from agentlab.study.control import require_pairs
from agentlab.study.steps import search
from agentlab.train.base import load_tokenizer, outline

INTENSITY = "intensity.chosen"
_PACKAGES = {"kquant": "llama_cpp", "bitsandbytes": "bitsandbytes"}
_GRID_PACKAGE = "compressed_tensors"  # writes what any grid gives
_EXPORTS = 4  # that lie on the disk at a time, about: those on the front


@dataclass(frozen=True)
class CompressExperiment:
    """Checked bases and a goal. Implements `commands.Experiment`."""

    config: CompressConfig
    context: Context
    bases: tuple[BaseFile, ...]
    goal: Goal
    rooms: tuple[tuple[int, int], ...] = ()  # bytes of memory and disk of each base whose checkpoint is there

    def plan(self) -> CompressPlan:
        return plan_of(self.config, self.bases, self.goal, self._forecast())

    def _forecast(self) -> dict[str, float]:
        """What it takes from nothing, of all bases together; memory of the largest."""
        total = CompressCost()
        for base in self.bases:
            has_checkpoint = base.path.is_dir()
            limits = limits_of(self.config, base.path) if has_checkpoint else []
            _, recipes = apply_limits(self.config, limits, base.name)
            work = work_of_run(self.config, recipes, weights_of(base), imports=not has_checkpoint)
            rate = known_rate(self.config, base, self.context.workspace)
            total = total + rate * (work / rate.work)
        memory, disk = zip(*self.rooms, strict=True) if self.rooms else ((0,), (0,))
        return {**total.units, "memory": max(memory), "disk": sum(disk)}

    def run(self, run: OpenRun) -> tuple[CompressResult, RunOutcome]:
        """Search, or go on with a search, and report.

        Raises:
            Interrupted: a signal asked to stop; everything so far is in the run.
            RunMismatchError: base or texts are not those that the run began with.
            GateError: no recipe of any base reaches the goal; all is reported.
        """
        if len(self.bases) == 1:
            with self.open_work(run) as work:
                work.advance(lambda current: search(current.study, current.check, current.update))
                return work.conclude()
        parts, source, end_reason = self._parts(run), best_source(self.config.energy.watts), None
        try:
            self._check_budgets(parts)
            self._side_by_side(parts, source)
        except BudgetExceededError as error:
            end_reason = error.message
        finally:
            _settle(parts)
        return self.report_result(run, parts, source, end_reason)

    @contextmanager
    def open_work(self, run: OpenRun) -> Iterator["OpenCompression"]:
        """The search of the only base in its run folder, ready for the steps.

        Raises:
            UsageError: there are several bases, which are searched in processes.
        """
        if len(self.bases) > 1:
            raise UsageError(
                "This step needs a single base, but `models` names several.", hint="Set `base`, and remove `models`."
            )
        parts, source, config = self._parts(run), best_source(self.config.energy.watts), self.config
        meter = self._meter(run, source)
        try:
            with (
                fixed_threads(run, config.threads) as threads,
                open_agent_router(config, self.context, RunRecorder(run)) as router,
            ):
                workshop = cache(partial(self._open_workshop, parts[0], threads, meter))
                work = OpenCompression(self, run, parts, source)
                with work.within_budget():
                    self._check_budgets(parts)
                    work.search = parts[0].open_search(workshop, meter, self.context.stop.check, router)
                yield work
        finally:
            meter.flush()
            _settle(parts)

    def _parts(self, run: OpenRun) -> list[CompressPart]:
        several, memory = len(self.bases) > 1, memory_of(self.config, self.context.workspace)
        parts = [CompressPart(run, base, base.path.name if several else "", self.config, memory) for base in self.bases]
        done, total = sum(len(part.search_trials) for part in parts), self.config.budget.trials * len(parts)
        run.emit("study.opened", summary=self.plan().summary, done=done, total=total)
        return parts

    def _check_budgets(self, parts: Sequence[CompressPart]) -> None:
        for part in parts:
            if not part.search_trials:
                _check_budget(self.config, part.base, known_rate(self.config, part.base, self.context.workspace))

    def report_result(
        self, run: OpenRun, parts: Sequence[CompressPart], source: EnergySource, end_reason: str | None
    ) -> tuple[CompressResult, RunOutcome]:
        """The result, with its report; `end_reason` says why the work ended early, if a budget did that."""
        if end_reason is None:  # else more budget may go on with them
            shutil.rmtree(run.folder.folder("stages").path, ignore_errors=True)
        models = [part.result() for part in parts]
        calls, model_calls = totals(run.events, RunRecorder(run).total_usage()), model_rows(run.events, TERMS)
        stage_costs = _stage_costs(run)
        remarks = [] if end_reason is None else [f"The run ended early because of the budget: {end_reason}"]
        remarks += budget_remark(self.config.budget.limits, sum(stage_costs.values(), CompressCost()))
        result, outcome = answer(models, self.goal, stage_costs, self._energy(run, source), remarks, calls, model_calls)
        run.report = compress_report(run, result)
        if not any(model.winner for model in models):
            end_note = "" if end_reason is None else f" The run ended early because of the budget: {end_reason}"
            hint = (
                "The report shows what was tried. Relax the goal, or raise the budget to about 1.5 times the "
                "forecast of --dry-run "
            )
            hint += "with --carbon-budget, --set budget.joules or --set budget.seconds."
            raise GateError(f"{result.sentence}{end_note}", hint=hint)
        return result, outcome

    def _meter(self, run: OpenRun, source: EnergySource) -> Meter:
        def record(stage: str, cost: CompressCost) -> None:
            run.emit(SPENT, stage, **asdict(cost))

        before = [(stage, cost) for _, stage, cost in charges(run.events)]
        grams, config = self._intensity(run).grams, self.config
        usual = known_rate(config, self.bases[0], self.context.workspace)
        return Meter(source.joules, grams, config.budget.limits, before, record, usual=usual)

    def _intensity(self, run: OpenRun) -> Intensity:
        """Of the grid, as it was when the run began."""
        if not run.has(INTENSITY):
            energy, service = self.config.energy, self.config.energy.service
            intensity = look_up_intensity(energy.intensity)
            if energy.zone is not None:
                cache = self.context.workspace.root / ".agentlab" / "compress" / "intensity.json"
                intensity = fetch_intensity(service, energy.zone, key_of(service, self.context.env), cache, intensity)
            run.emit(INTENSITY, **asdict(intensity))
        return Intensity(**first_event_data(run.events, INTENSITY))

    def _energy(self, run: OpenRun, source: EnergySource) -> str:
        intensity, kind = self._intensity(run), "measured" if source.measured else "estimated"
        return f"{kind}: {source.label}; {intensity.grams:g} g CO2 per kWh, {intensity.source}"

    def _open_workshop(self, part: CompressPart, threads: int, meter: Meter) -> Workshop:
        meter.stage("open")
        _room_for(import_base(part.base), self.config, self.context.workspace.root)
        return open_workshop(part, self.config, self.context, threads, meter)

    def _side_by_side(self, parts: list[CompressPart], source: EnergySource) -> None:
        """In processes, as many as cores and memory take; one where a counter of joules, or a GPU, serves them all."""
        run, root, meter = parts[0].run, self.context.workspace.root, self._meter(parts[0].run, source)
        meter.stage("open")
        needed = max(_room_for(import_base(part.base), self.config, root)[0] for part in parts)
        meter.flush()
        alone = source.measured or machine.device() == "cuda"
        cores = machine.threads(self.config.threads)
        together = 1 if alone else max(1, min(len(parts), cores, machine.memory().available // needed))
        run.emit_once(THREADS, count=cores // together)
        # Those of each base, as when the run began: last bits depend on it.
        threads = first_event_data(run.events, THREADS)["count"]
        together = min(together, max(1, cores // threads))
        grams = self._intensity(run).grams
        search_side_by_side(parts, self.config, self.context, grams, together=together, threads=threads)


@dataclass
class OpenCompression:
    """The search of one base at work in its run folder. Without `search`, the budget was spent before it began."""

    experiment: CompressExperiment
    run: OpenRun
    parts: Sequence[CompressPart]
    source: EnergySource
    search: Search | None = None
    over: str | None = None

    @contextmanager
    def within_budget(self) -> Iterator[None]:
        """What passes the budget in here ends the work, and is no error: there is a report."""
        try:
            yield
        except BudgetExceededError as error:
            self.over = error.message

    def advance(self, step: Callable[[Search], object]) -> None:
        if self.search is not None and self.over is None:
            with self.within_budget():
                step(self.search)

    def conclude(self) -> tuple[CompressResult, RunOutcome]:
        """After the search: what it is held against, and the report.

        Raises:
            GateError: no recipe reaches the goal; all is reported.
        """
        self.advance(lambda search: search.conclude())
        _settle(self.parts)
        return self.experiment.report_result(self.run, self.parts, self.source, self.over)


def _settle(parts: Sequence[CompressPart]) -> None:
    for part in parts:
        part.tidy()
        part.remember()


def _stage_costs(run: OpenRun) -> dict[str, CompressCost]:
    costs: dict[str, CompressCost] = {}
    for _, stage, cost in charges(run.events):
        costs[stage] = costs.get(stage, CompressCost()) + cost
    return costs


def prepare(config: CompressConfig, context: Context) -> CompressExperiment:
    """The way in: everything that can be wrong with the input is found here, before a run folder exists.

    Raises:
        MissingFileError: there is no such base or text.
        ModelFileError: the base is of an architecture that cannot be compressed, or too large for the memory; or a file
            of what is remembered is damaged.
        UsageError, DataError: the goal says nothing; a base can go through no recipe; there is too little text.
        StorageError: the disk is too full.
        MissingExtraError, MissingKeyError: a package is not there that a recipe needs, or the key of the service.
    """
    require_pairs(config.control, config.control_seeds, context.resumed_run)
    if config.control == "full" and not (config.llm.candidates(TERMS.propose) and config.first < config.budget.trials):
        raise ConfigError(
            f"control: full requires a model in `llm`, and more trials than the {config.first} initial recipes.",
            hint="Set a model, for example with --set llm=embedded, and raise --trials; or use --control light.",
        )
    bases = tuple(find_base(name, context.workspace) for name in config.bases)
    folders = [base.path.name for base in bases]
    if alike := {name for name in folders if folders.count(name) > 1}:
        raise UsageError(f"Two bases share the name {', '.join(sorted(alike))}.", hint="Rename one of the folders.")
    if config.energy.zone is not None:
        key_of(config.energy.service, context.env)
    text = config.text
    parts = pieces(None if text.file is None else context.workspace.resolve(text.file))
    SearchSpace.of(config.searched_space, config.rules)
    searched = getattr(config.searched_space.root.get("quantizer"), "choices", ())
    _check_packages({*searched, *(recipe.quantizer for recipe in config.recipes)} - {"none"})
    rooms = []
    for base in bases:
        if base.path.is_dir():  # else it is imported first, and this is found then
            rooms.append(_room_for(base.path, config, context.workspace.root))
            counts = (text.calibration, text.held_out)
            apply_limits(config, limits_of(config, base.path), base.name)
            check_enough(load_tokenizer(base.path), parts, text.file or SHIPPED, counts, text.length)
    if config.planner == "agent" or config.control == "full":
        check_optional(config.llm, context)
    if memory := memory_of(config, context.workspace):
        memory.check()
    return CompressExperiment(config, context, bases, read_goal(config.goal), tuple(rooms))


def _check_budget(config: CompressConfig, base: BaseFile, rate: CompressCost) -> None:
    """See that the budget has room for a recipe and its measuring, were all that runs share there already."""
    weights = weights_of(base)
    begins, (recipe, stages) = opening(config, weights, imports=not base.path.is_dir()), cheapest(config, weights)
    least_cost = rate * (work_of([begins[0], *stages]) / rate.work)
    full_cost = rate * (work_of([*begins, *cheapest(config, weights, ())[1]]) / rate.work)
    for unit, limit in config.budget.limits.items():
        if least_cost.units[unit] > limit:
            raise BudgetExceededError(
                f"The budget of {limit:g} {unit} is too small for even one recipe of {base.name}: the "
                f"cheapest, {recipe}, is forecast to take {full_cost.units[unit]:.3g} {unit}, including "
                "measurement."
            )


def _check_packages(quantizers: Iterable[str]) -> None:
    for quantizer in sorted(quantizers):
        if quantizer not in (*_PACKAGES, *QUANTIZERS.table):
            from agentlab.compress.quantizers import GridQuantizer

            QUANTIZERS.load(quantizer, GridQuantizer)
        package = _PACKAGES.get(quantizer, _GRID_PACKAGE)
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(
                f"{quantizer} needs the package {package}, which is not installed.",
                hint=f"pip install {package.replace('_', '-')}, or remove {quantizer} from `portfolio` and `space`.",
            )


def _room_for(folder: Path, config: CompressConfig, root: Path) -> tuple[int, int]:
    """See that a checkpoint can be compressed here: its architecture; and what memory and disk it takes, in bytes."""
    from agentlab.compress.architecture import check_architecture
    from agentlab.compress.calibration import memory_needed, statistics_bytes

    model = outline(folder)
    check_architecture(model.config)
    text, weights = config.text, sum(int(parameter.numel()) for parameter in model.parameters())
    logits = 4 * text.length * int(model.config.vocab_size)
    statistics = memory_needed(model.config, text.calibration, text.length)
    recovery = 3 * config.recovery.batch * logits if any(recipe.recovery != "none" for recipe in config.recipes) else 0
    memory = 2 * 4 * weights + max(statistics, recovery, text.held_out * logits)
    limit = machine.memory().available
    if memory > limit:
        raise ModelFileError(
            f"Compressing {folder.name} needs {memory / 2**30:.1f} GiB of memory, but only "
            f"{limit / 2**30:.1f} GiB are available.",
            hint="Use a smaller base, or less text: --set text.calibration=8 --set text.held_out=4.",
        )
    cut_recipes = [recipe for recipe in config.recipes if recipe.has_own_checkpoint]
    cuts = len({(recipe.structure, recipe.kept, recipe.recovery) for recipe in cut_recipes})
    looks = 2 * MOST if read_goal(config.goal).bounds_kl else 0
    kept_bytes = (text.held_out + looks) * logits + statistics_bytes(model.config)  # and float32 files
    cut_bytes = cuts * (2 * 4 * weights + statistics_bytes(model.config))
    needed = kept_bytes + 4 * weights + cut_bytes + _EXPORTS * 2 * weights
    free = shutil.disk_usage(root).free
    if needed > free:
        raise StorageError(
            f"Compressing {folder.name} needs {needed / 2**30:.1f} GiB of disk, but {root} has only "
            f"{free / 2**30:.1f} GiB free.",
            hint="Free some space, or choose another workspace with AGENTLAB_HOME.",
        )
    return memory, needed
