"""A study's result for a reader: sentences and tables. Pure."""

from collections.abc import Sequence

from agentlab.nas.result import ModelRow, NasResult, Winner
from agentlab.runs.document import Block, Table, Text, number, silence, with_spread
from agentlab.search.types import legend, meaning

_STEPS = 12  # forecast steps a table lists; the picture and the JSON have them all


def summary(result: NasResult) -> list[Block]:
    """What the terminal shows."""
    sentences = [headline(result), *advice(result)]
    return [*map(Text, sentences), comparison(result), Text(result.control_note)]


def headline(result: NasResult) -> str:
    """One sentence."""
    w, best = result.winner, min(result.references, key=lambda r: r.test_mse)
    count = "1 trial" if len(result.trials) == 1 else f"{len(result.trials)} trials"
    return (
        f"Winner {w.run_id} of {count} ({w.source}, {meaning(w.source)}): "
        f"test MSE {with_spread(w.test_mse, w.test_mse_spread)}"
        f"{f' over {w.trainings} seeds' if w.trainings > 1 else ''}, "
        f"{_beside(w.test_mse / best.test_mse)} the best reference ({best.name}, {number(best.test_mse)}), "
        f"{w.parameters:,} weights."
    )


def advice(result: NasResult) -> list[str]:
    """What speaks against the winner (a simple forecast that is better, trainings that scatter), and silent models."""
    w, simple = result.winner, min(line.test_mse for line in result.references)
    found: list[str] = []
    if simple < w.test_mse:
        little = ", if by less than the winner's trainings scatter" if simple >= w.test_mse - _known_spread(w) else ""
        found.append(
            f"The simple forecast is better{little}; use it, or start a new search with more training or trials."
        )
    if w.unstable:
        found.append(
            f"The winner is unstable: the seed alone moves its validation MSE of {number(w.val_mse)} by "
            f"{number(w.val_mse_spread)} (one standard deviation of {w.trainings} trainings), so another training of "
            "it may be much worse. The one with the lowest validation error is kept."
        )
    return [*found, *_silent(result.models)]


def _silent(rows: Sequence[ModelRow]) -> list[str]:
    """Models that answered none of their calls, whatever they were asked for."""
    by_model = {row.model: [other for other in rows if other.model == row.model] for row in rows}
    return [
        silence(model, sum(row.calls for row in of_it), of_it[-1].reason)
        for model, of_it in by_model.items()
        if any(row.calls for row in of_it) and not any(row.answered for row in of_it)
    ]


def _known_spread(winner: Winner) -> float:
    return winner.test_mse_spread or 0.0


def comparison(result: NasResult) -> Table:
    """Winner, references and published figures, best test error first. Errors are on standardised data."""
    w = result.winner
    rows: list[tuple[float, tuple[str, str, str, str]]] = [
        (r.test_mse, (r.name, number(r.val_mse), number(r.test_mse), number(r.test_mae))) for r in result.references
    ]
    rows += [(p.mse, (f"{p.model}, published", "–", number(p.mse, 3), number(p.mae))) for p in result.published]
    mine = with_spread(w.val_mse, w.val_mse_spread), with_spread(w.test_mse, w.test_mse_spread), number(w.test_mae)
    rows.append((w.test_mse, (f"winner {w.run_id}", *mine)))
    rows.sort(key=lambda row: row[0])
    return Table(
        ("forecast", "validation MSE", "test MSE", "test MAE"),
        [row for _, row in rows],
        "The winner beside simple forecasts and published figures, lowest test error first",
    )


def published_table(result: NasResult) -> Table:
    """Where the published figures come from."""
    rows = [(p.model, f"{p.mse:.3f}", f"{p.mae:.3f}", p.source, p.note) for p in result.published]
    return Table(("model", "test MSE", "test MAE", "source", "note"), rows, "Published for this series and horizon")


def finalist_table(result: NasResult) -> Table:
    """The last round."""
    rows = [
        (
            f.run_id,
            number(f.search_val_mse),
            ", ".join(number(v) for v in f.val_mse) + (f", {f.failed} failed" if f.failed else ""),
            number(f.mean),
            "winner" if f.run_id == result.winner.run_id else "",
        )
        for f in result.finalists
    ]
    columns = ("trial", "validation MSE in the search", "at full budget, by seed", "mean", "")
    return Table(columns, rows, "Errors at full budget and in the search differ: the search trains on less")


def finalist_note(result: NasResult) -> str:
    """Whether the last round decided."""
    if all(row.mean is None for row in result.finalists):
        return "Every training of the last round failed; the winner is the accepted trial as the search has trained it."
    return (
        "The winner has the lowest mean; a finalist of which a training failed comes after those without failures. "
        "While the lowest mean lies above what another trial showed in the search, that one enters, too."
    )


def test_note(result: NasResult) -> str:
    """How often the test part was looked at."""
    if result.test_looks == 1:
        return "The test part was scored once, for the winner."
    return (
        f"The test part was scored {result.test_looks} times, because the search was extended after its figures had "
        "been seen; the last ones are a little too good to be true."
    )


