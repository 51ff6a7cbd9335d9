"""The report of a study: the same result as on the screen, with every trial and the pictures."""

import yaml

from agentlab.nas.config import TrialConfig, with_params
from agentlab.nas.forecast import predict_windows
from agentlab.nas.objective import stored_curve, stored_weights
from agentlab.nas.plots import Panel, error_by_trial, forecasts, learning_curves
from agentlab.nas.result import NasResult
from agentlab.nas.series import Series
from agentlab.nas.training import restore
from agentlab.nas.windows import Windows
from agentlab.runs.document import Block, Code, Figure, Heading, Text
from agentlab.runs.report import write_report
from agentlab.runs.run import Run

_SHOWN_WINDOWS = 3
_ERROR, _CURVES, _FORECASTS = "plots/error_by_trial.png", "plots/learning_curves.png", "plots/forecasts.png"


def write_study_report(run: Run, result: NasResult, base: TrialConfig, series: Series, device: str) -> None:
    """Draw the plots and write report.md and report.html."""
    finished = [trial.run_id for trial in result.trials if trial.val_mse is not None]
    run.write_bytes(_ERROR, error_by_trial(result))
    run.write_bytes(_CURVES, learning_curves([stored_curve(run, name) for name in finished], result.winner.run_id))
    run.write_bytes(_FORECASTS, forecasts(winner_forecasts(run, result, base, series, device)))
    trial = with_params(base, result.winner.params)
    write_report(run, f"Architecture search {run.id}", blocks(result, trial))


def blocks(result: NasResult, winner: TrialConfig) -> list[Block]:
    """What the report says, in the order a reader asks."""
    shown: list[Block] = [
        Text(result.headline()),
        *result.advice(),
        Text(result.series),
        Heading("How good is it"),
        Text(
            "Errors are on standardised data, over every window of the part. "
            "The test part was scored once, for the winner."
        ),
        result.comparison(),
        Figure(_FORECASTS, "Forecasts of the winner on test windows, with what really happened"),
        Heading("Did the agent help"),
        Text(result.control_note),
        result.source_table(),
        result.planner_table(),
        Heading("Trials"),
        Figure(_ERROR, "Validation error of every trial by its source, the best so far, and the reference lines"),
        result.trial_table(),
        Figure(_CURVES, "Validation error by epoch of every trial"),
        Heading("Best configuration"),
        result.configuration(),
        Code(yaml.safe_dump(winner.model_dump(mode="json"), sort_keys=False)),
    ]
    return shown


def winner_forecasts(run: Run, result: NasResult, base: TrialConfig, series: Series, device: str) -> list[Panel]:
    """The last target column on evenly spread test windows."""
    trial = with_params(base, result.winner.params)
    model = restore(trial, series, stored_weights(run, result.winner.run_id), device)
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
