"""`agentlab evolve`: checks, searches beside its controls, names all winners, opens the sealed split, and reports."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from agentlab.errors import GateError, MissingFileError, RunMismatchError, UnknownNameError, UsageError
from agentlab.evolve.config import EvolveConfig, GenomeConfig
from agentlab.evolve.data import QuestionSplit, lessons, set_of, split
from agentlab.evolve.genome import BASE, PARENT, Child, Coefficients, describe_start
from agentlab.evolve.lineage import dot, mermaid
from agentlab.evolve.plan import EvolvePlan, plan_of
from agentlab.evolve.recipes import RecipeGenome
from agentlab.evolve.report import evolve_report
from agentlab.evolve.result import ANSWERED, EVOLVED, OPENED, EvolveResult
from agentlab.evolve.searches import Searches
from agentlab.evolve.verdict import terms_of, verdict
from agentlab.experiment import events_before, fixed_threads, open_router, ready_base
from agentlab.llm.load import check_optional
from agentlab.llm.recorder import RunRecorder
from agentlab.lora.card import content_hash
from agentlab.lora.catalogue import find as find_adapter
from agentlab.models.base_model import BaseFile, find_base
from agentlab.runs.context import Context
from agentlab.runs.events import Event, first_event_data, has_changed
from agentlab.runs.run import OpenRun, RunOutcome
from agentlab.search.history import batches
from agentlab.study.control import require_pairs
from agentlab.study.state import TrialState, rebuild
from agentlab.tasks.questions import digest, jsonl
from agentlab.train.adapter_base import check_fit

if TYPE_CHECKING:
    from agentlab.evolve.adapter_folder import ExportedChild
    from agentlab.evolve.scoring import Answer
    from agentlab.lora.adapter_profile import Tell

PARENTS, SPLIT = "parents.read", "split.made"
_HINT = "`make personas` trains three parents for the embedded model."


@dataclass(frozen=True)
class EvolveExperiment:
    """Checked parents and questions. Implements `commands.Experiment`."""

    config: EvolveConfig
    context: Context
    base: BaseFile
    parents: Mapping[str, Path]
    genome: Coefficients | RecipeGenome
    questions: QuestionSplit

    def plan(self) -> EvolvePlan:
        return plan_of(self.config, self.base, self.genome, self.questions)

    def run(self, run: OpenRun) -> tuple[EvolveResult, RunOutcome]:
        """Search, or go on with a search, and report.

        Raises:
            Interrupted: a signal asked to stop; everything so far is in the run.
            RunMismatchError: parents or questions are not those that the run began with.
            AgentlabError: every child failed.
        """
        self._tell_input(run)
        config, check = self.config, self.context.stop.check
        with open_router(config.llm, self.context, RunRecorder(run)) as router, self._answers(run) as answers:
            searches = Searches(config, self.genome, self.questions, run, answers, router, check)
            searches.hold()
            contenders = searches.score_contenders()
            result, outcome = verdict(config, self.genome, self.questions, run.events, contenders, router.usage)
        children = [row.model_dump() for row in result.trials]
        run.write_json("lineage.json", {"winner": result.winner, "children": children})
        run.write_text("lineage.mmd", mermaid(result.trials, result.winner))
        run.write_text("lineage.dot", dot(result.trials, result.winner))
        sets = ", ".join(dict.fromkeys(map(set_of, (*self.questions.train, *self.questions.test))))
        facts = {
            "model": self.base.name,
            "adapters": ", ".join(self.parents),
            "data": f"{len(self.questions.train)} train and {len(self.questions.test)} sealed questions from {sets}",
        }
        run.report = evolve_report(run, result, facts)
        return result, outcome

    def _tell_input(self, run: OpenRun) -> None:
        """Say what is evolved on what, or see that it is still the same."""
        for name, sha256 in _see_parents(self.parents, run.events).items():
            run.emit_once(PARENTS, name, sha256=sha256)
        halves = {"train": self.questions.train, "test": self.questions.test}
        for name, half in halves.items():
            run.write_text(f"{name}.jsonl", jsonl(half))
        run.emit_once(SPLIT, **{name: digest(half) for name, half in halves.items()})
        done, plan = int(rebuild(run.events).amount_spent("items")), self.plan()
        run.emit("study.opened", summary=plan.summary, done=done, total=plan.searches * plan.items)

    @contextmanager
    def _answers(self, run: OpenRun) -> Iterator["Answer"]:
        """The population, loaded when it is first asked: a run that only lacks its report loads no model."""
        done = int(rebuild(run.events).amount_spent("items"))
        total = self.plan().searches * self.config.max_items

        def tell(count: int) -> None:
            nonlocal done
            done += count
            self.context.stop.check()
            run.stream(ANSWERED, done=done, total=max(done, total))

        with fixed_threads(run, self.config.threads), ExitStack() as stack:
            opened = cache(lambda: stack.enter_context(self._load_population(run, tell)))
            yield lambda children, questions: opened()(children, questions)

    @contextmanager
    def _load_population(self, run: OpenRun, tell: "Callable[[int], object]") -> Iterator["Answer"]:
        from agentlab.evolve.children import Children
        from agentlab.evolve.scoring import open_weighted_children, open_written_children

        path = ready_base(run, self.base)
        parents, genome, dtype = list(self.parents.values()), self.genome, self.config.dtype
        if isinstance(genome, Coefficients):
            with open_weighted_children(path, parents, genome.weights, dtype, tell) as population:
                yield population
            return
        root = run.folder.folder("children").path
        children = Children(root, parents, genome, self.config.seed, lambda: run.events)
        with open_written_children(path, children.folder, dtype, tell) as population:
            yield population
        if named := first_event_data(run.events, OPENED):  # the winners alone remain
            children.keep(named["named"].values())


def prepare(config: EvolveConfig, context: Context) -> EvolveExperiment:
    """The way in: everything that can be wrong with the input is found here, before a run folder exists.

    Raises:
        MissingFileError: a parent or the base is not there.
        UsageError, DataError: parents of different bases, DoRA, no labels; or the sealed split of a run is open.
        ModelFileError: a parent is damaged, or holds a number that is infinite or none.
    """
    require_pairs(config.control, config.control_seeds, context.resumed_run)
    base = find_base(config.base, context.workspace)
    parents = _parents(config, context)
    learnt, unknown = lessons(parents, context.workspace)
    questions = split(config.tasks, config.seed, context.workspace, learnt)
    genome = _genome(config, parents, check_fit(parents.values(), base))
    _see_sealed(config, events_before(context), questions)
    check_optional(config.llm, context)
    return EvolveExperiment(config, context, base, parents, genome, replace(questions, unknown=tuple(unknown)))


def _genome(config: EvolveConfig, parents: Mapping[str, Path], modules: Sequence[str]) -> Coefficients | RecipeGenome:
    if config.genome.kind == "deltas":
        return RecipeGenome(tuple(parents), config.population, config.genome)
    return Coefficients.of(list(parents), modules, config.genome)


def _see_sealed(config: EvolveConfig, events: Sequence[Event], questions: QuestionSplit) -> None:
    if has_changed(first_event_data(events, SPLIT), train=digest(questions.train), test=digest(questions.test)):
        raise RunMismatchError(
            "The questions have changed since the run started.", hint="Restore the file, or start a new run."
        )
    limits = {key: getattr(config, key) for key in ("max_items", "max_trials", "max_seconds")}
    if has_changed(first_event_data(events, OPENED), **limits):
        raise UsageError(
            "This run's sealed split has been opened, so a longer search could select on its answers.",
            hint="Start a new run with the larger budget.",
        )


def _see_parents(parents: Mapping[str, Path], events: Sequence[Event]) -> dict[str, str]:
    """The content hash of each parent, which is that of the run's beginning."""
    hashes = {name: content_hash(folder) for name, folder in parents.items()}
    if any(has_changed(first_event_data(events, PARENTS, name), sha256=sha256) for name, sha256 in hashes.items()):
        raise RunMismatchError("A parent has changed since the run started.", hint="Restore it, or start a new run.")
    return hashes


