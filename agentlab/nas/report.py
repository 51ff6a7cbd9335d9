"""The report of a study: the same result as on the screen, with every trial and the pictures."""

from collections.abc import Callable

import yaml

from agentlab.nas import plots
from agentlab.nas.config import TrialConfig, with_params
from agentlab.nas.objective import stored_curve, stored_weights
from agentlab.nas.result import (
    ChannelRow,
    FinalistRow,
    NasResult,
    PublishedRow,
    SourceRow,
    TrialRow,
    advice,
    comparison,
    headline,
)
from agentlab.nas.series import Series
from agentlab.nas.study import TERMS
from agentlab.nas.training import restore
from agentlab.nas.windows import WindowForecast, Windows, predict_windows
from agentlab.runs.document import Block, Code, Figure, Heading, Report, Table, Text, columns_of, number, table
from agentlab.runs.folder import Folder
from agentlab.runs.run import OpenRun
from agentlab.search.types import legend
from agentlab.study.calls import model_table, opinion_notes
from agentlab.study.control import pair_table

_SHOWN_WINDOWS = 3
_STEPS = 12  # forecast steps a table lists; the picture and the JSON have them all
_ERROR, _CURVES, _FORECASTS = "plots/error_by_trial.svg", "plots/learning_curves.svg", "plots/forecasts.svg"
_BY_STEP, _FINALISTS = "plots/error_by_step.svg", "plots/finalists.svg"
_IMPORTANCES, _PAIRS = "plots/importances.svg", "plots/paired_studies.svg"


def study_report(run: OpenRun, result: NasResult, base: TrialConfig, series: Series, device: str) -> Report:
    """Draw the plots into the run folder, and say what they show."""
    trials = run.folder.folder("trials")
    finished = [trial.run_id for trial in result.trials if trial.val_mse is not None]
    curves = [curve for name in finished if (curve := stored_curve(trials, name)) is not None]
    pictures = {
        _ERROR: plots.error_by_trial(result, result.noise.deviation),
        _CURVES: plots.learning_curves(curves, result.winner.run_id),
        _FORECASTS: plots.forecasts(series.target_names[-1], winner_forecasts(trials, result, base, series, device)),
        _BY_STEP: plots.error_by_step(result.by_step),
    }
    rounds = [(row.run_id, row.val_mse) for row in result.finalists if row.val_mse]
    if rounds:
        pictures[_FINALISTS] = plots.finalists(rounds)
    if result.importances:
        pictures[_IMPORTANCES] = plots.importance_bars(result.importances)
    pairs = [(p.control, p.agent) for p in result.pairs if p.agent is not None and p.control is not None]
    if pairs:
        pictures[_PAIRS] = plots.paired_studies(pairs, "lowest validation MSE")
    for name, picture in pictures.items():
        run.write_text(name, picture)
    steps = "1 step" if len(result.by_step) == 1 else f"{len(result.by_step)} steps"
    return Report(
        title=f"Architecture search: Informer forecasting {series.target_names[-1]}, {steps} ahead",
        verdict=(headline(result), result.control_note),
        facts={"model": f"Informer, {result.winner.parameters:,} weights", "data": result.series},
        body=blocks(result, base, frozenset(pictures)),
        next_step=next_step(result, run.id),
        caveats=advice(result),
    )


def next_step(result: NasResult, run: str) -> str:
    """Forecast with the winner, or search on where a simple forecast is better."""
    if result.simple_error < result.winner.test_mse:
        return f"agentlab nas --resume {run} --max-iterations {2 * len(result.trials)}"
    return f"agentlab nas predict {run} --input new.csv --output forecast.csv"


def blocks(result: NasResult, base: TrialConfig, pictures: frozenset[str]) -> list[Block]:
    """The body of the report, in the order of a reader's questions."""
    return [
        *_quality(result),
        *_agent(result, pictures),
        *_trials(result, pictures),
        Heading("Best configuration"),
        configuration(result),
        Code(yaml.safe_dump(with_params(base, result.winner.params).model_dump(mode="json"), sort_keys=False)),
    ]


def _quality(result: NasResult) -> list[Block]:
    return [
        Heading("How good is it?"),
        Text(
            f"Errors are on standardised data, over every window of the split. {test_note(result)} The "
            "winner's figures are means over its training runs, ± one standard deviation."
        ),
        comparison(result),
        *([published_table(result)] if result.published else []),
        Figure(_FORECASTS, "Forecasts of the winner on test windows, and the actual values"),
        Figure(_BY_STEP, "Test error of the winner by forecast step"),
        step_table(result),
        channel_table(result),
    ]


def _agent(result: NasResult, pictures: frozenset[str]) -> list[Block]:
    section: list[Block] = [Heading("Did the agent help?"), Text(result.control_note)]
    if result.pairs:
        section.append(pair_table(result.pairs, TERMS))
    if _PAIRS in pictures:
        section.append(Figure(_PAIRS, "Lowest validation error in each pair of studies, without and with the agent"))
    section.append(source_table(result))
    if result.models:
        section.append(model_table(result.models))
    return [*section, *opinion_notes(result.models, TERMS)]


