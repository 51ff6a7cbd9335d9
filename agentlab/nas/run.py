"""The shell of `agentlab nas`: checks the experiment, drives the steps, scores the winner once, writes the report."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from agentlab import machine
from agentlab.errors import AgentlabError, ConfigError, DataError
from agentlab.llm.recorder import CALLED, RunRecorder
from agentlab.llm.types import Usage
from agentlab.nas import steps
from agentlab.nas.config import NasConfig, params_of, trial_keys, with_params
from agentlab.nas.control import light_control
from agentlab.nas.data import load_series, require_windows
from agentlab.nas.estimate import estimate
from agentlab.nas.plan import NasPlan, describe_models, describe_series
from agentlab.nas.result import NasResult, Planner, ReferenceRow, Winner, source_rows, trial_rows
from agentlab.nas.state import StudyState, TestScore, agent_state, changes, rebuild
from agentlab.runs.context import Context
from agentlab.runs.events import Event
from agentlab.runs.manifest import Metric, Tokens
from agentlab.runs.run import Outcome, Run
from agentlab.search.budget import Budget, Spent, exhausted
from agentlab.search.executor import LocalExecutor
from agentlab.search.llm_proposer import LLMProposer
from agentlab.search.optuna_proposer import OptunaProposer
from agentlab.search.prompts import Briefing
from agentlab.search.random_proposer import RandomProposer
from agentlab.search.screen import Estimate, Limits, Rules, ScreenedProposer
from agentlab.search.space import SearchSpace
from agentlab.search.types import Params, Proposer

if TYPE_CHECKING:
    from agentlab.llm.router import Router

PROPOSE = "nas.propose"


class NasExperiment:
    """A checked study. Implements `commands.Experiment`."""

    def __init__(self, config: NasConfig, context: Context) -> None:
        """Read the series, and check the space and the language model; nothing is written.

        Raises:
            ConfigError, DataError, MissingFileError, MissingKeyError: the study could not start.
        """
        self.config = config
        self.context = context
        self.series = load_series(config.data, context.workspace)
        self.base = config.trial()
        self.space = SearchSpace.of(config.space, config.constraints, params_of(self.base, trial_keys()))
        self.default = self.space.reduce(params_of(self.base, tuple(self.space.parameters)))
        self.rules = Rules(
            self.space,
            self._estimate,
            Limits(config.search.max_parameters, config.search.memory_mb * 2**20),
        )
        problems = self.rules.against(())(self.default)
        if problems:
            raise ConfigError(
                f"Trial 0, the config as it stands, is not a point of the search space: {'; '.join(problems)}.",
                hint="Change the key itself or its range under `space`.",
            )

    def _estimate(self, params: Params) -> Estimate:
        try:
            trial = with_params(self.base, params)
            require_windows(self.series.split, trial.data, self.series.source)
            return estimate(trial, self.series)
        except (ConfigError, DataError) as error:
            raise ValueError(error.message) from error

    def plan(self) -> NasPlan:
        """What it would do and cost."""
        config = self.config
        cost = self._estimate(self.default)
        agent = bool(config.llm.candidates(PROPOSE))
        return NasPlan(
            series=describe_series(self.series),
            trials=config.max_iterations,
            searched=list(self.space.parameters),
            proposers=f"{config.search.base} and, for about half of the trials, the language model"
            if agent
            else config.search.base,
            parameters=cost.parameters,
            memory_bytes=cost.memory_bytes,
            language_model=describe_models(config),
            proposals=(config.max_iterations - 1) // 2 if agent else 0,
            max_cost_usd=config.llm.budget.per_run_usd,
        )

    def run(self, run: Run) -> tuple[NasResult, Outcome]:
        """Search to the end of the budget, or go on with a search, and report.

        Raises:
            Interrupted: a signal asked to stop; everything so far is in the run.
            DataError: the series is not the one that the run began with.
            AgentlabError: every trial failed.
        """
        import torch

        from agentlab.llm.router import Router
        from agentlab.nas.report import write_study_report

        device = machine.device()
        if device == "cpu":
            torch.set_num_threads(1)  # these models are too small for more, and one thread makes runs bit-equal
        with Router(
            self.config.llm,
            env=self.context.env,
            workspace=self.context.workspace,
            recorder=RunRecorder(run),
            stop=self.context.stop,
        ) as router:
            study = self._study(run, router, device)
            self._open(run, study.state)
            state = self._search(study)
            score = self._score(run, state, device)
            result = self._result(run.events, score, router.usage)
        write_study_report(run, result, self.base, self.series, device)
        return result, _outcome(result)

    def _study(self, run: Run, router: "Router", device: str) -> steps.Study:
        """Join proposers, executor and router into what the steps work with."""
        from agentlab.nas.objective import InformerObjective

        base = self._base_proposer()
        about = Briefing(
            goal="Find the settings of a forecasting model with the lowest validation error.",
            metric="validation error",
            shown=("parameters", "epochs"),
        )
        agent = LLMProposer(base, router, self.rules, about, task=PROPOSE, options=self.config.search.pick_from)
        objective = InformerObjective(self.base, self.series, run, device, self.context.stop.check)
        return steps.Study(
            run=run,
            seed=self.config.seed,
            noise=self.config.evaluator.noise,
            default=self.default,
            control=base,
            agent=agent if router.available(PROPOSE) else None,
            executor=LocalExecutor(objective),
            router=router,
        )

    def _base_proposer(self) -> Proposer:
        kind = self.config.search.base
        if kind == "random":
            return ScreenedProposer(RandomProposer(self.space), self.rules)
        return ScreenedProposer(OptunaProposer(self.space, sampler=kind, seed=self.config.seed), self.rules)

    def _open(self, run: Run, state: StudyState) -> None:
        """Say what is studied, and measure the reference lines that are not there yet."""
        from agentlab.nas.references import reference_lines

        self._require_same_series(run.events)
        done = sum(1 for trial in state.trials if trial.decision)
        run.emit(
            "study.opened",
            summary=describe_series(self.series),
            trials=self.config.max_iterations,
            done=done,
            data=self.series.fingerprint,
        )
        known = {line["name"] for line in state.references}
        for line in reference_lines(self.series, self.config.data):
            if line.name not in known:
                run.emit("reference.measured", line.name, **line.as_dict())

    def _require_same_series(self, events: Sequence[Event]) -> None:
        """Errors on another series could not be compared with those that the run has."""
        if any(event.type == "study.opened" and event.data["data"] != self.series.fingerprint for event in events):
            raise DataError(
                f"{self.series.source} has changed since the run began; its errors could not be compared.",
                hint="Put the old file back, or start a new run.",
            )

    def _search(self, study: steps.Study) -> StudyState:
        """Iterate until the budget is spent or the space is."""
        budget = Budget(trials=self.config.max_iterations, seconds=self.config.max_seconds)
        state = study.state
        while exhausted(budget, _spent(state)) is None:
            self.context.stop.check()
            trial = steps.plan(study, state)
            if trial is None:
                study.run.emit("search.exhausted", reason="no untried point passes the rules")
                break
            trial = steps.execute(study, trial)
            state = steps.evaluate(study, state, trial)
            steps.update(study, state)
        return state

    def _score(self, run: Run, state: StudyState, device: str) -> TestScore:
        """The winner's test error: computed once, and again only if a longer search finds another winner."""
        from agentlab.nas.objective import stored_weights
        from agentlab.nas.training import evaluate, restore
        from agentlab.nas.windows import Windows

        best = state.best
        if best is None:
            raise AgentlabError(
                f"All {len(state.trials)} trials failed; the last one: {_last_error(state)}.",
                hint=f"Their tracebacks are in {run.path / 'events.jsonl'}.",
            )
        score = state.score
        if score is None or score.run_id != best.id:
            trial = with_params(self.base, best.proposal.params)
            model = restore(trial, self.series, stored_weights(run, best.id), device)
            metrics = evaluate(model, Windows(self.series, trial, device), "test")
            run.emit("winner.scored", best.id, mse=metrics.mse, mae=metrics.mae)
            score = TestScore(best.id, metrics.mse, metrics.mae)
        run.write_json("agent_state.json", agent_state(rebuild(run.events)))  # a kill may have come before this line
        return score

    def _result(self, events: Sequence[Event], score: TestScore, usage: Usage) -> NasResult:
        state = rebuild(events)
        best = state.best
        if best is None or best.value is None or best.result is None:
            raise AssertionError("a scored study has a finished winner")
        control, note = light_control(state.trials, self.config.seed, self.config.search.base)
        rows = trial_rows(state)
        return NasResult(
            series=describe_series(self.series),
            winner=Winner(
                run_id=best.id,
                source=best.proposal.source,
                params=dict(best.proposal.params),
                changes=changes(best.proposal.params, self.default),
                val_mse=best.value,
                test_mse=score.mse,
                test_mae=score.mae,
                parameters=best.result.metrics["parameters"],
            ),
            references=[ReferenceRow.model_validate(dict(line)) for line in state.references],
            trials=rows,
            sources=source_rows(rows),
            planner=planner(events, usage),
            control=control,
            control_note=note,
        )