def _parents(config: EvolveConfig, context: Context) -> dict[str, Path]:
    folders: dict[str, Path] = {}
    for name in config.parents:
        try:
            folder = find_adapter(name, context.workspace)
        except (UnknownNameError, MissingFileError) as error:
            raise MissingFileError(error.message, hint=f"{_HINT} {error.hint or ''}".rstrip()) from error
        if folder.name in folders:
            raise UsageError(f"Two parents are called {folder.name}.", hint="Rename one of the folders.")
        folders[folder.name] = folder
    return folders


def _nothing_found(winner: TrialState, parents: Mapping[str, Path]) -> GateError:
    """Why there is no evolved adapter, and what to use instead."""
    instead = {PARENT: f"Use {parents.get(winner.proposal.note)} itself", BASE: "Use the base without an adapter"}
    return GateError(
        f"The search found nothing better than {describe_start(winner.proposal)}, "
        "so there is no evolved adapter to export.",
        hint=f"{instead.get(winner.proposal.source, 'Use the blend')}; --id {winner.id} exports it anyway.",
    )


def export_child(
    config: EvolveConfig,
    context: Context,
    run: str,
    events: Sequence[Event],
    child: str | None,
    out: Path | None,
    tell: "Tell",
) -> "ExportedChild":
    """Write a child of a run as an adapter; see `adapter_folder.export`.

    `child`: its id; None is the winner, if the search found it. `out`: the folder; None is `adapters/gen_NNNN/ID`.

    Raises:
        UnknownNameError: the run has no such child.
        UsageError: no winner is named yet, or `out` is there.
        GateError: the winner was there before the search.
        RunMismatchError: a parent is not what it was.
    """
    from agentlab.evolve.adapter_folder import export, export_recipe
    from agentlab.evolve.children import Children

    parents = _parents(config, context)
    _see_parents(parents, events)
    trials = {trial.id: trial for trial in rebuild(events).trials}
    named = child or first_event_data(events, OPENED).get("named", {}).get(EVOLVED)
    if named is None:
        raise UsageError("This run has not chosen a winner yet.", hint="Pass a child with --id, or finish the run.")
    if named not in trials:
        raise UnknownNameError("child", named, list(trials))
    trial, base = trials[named], find_base(config.base, context.workspace)
    before = trial.number < config.starts
    if before and child is None:
        raise _nothing_found(trial, parents)
    modules = check_fit(parents.values(), base)
    genome, params = _genome(config, parents, modules), trial.proposal.params
    if isinstance(genome, RecipeGenome) and trial.proposal.source in (PARENT, BASE):  # made by no operator
        genome = Coefficients.of(list(parents), modules, GenomeConfig(groups=1))
        params = list(genome.starts)[trial.number].params
    generations = enumerate(batches(list(trials.values()), config.population))
    generation = next(number for number, members in generations if trial in members)
    target = out or context.workspace.adapters / f"gen_{generation:04d}" / named
    metrics = dict(trial.result.metrics) if trial.result else {}
    fitness = {**terms_of(events).get(named, {}), "sets": metrics.get("sets", {})}
    card_extra = {"run": run, "seed": config.seed, "fitness": fitness}
    if isinstance(genome, Coefficients):
        exported_child = export(genome, parents, named, params, target, tell, card_extra)
    else:
        with TemporaryDirectory(dir=context.workspace.root) as scratch:
            children = Children(Path(scratch), list(parents.values()), genome, config.seed, lambda: events)
            exported_child = export_recipe(children, Child("", trial.number, params), target, card_extra)
    return exported_child.model_copy(update={"start": describe_start(trial.proposal) if before else ""})