def _trials(result: NasResult, pictures: frozenset[str]) -> list[Block]:
    section: list[Block] = [
        Heading("Trials"),
        Text(
            f"{result.noise.note} A trial is accepted only if it is better by more than the noise can "
            "explain: beyond the 97.5% quantile of Student's t for the difference between the two means."
        ),
        Figure(_ERROR, "Validation error of every trial by source, with the best so far and the reference lines"),
        trial_table(result),
        Figure(_CURVES, "Validation error by epoch of every trial"),
    ]
    if _IMPORTANCES in pictures:
        section += [
            Heading("What mattered"),
            Figure(_IMPORTANCES, "Share of the variation between trials explained by each searched key"),
            importance_table(result),
        ]
    if result.finalists:
        section += [Heading("The last round"), Text(finalist_note(result))]
    if _FINALISTS in pictures:
        section.append(Figure(_FINALISTS, "Validation error of the finalists in the last round, by seed"))
    return [*section, *([finalist_table(result)] if result.finalists else [])]


def winner_forecasts(
    trials: Folder, result: NasResult, base: TrialConfig, series: Series, device: str
) -> list[WindowForecast]:
    """Evenly spread test windows, by the exported training."""
    trial = with_params(base, result.winner.params)
    model = restore(trial, series, stored_weights(trials, result.winner.exported), device)
    windows = Windows(series, trial, device)
    last = len(windows.starts("test")) - 1
    picks = sorted({last * index // (_SHOWN_WINDOWS - 1) for index in range(_SHOWN_WINDOWS)})
    return predict_windows(model, windows, "test", picks)


def published_table(result: NasResult) -> Table:
    """Where the published figures come from."""
    return table(
        result.published, columns_of(PublishedRow, *PublishedRow.model_fields), "Published for this series and horizon"
    )


def finalist_table(result: NasResult) -> Table:
    """The last round."""
    columns: dict[str, Callable[[FinalistRow], str | float | None]] = {
        **columns_of(FinalistRow, "run_id", "search_val_mse"),
        "in the last round, by seed": lambda f: (
            ", ".join(map(number, f.val_mse)) + (f", {f.failed} failed" if f.failed else "")
        ),
        **columns_of(FinalistRow, "mean"),
        "": lambda f: "winner" if f.run_id == result.winner.run_id else "",
    }
    caption = "The search and the last round may train on different shares of the windows, so their errors can differ"
    return table(result.finalists, columns, caption)


def finalist_note(result: NasResult) -> str:
    """Whether the last round decided."""
    if all(row.mean is None for row in result.finalists):
        return "Every training run in the last round failed; the winner is the trial accepted in the search."
    return (
        "The winner has the lowest mean; finalists with a failed training run rank last. "
        "Other trials whose error in the search is below the lowest mean "
        "also enter the last round while it has places."
    )


def test_note(result: NasResult) -> str:
    """How often the test part was looked at."""
    if result.test_looks == 1:
        return "The test split was scored once, for the winner."
    return (
        f"The test split was scored {result.test_looks} times, because the search was extended after "
        "a test score was known; the latest figures are slightly optimistic."
    )


def step_table(result: NasResult) -> Table:
    """Test MSE by forecast step, at most a dozen of them evenly spread."""
    last = len(result.by_step) - 1
    steps = sorted({round(last * i / (_STEPS - 1)) for i in range(_STEPS)}) if last >= _STEPS else range(last + 1)
    rows = [(str(i + 1), number(result.by_step[i])) for i in steps]
    return Table(("step ahead", "test MSE"), rows, "Test error of the winner by forecast step")


def channel_table(result: NasResult) -> Table:
    """Test error by column."""
    columns = columns_of(ChannelRow, *ChannelRow.model_fields)
    return table(result.by_channel, columns, "Test error of the winner by column")


def configuration(result: NasResult) -> Table:
    """The winner's searched keys; a star marks what differs from trial 0."""
    w = result.winner
    rows = [(k, str(v), "*" if k in w.changes else "") for k, v in w.params.items()]
    return Table(("key", "value", "changed"), rows, "The winner's searched keys; * marks a difference from trial 0")


def trial_table(result: NasResult) -> Table:
    """All trials in their order. Keys are cut to their last part, which the configuration table has in full."""
    columns: dict[str, Callable[[TrialRow], str]] = {
        **columns_of(TrialRow, "run_id", "source"),
        "validation MSE": lambda t: number(t.val_mse) + (f" (of {t.trainings})" if t.trainings > 1 else ""),
        "verdict": lambda t: "accepted" if t.accepted else ("failed" if t.error else ""),
        **columns_of(TrialRow, "parameters", "seconds"),
        "changes from trial 0": lambda t: (
            ", ".join(f"{k.rpartition('.')[2]}={v}" for k, v in t.changes.items()) or "none"
        ),
        "note": lambda t: t.error or t.note,
        "reason": lambda t: t.reason + ("" if t.judge == "rule" else f" ({t.judge})"),
    }
    return table(result.trials, columns, f"Sources of the trials: {legend(t.source for t in result.trials)}")


def source_table(result: NasResult) -> Table:
    """How each kind of proposal did."""
    columns = columns_of(SourceRow, *SourceRow.model_fields)
    return table(result.sources, columns, f"Trials by source: {legend(s.source for s in result.sources)}")


def importance_table(result: NasResult) -> Table:
    """How much of the differences between trials each searched key explains."""
    rows = [(key, f"{share:.0%}") for key, share in result.importances.items()]
    return Table(("key", "share"), rows, "Share of the variation between trials explained by each key")