def step_table(result: NasResult) -> Table:
    """Test MSE by forecast step, at most a dozen of them evenly spread."""
    last = len(result.by_step) - 1
    shown = sorted({round(last * i / (_STEPS - 1)) for i in range(_STEPS)}) if last >= _STEPS else range(last + 1)
    rows = [(str(i + 1), number(result.by_step[i])) for i in shown]
    return Table(("step ahead", "test MSE"), rows, "Test error of the winner by forecast step")


def channel_table(result: NasResult) -> Table:
    """Test error by column."""
    rows = [(c.name, number(c.mse), number(c.rmse)) for c in result.by_channel]
    columns = ("column", "test MSE", "root mean square error in its units")
    return Table(columns, rows, "Test error of the winner by column")


def configuration(result: NasResult) -> Table:
    """The winner's searched keys; a star marks what differs from trial 0."""
    w = result.winner
    rows = [(k, str(v), "*" if k in w.changes else "") for k, v in w.params.items()]
    return Table(("key", "value", "changed"), rows, "The winner's searched keys; * differs from trial 0")


def trial_table(result: NasResult) -> Table:
    """All trials in their order. Keys are cut to their last part, which the configuration table has in full."""
    rows = [
        (
            t.run_id,
            t.source,
            number(t.val_mse) + (f" (of {t.trainings})" if t.trainings > 1 else ""),
            "accepted" if t.accepted else ("failed" if t.error else ""),
            f"{t.parameters:,}" if t.parameters else "–",
            f"{t.seconds:.1f}" if t.seconds is not None else "–",
            ", ".join(f"{k.rpartition('.')[2]}={v}" for k, v in t.changes.items()) or "the default",
            t.error or t.note,
            t.reason + ("" if t.judge == "rule" else f" ({t.judge})"),
        )
        for t in result.trials
    ]
    columns = (
        "trial",
        "source",
        "validation MSE",
        "verdict",
        "weights",
        "seconds",
        "differs from trial 0",
        "note",
        "reason of the verdict",
    )
    return Table(columns, rows, f"Source, who proposed the trial: {legend(t.source for t in result.trials)}")


def source_table(result: NasResult) -> Table:
    """How each kind of proposal did."""
    rows = [(s.source, str(s.trials), str(s.failed), str(s.accepted), number(s.best_val_mse)) for s in result.sources]
    columns = ("source", "trials", "failed", "accepted", "best validation MSE")
    return Table(columns, rows, f"Trials by who proposed them: {legend(s.source for s in result.sources)}")


def model_table(result: NasResult) -> Table:
    """Each language model: how often it was asked, what was usable, what won, what it cost."""
    rows = [
        (
            m.model,
            m.task,
            str(m.calls),
            _share(m.answered, m.calls),
            _share(m.usable, m.calls),
            "–" if m.share is None else f"{m.share:.0%}",
            "–" if m.accepted is None else str(m.accepted),
            _known(m.input_tokens),
            _known(m.output_tokens),
            "unknown" if m.cost_usd is None else f"{m.cost_usd:.4f} USD",
        )
        for m in result.models
    ]
    columns = (
        "model",
        "task",
        "calls",
        "answered",
        "usable",
        "share of the trials",
        "wins",
        "tokens in",
        "tokens out",
        "cost",
    )
    return Table(columns, rows, "Language models; an answer is usable if a trial or an opinion came of it")


def opinion_note(result: NasResult) -> list[Block]:
    """What language models said of near ties, held against what the further trainings showed."""
    return [
        Text(
            f"Asked whether the gain of a near tie would last, {m.model} said what the further trainings then showed "
            f"in {m.agreed} of {m.checked} cases. Near ties are trained again whatever a model says."
        )
        for m in result.models
        if m.checked
    ]


def pair_table(result: NasResult) -> Table:
    """The paired studies of a full control."""
    rows = [(str(p.seed), number(p.agent), number(p.control), _difference(p.agent, p.control)) for p in result.pairs]
    columns = ("seed", "with the agent", "without", "lower by")
    return Table(columns, rows, "Lowest validation MSE of paired studies")


def importance_table(result: NasResult) -> Table:
    """How much of the differences between trials each searched key explains."""
    rows = [(key, f"{share:.0%}") for key, share in result.importances.items()]
    return Table(("key", "share"), rows, "Share of the differences between trials that each key explains")


def _beside(ratio: float) -> str:
    """How an error compares with another one, in words."""
    if 0.995 < ratio < 1.005:
        return "level with"
    if ratio < 1:
        return f"{1 - ratio:.0%} below"
    return f"{ratio - 1:.0%} above" if ratio < 2 else f"{ratio:.1f} times"


def _known(count: int | None) -> str:
    return "unknown" if count is None else f"{count:,}"


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole}"


def _difference(agent: float | None, control: float | None) -> str:
    return "–" if agent is None or control is None else f"{control - agent:+.4f}"
