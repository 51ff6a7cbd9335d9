"""The shell of `agentlab nas`: checks the experiment, drives the steps, holds the last round, writes the report."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from agentlab import machine
from agentlab.errors import AgentlabError, ConfigError, DataError
from agentlab.experiment import open_router
from agentlab.llm.load import check_optional
from agentlab.llm.recorder import RunRecorder
from agentlab.nas.config import NasConfig, TrialConfig, at_rung, params_of, trial_keys, with_params
from agentlab.nas.data import load_series, require_windows
from agentlab.nas.plan import NasPlan, describe_series, estimate, plan_of
from agentlab.nas.result import NasResult
from agentlab.nas.study import TERMS, setup_of
from agentlab.nas.summary import outcome, summarise
from agentlab.runs.context import Context
from agentlab.runs.run import OpenRun, RunOutcome
from agentlab.search.arms import ARMS
from agentlab.search.screen import ScreenEstimate, ScreenLimits, ScreenRules
from agentlab.search.space import SearchSpace
from agentlab.search.types import Params
from agentlab.study.control import MIN_PAIRED_TRIALS, require_pairs, run_pairs
from agentlab.study.events import WinnerScores, emit
from agentlab.study.finals import Finalist, LastRound, exported_candidate, last_round
from agentlab.study.setup import Setup
from agentlab.study.state import StudyCandidate, StudyState, agent_state, read_undamaged
from agentlab.study.steps import Reviewer, Study, search, seed_of

if TYPE_CHECKING:
    from agentlab.llm.router import Router
    from agentlab.nas.training import ForecastMetrics


class NasExperiment:
    """A checked study. Implements `commands.Experiment`."""

    def __init__(self, config: NasConfig, context: Context) -> None:
        """Read the series, and check the space and the language model; nothing is written.

        Raises:
            ConfigError, DataError, MissingFileError, MissingKeyError: the study could not start.
        """
        require_pairs(config.control, config.control_seeds, context.resumed_run)
        repeats = config.evaluator.repeats if config.evaluator.noise is None else 0
        if config.control == "full" and config.max_iterations < MIN_PAIRED_TRIALS + repeats:
            raise ConfigError(
                f"Paired studies need more than max_iterations={config.max_iterations}: the first trial, "
                f"which both studies share, already takes {1 + repeats} training runs.",
                hint="Raise max_iterations, or use --control light.",
            )
        if not config.space.root and config.max_iterations > 1:
            raise ConfigError(
                "Nothing to search: `space` is empty.",
                hint="Add ranges under `space`, or train this one configuration: agentlab nas train",
            )
        self.config = config
        self.context = context
        self.reviewer: Reviewer | None = None
        self.series = load_series(config.data, context.workspace)
        self.base = config.trial()
        self.space = SearchSpace.of(config.space, config.constraints, params_of(self.base, trial_keys()))
        ARMS.load(config.search.base)(config.search.base, self.space, config.seed)  # not every arm searches every space
        self.default = self.space.reduce(params_of(self.base, tuple(self.space.parameters)))
        limits = ScreenLimits(config.search.max_parameters, config.search.memory_mb * 2**20)
        self.rules = ScreenRules(self.space, self._estimate, limits)
        problems = self.rules.against(())(self.default)
        if problems:
            raise ConfigError(
                f"Trial 0 (the config as written) lies outside the search space: {'; '.join(problems)}.",
                hint="Change the value, its range under `space`, or the limit (search.memory_mb, "
                "search.max_parameters).",
            )

    def _estimate(self, params: Params) -> ScreenEstimate:
        try:
            trial = with_params(self.base, params)
            require_windows(self.series.split, trial.data, self.series.source)
            return estimate(trial, self.series)
        except (ConfigError, DataError) as error:
            raise ValueError(error.message) from error

    def plan(self) -> NasPlan:
        agent = bool(self.config.llm.candidates(TERMS.propose))
        from agentlab.nas.training import forecast_seconds

        device = machine.device()
        with machine.torch_threads(1) if device == "cpu" else nullcontext():
            seconds = forecast_seconds(self.base, self.series, device)
        cost = self._estimate(self.default)
        return plan_of(self.config, self.series, list(self.space.parameters), cost, seconds, agent=agent)

    def run(self, run: OpenRun) -> tuple[NasResult, RunOutcome]:
        """Search to the end of the budget, or go on with a search, and report.

        Raises:
            Interrupted: a signal asked to stop; everything so far is in the run.
            DataError: the series is not the one that the run began with.
            AgentlabError: every trial failed.
        """
        with self.open_work(run) as session:
            search(session.study, self.context.stop.check)
            return session.conclude()

    @contextmanager
    def open_work(self, run: OpenRun) -> Iterator["OpenStudy"]:
        """The study in its run folder, ready for the steps, with its reference lines measured."""
        device = machine.device()
        if device == "cpu":
            import torch

            torch.set_num_threads(1)  # these models are too small for more, and one thread makes runs bit-equal
        with open_router(self.config.llm, self.context, RunRecorder(run)) as router:
            setup = setup_of(self.config, self.context, self.series, self.rules, self.default, router, device)
            setup = replace(setup, reviewer=self.reviewer)
            study = setup.study(run, self.config.seed)
            try:
                self._open(run, study.state)
                yield OpenStudy(self, run, setup, study, router, device)
            finally:
                study.executor.close()

    def _open(self, run: OpenRun, state: StudyState) -> None:
        """Say what is studied, and measure the reference lines that are not there yet."""
        from agentlab.nas.baselines import reference_lines

        fingerprint = self.series.fingerprint
        openings = [event for event in run.events if event.type == "study.opened"]
        if any(read_undamaged(event, lambda e: e.data["data"]) != fingerprint for event in openings):
            raise DataError(
                f"{self.series.source} has changed since the run started, so errors would no longer be comparable.",
                hint="Restore the original file, or start a new run.",
            )
        run.emit(
            "study.opened",
            summary=describe_series(self.series, self.config.data),
            trials=self.config.max_iterations,
            done=len(state.judged),
            reviewed=self.reviewer is not None,
            data=fingerprint,
        )
        for line in reference_lines(self.series, self.config.data):
            run.emit_once("reference.measured", line.name, **line.model_dump())


@dataclass(frozen=True, slots=True)
class OpenStudy:
    """A study at work in its run folder."""

    experiment: NasExperiment
    run: OpenRun
    setup: Setup
    study: Study
    router: "Router"
    device: str

    def conclude(self) -> tuple[NasResult, RunOutcome]:
        """After the search: the last round, the winner's test score, the paired studies, the report.

        Raises:
            AgentlabError: every trial failed.
        """
        from agentlab.nas.report import study_report

        experiment, run, config = self.experiment, self.run, self.experiment.config
        plan = LastRound(config.finals.count, config.finals.seeds)
        first = self._last_round(plan)
        scores = self._score(first)
        self._export(first, scores)
        state = self.study.state
        run.write_json("agent_state.json", agent_state(state, TERMS))  # a kill may have come before this line
        paired = config.control == "full" and self.study.agent is not None  # else there is no agent to compare
        self.study.executor.close()  # the pairs have workers of their own
        pairs = run_pairs(self.setup, run, state, config.seed, config.control_seeds) if paired else []
        result = summarise(config, experiment.series, self.study, plan, pairs, self.router.usage)
        run.report = study_report(run, result, experiment.base, experiment.series, self.device)
        return result, outcome(result)

    def _last_round(self, plan: LastRound) -> Finalist:
        """Train the finalists that are not trained yet, and name the winner."""
        finalist = last_round(self.study, plan, self.setup.check)
        if finalist is None:
            hint = f"For the tracebacks, see {self.run.path / 'events.jsonl'}."
            raise AgentlabError(_nothing_left(self.study.state), hint=hint)
        return finalist

    def _score(self, first: Finalist) -> WinnerScores:
        """The winner's test errors: computed once, and again only if a longer search finds another winner."""
        state, names = self.study.state, tuple(first.values)
        if state.scores and state.scored == first.trial.id and state.scores.names == names:
            return state.scores
        test_metrics = [self._test(candidate) for candidate in first.candidates if candidate.name in names]
        figures = {
            "mse": [metrics.mse for metrics in test_metrics],
            "mae": [metrics.mae for metrics in test_metrics],
            "mse_by_step": _means([metrics.mse_by_step for metrics in test_metrics]),
            "mse_by_channel": _means([metrics.mse_by_channel for metrics in test_metrics]),
        }
        scores = WinnerScores(names, {name: tuple(values) for name, values in figures.items()})
        emit(self.run, "winner.scored", first.trial.id, scores)
        return scores

    def _test(self, candidate: StudyCandidate) -> "ForecastMetrics":
        from agentlab.nas.training import evaluate, restore
        from agentlab.nas.windows import Windows

        series, (trial, weights) = self.experiment.series, self._load_training(candidate)
        model = restore(trial, series, weights, self.device)
        return evaluate(model, Windows(series, trial, self.device), "test")

    def _load_training(self, candidate: StudyCandidate) -> tuple[TrialConfig, Mapping[str, Any]]:
        from agentlab.nas.objective import stored_weights

        trial = at_rung(self.experiment.base, candidate, self.experiment.config.finals.full)
        return trial, stored_weights(self.run.folder.folder("trials"), candidate.name)

    def _export(self, first: Finalist, scores: WinnerScores) -> None:
        """The winner as a folder that stands alone: what `nas predict` and `nas export` read."""
        from agentlab.nas.artefact import Artefact, write_artefact

        experiment, chosen = self.experiment, exported_candidate(first)
        index = scores.names.index(chosen.name)
        card = {
            "run": self.run.id,
            "training": chosen.name,
            "seed": seed_of(self.study.seed, chosen.turn),
            "series": describe_series(experiment.series, experiment.config.data),
            "fingerprint": experiment.series.fingerprint,
            "val_mse": first.values[chosen.name],
            "test_mse": scores.figures["mse"][index],
            "test_mae": scores.figures["mae"][index],
        }
        trial, weights = self._load_training(chosen)
        write_artefact(self.run.folder.folder("winner"), Artefact.of(trial, experiment.series, weights, card))


def prepare(config: NasConfig, context: Context) -> NasExperiment:
    """The way in: everything that can be wrong with the input is found here, before a run folder exists."""
    experiment = NasExperiment(config, context)
    check_optional(config.llm, context)
    return experiment


def _means(rows: Sequence[Sequence[float]]) -> list[float]:
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def _nothing_left(state: StudyState) -> str:
    errors = [trial.result.error for trial in state.trials if trial.result]
    count = f"All {len(errors)} trials" if len(errors) > 1 else "The only trial"
    return f"{count} failed; last error: {errors[-1].rstrip('.') if errors else 'no trial ran'}."
