"""From a study's events to its result. Pure but for what the events hold."""

from collections.abc import Sequence
from statistics import fmean, stdev

from agentlab.llm.types import Usage
from agentlab.nas.baselines import published_rows
from agentlab.nas.config import NasConfig
from agentlab.nas.plan import describe_series
from agentlab.nas.result import (
    ChannelRow,
    FinalistRow,
    NasResult,
    NoiseRow,
    ReferenceRow,
    SourceRow,
    TrialRow,
    Winner,
    advice,
)
from agentlab.nas.series import Series
from agentlab.nas.study import TERMS
from agentlab.runs.manifest import Metric, RunTokens
from agentlab.runs.run import RunOutcome
from agentlab.search.importance import importances
from agentlab.search.types import Params
from agentlab.stats.control import Control, verdict_sentence
from agentlab.study.calls import model_rows, totals
from agentlab.study.control import Pair, describe_proposers, full_control, light_control
from agentlab.study.evaluator import SeedEvaluator
from agentlab.study.events import WinnerScores
from agentlab.study.finals import Finalist, LastRound, exported_candidate, finalists, winner
from agentlab.study.noise import unstable
from agentlab.study.state import StudyState, TrialState, changes, read_undamaged
from agentlab.study.steps import Study


def summarise(
    config: NasConfig, series: Series, study: Study, plan: LastRound, pairs: Sequence[Pair], usage: Usage
) -> NasResult:
    """The result of a study whose winner has been scored."""
    state, events = study.state, study.run.events
    first = winner(state, plan)
    assert first is not None
    assert state.scores is not None
    assert isinstance(study.evaluator, SeedEvaluator)
    noise, figures = study.evaluator.noise_of(first.trial, state), state.scores.figures
    default = study.starts[0].params
    rows = [_trial_row(trial, default) for trial in state.trials]
    measured = [event for event in events if event.type == "reference.measured"]
    reviewed = [read_undamaged(e, lambda e: e.data["reviewed"]) for e in events if e.type == "study.opened"]
    paired = [event for event in events if event.type == "trial.proposed" and event.id.startswith("control-")]
    paired_sources = [read_undamaged(event, lambda event: event.data["source"]) for event in paired]
    sources = [source for source in paired_sources if source != study.starts[0].source]
    control, note = _control(config, state, pairs, sources, reviewed=any(reviewed))
    result = NasResult(
        series=describe_series(series, config.data),
        winner=_winner(first, state.scores, default),
        references=[read_undamaged(e, lambda e: ReferenceRow.model_validate(e.data)) for e in measured],
        published=published_rows(series, config.data),
        test_looks=sum(event.type == "winner.scored" for event in events),
        by_step=list(figures["mse_by_step"]),
        by_channel=_channels(series, figures["mse_by_channel"]),
        finalists=[_finalist_row(finalist) for finalist in finalists(state, plan) if finalist.results],
        noise=NoiseRow(
            deviation=noise.deviation, trainings=noise.trainings, note=study.evaluator.describe_noises(state)
        ),
        trials=rows,
        sources=source_rows(rows),
        importances=importances(study.rules.space, state.history) if study.rules else {},
        planner=totals(events, usage),
        models=model_rows(events, TERMS),
        pairs=list(pairs),
        control=control,
        control_note=note,
    )
    return result.model_copy(update={"advice": advice(result)})


def outcome(result: NasResult) -> RunOutcome:
    """The headline for the manifest."""
    w = result.winner
    return RunOutcome(
        metrics={
            "val_mse": Metric(value=w.val_mse, spread=w.val_mse_spread, unit="scaled", direction="lower"),
            "test_mse": Metric(value=w.test_mse, spread=w.test_mse_spread, unit="scaled", direction="lower"),
        },
        control=result.control,
        tokens=RunTokens(input=result.planner.input_tokens, output=result.planner.output_tokens),
        cost_usd=result.planner.cost_usd,
    )


def source_rows(rows: Sequence[TrialRow]) -> list[SourceRow]:
    """The trials grouped by where they came from, in order of appearance."""
    trials_by_source: dict[str, list[TrialRow]] = {}
    for trial in rows:
        trials_by_source.setdefault(trial.source, []).append(trial)
    return [_source_row(source, trials) for source, trials in trials_by_source.items()]


def _source_row(source: str, trials: Sequence[TrialRow]) -> SourceRow:
    return SourceRow(
        source=source,
        trials=len(trials),
        failed=sum(1 for trial in trials if trial.error),
        accepted=sum(trial.accepted for trial in trials),
        best_val_mse=min((trial.val_mse for trial in trials if trial.val_mse is not None), default=None),
    )


def _control(
    config: NasConfig, state: StudyState, pairs: Sequence[Pair], sources: Sequence[str], *, reviewed: bool
) -> tuple[Control | None, str]:
    control, note = light_control(state.trials, config.seed, TERMS)
    if pairs:
        trainings = config.max_iterations if config.max_seconds is None else int(state.amount_spent("trainings"))
        control = full_control(pairs, trainings, describe_proposers(sources), config.seed, TERMS)
        note = verdict_sentence(control, "the agent", "pairs of studies")
    if reviewed and control is not None:
        note += f" A person reviewed the proposals of {'the main study' if pairs else 'both arms'}."
    return control, note


def _trial_row(trial: TrialState, default: Params) -> TrialRow:
    metrics = dict(trial.result.metrics) if trial.result else {}
    return TrialRow(
        run_id=trial.id,
        source=trial.proposal.source,
        arm=trial.arm,
        val_mse=trial.value,
        trainings=len(trial.values),
        accepted=bool(trial.decision and trial.decision.accepted),
        reason=trial.decision.reason if trial.decision else "",
        judge=trial.decision.by if trial.decision else "",
        parameters=metrics.get("parameters"),
        seconds=metrics.get("seconds"),
        changes=changes(trial.proposal.params, default),
        note=trial.proposal.note,
        error=trial.result.error if trial.result else "",
    )


def _winner(first: Finalist, scores: WinnerScores, default: Params) -> Winner:
    chosen, errors = exported_candidate(first), list(first.values.values())
    mse, mae = scores.figures["mse"], scores.figures["mae"]
    return Winner(
        run_id=first.trial.id,
        source=first.trial.proposal.source,
        params=dict(first.trial.proposal.params),
        changes=changes(first.trial.proposal.params, default),
        trainings=len(scores.names),
        val_mse=fmean(errors),
        val_mse_spread=_spread(errors),
        unstable=unstable(errors),
        test_mse=fmean(mse),
        test_mae=fmean(mae),
        test_mse_spread=_spread(mse),
        test_mae_spread=_spread(mae),
        parameters=int(first.results[chosen.name].metrics["parameters"]),
        exported=chosen.name,
    )


def _spread(values: Sequence[float]) -> float | None:
    return stdev(values) if len(values) > 1 else None


def _finalist_row(finalist: Finalist) -> FinalistRow:
    search, errors = finalist.trial.value, list(finalist.values.values())
    assert search is not None
    return FinalistRow(
        run_id=finalist.trial.id,
        search_val_mse=search,
        val_mse=errors,
        failed=finalist.failure_count,
        mean=finalist.mean,
    )


def _channels(series: Series, errors: Sequence[float]) -> list[ChannelRow]:
    deviations = [float(series.scaler.std[index]) for index in series.targets]
    return [
        ChannelRow(name=name, mse=mse, rmse=mse**0.5 * deviation)
        for name, mse, deviation in zip(series.target_names, errors, deviations, strict=True)
    ]
