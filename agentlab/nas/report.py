"""The report of a study: the same result as on the screen, with every trial and the pictures."""

import yaml

from agentlab.nas import tables
from agentlab.nas.config import TrialConfig, with_params
from agentlab.nas.forecast import predict_windows
from agentlab.nas.objective import stored_curve, stored_weights
from agentlab.nas.plots import (
    Panel,
    error_by_step,
    error_by_trial,
    finalists,
    forecasts,
    importance_bars,
    learning_curves,
    paired_studies,
)
from agentlab.nas.result import NasResult
from agentlab.nas.series import Series
from agentlab.nas.training import restore
from agentlab.nas.windows import Windows
from agentlab.runs.document import Block, Code, Figure, Heading, Text
from agentlab.runs.folder import Folder
from agentlab.runs.report import write_report
from agentlab.runs.run import Run

_SHOWN_WINDOWS = 3
_ERROR, _CURVES, _FORECASTS = "plots/error_by_trial.png", "plots/learning_curves.png", "plots/forecasts.png"
_STEPS, _FINALISTS = "plots/error_by_step.png", "plots/finalists.png"
_IMPORTANCES, _PAIRS = "plots/importances.png", "plots/paired_studies.png"


def write_study_report(run: Run, result: NasResult, base: TrialConfig, series: Series, device: str) -> None:
    """Draw the plots and write report.md and report.html."""
    trials = run.folder.folder("trials")
    finished = [trial.run_id for trial in result.trials if trial.val_mse is not None]
    curves = [curve for name in finished if (curve := stored_curve(trials, name)) is not None]
    pictures = {
        _ERROR: error_by_trial(result, result.noise.deviation),
        _CURVES: learning_curves(curves, result.winner.run_id),
        _FORECASTS: forecasts(winner_forecasts(trials, result, base, series, device)),
        _STEPS: error_by_step(result.by_step),
    }
    rounds = [(row.run_id, row.val_mse) for row in result.finalists if row.val_mse]
    if rounds:
        pictures[_FINALISTS] = finalists(rounds)
    if result.importances:
        pictures[_IMPORTANCES] = importance_bars(result.importances)
    pairs = [(p.agent, p.control) for p in result.pairs if p.agent is not None and p.control is not None]
    if pairs:
        pictures[_PAIRS] = paired_studies([(without, with_) for with_, without in pairs], "lowest validation MSE")
    for name, picture in pictures.items():
        run.write_bytes(name, picture)
    write_report(run, f"Architecture search {run.id}", blocks(result, base, frozenset(pictures)))


def blocks(result: NasResult, base: TrialConfig, pictures: frozenset[str]) -> list[Block]:
    """What the report says, in the order a reader asks."""
    return [
        *_quality(result),
        *_agent(result, pictures),
        *_trials(result, pictures),
        Heading("Best configuration"),
        tables.configuration(result),
        Code(yaml.safe_dump(with_params(base, result.winner.params).model_dump(mode="json"), sort_keys=False)),
    ]


def _quality(result: NasResult) -> list[Block]:
    shown: list[Block] = [
        Text(tables.headline(result)),
        *map(Text, tables.advice(result)),
        Text(result.series),
        Heading("How good is it"),
        Text(
            f"Errors are on standardised data, over every window of the part. {tables.test_note(result)} The winner's "
            "figures are means over its trainings, ± one standard deviation."
        ),
        tables.comparison(result),
    ]
    if result.published:
        shown.append(tables.published_table(result))
    shown += [
        Figure(_FORECASTS, "Forecasts of the winner on test windows, with what really happened"),
        Figure(_STEPS, "Test error of the winner by forecast step"),
        tables.step_table(result),
        tables.channel_table(result),
    ]
    return shown


def _agent(result: NasResult, pictures: frozenset[str]) -> list[Block]:
    shown: list[Block] = [Heading("Did the agent help"), Text(result.control_note)]
    if result.pairs:
        shown.append(tables.pair_table(result))
    if _PAIRS in pictures:
        shown.append(Figure(_PAIRS, "Lowest validation error of each pair of studies, without and with the agent"))
    shown.append(tables.source_table(result))
    if result.models:
        shown.append(tables.model_table(result))
    return [*shown, *tables.opinion_note(result)]


def _trials(result: NasResult, pictures: frozenset[str]) -> list[Block]:
    shown: list[Block] = [
        Heading("Trials"),
        Text(
            f"{result.noise.note} A trial is accepted only if it is better by more than the noise explains: beyond the "
            "97.5 % quantile of Student's t for the difference of the two means."
        ),
        Figure(_ERROR, "Validation error of every trial by its source, the best so far, and the reference lines"),
        tables.trial_table(result),
        Figure(_CURVES, "Validation error by epoch of every trial"),
    ]
    if _IMPORTANCES in pictures:
        shown += [
            Heading("What mattered"),
            Figure(_IMPORTANCES, "Share of the differences between trials that each searched key explains"),
            tables.importance_table(result),
        ]
    if result.finalists:
        shown += [Heading("The last round"), Text(tables.finalist_note(result))]
    if _FINALISTS in pictures:
        shown.append(Figure(_FINALISTS, "Validation error of the finalists at full budget, by seed"))
    return [*shown, *([tables.finalist_table(result)] if result.finalists else [])]


def winner_forecasts(trials: Folder, result: NasResult, base: TrialConfig, series: Series, device: str) -> list[Panel]:
    """The last target column on evenly spread test windows, by the exported training."""
    trial = with_params(base, result.winner.params)
    model = restore(trial, series, stored_weights(trials, result.winner.exported), device)
    windows = Windows(series, trial, device)
    last = len(windows.starts("test")) - 1
    picks = sorted({last * index // (_SHOWN_WINDOWS - 1) for index in range(_SHOWN_WINDOWS)})
    return [
        Panel(
            title=f"{series.target_names[-1]}, forecast from {str(found.dates[0])[:16]}",
            past=found.past[:, -1],
            truth=found.future[:, -1],
            forecast=found.predicted[:, -1],
        )
        for found in predict_windows(model, windows, "test", picks)
    ]