def prepare(config: NasConfig, context: Context) -> NasExperiment:
    """The way in: everything that can be wrong with the input is found here, before a run folder exists."""
    from agentlab.llm.router import Router

    experiment = NasExperiment(config, context)
    with Router(config.llm, env=context.env, workspace=context.workspace) as router:
        router.check()
    return experiment


def _spent(state: StudyState) -> Spent:
    """Trials and their training seconds, as the events tell them: a resumed search counts like an uninterrupted one."""
    judged = [trial.result for trial in state.trials if trial.decision and trial.result]
    return Spent(trials=len(judged), seconds=sum(result.metrics.get("seconds", 0.0) for result in judged))


def _last_error(state: StudyState) -> str:
    last = state.trials[-1].result if state.trials else None
    return last.error if last else "none was run"


def planner(events: Sequence[Event], usage: Usage) -> Planner:
    """What the language model was asked and what it cost, over all sessions of the run."""
    calls = [event.data for event in events if event.type == CALLED]
    usage = usage if calls else Usage(0, 0, 0.0)  # nobody was asked: that is known
    return Planner(
        calls=len(calls),
        answered=sum(call["error"] is None for call in calls),
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cost_usd=usage.cost_usd,
    )


def _outcome(result: NasResult) -> Outcome:
    """The headline for the manifest."""
    return Outcome(
        metrics={
            "val_mse": Metric(value=result.winner.val_mse, unit="scaled", direction="lower"),
            "test_mse": Metric(value=result.winner.test_mse, unit="scaled", direction="lower"),
        },
        control=result.control,
        tokens=Tokens(input=result.planner.input_tokens, output=result.planner.output_tokens),
        cost_usd=result.planner.cost_usd,
    )
