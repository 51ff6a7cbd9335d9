"""What all recipes came to: the front, the winner for the goal, and the search beside the whole portfolio. Pure."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agentlab.compress.control import ended_within, joules_of, volume_of
from agentlab.compress.goal import Goal, Measure
from agentlab.compress.meter import CompressCost
from agentlab.compress.objective import ERR, counts, figures
from agentlab.compress.recipe import recipe_of
from agentlab.compress.result import (
    CompressModelResult,
    CompressResult,
    Confirmed,
    RecipeRow,
    Volume,
    speed_of,
    with_interval,
)
from agentlab.runs.manifest import Metric, RunTokens
from agentlab.runs.run import RunOutcome
from agentlab.stats.control import Control
from agentlab.stats.fronts import dominates, front
from agentlab.study.calls import ModelRow, Planner, silent
from agentlab.study.state import TrialState

CONFIRMATIONS, _FEWEST = 3, 8  # candidates that are confirmed at most, and the windows that it takes
_PYTHON = (
    'python -c "import sys; from transformers import pipeline; '
    "print(pipeline('text-generation', sys.argv[1])('Hello'))\" {path}"
)
_UNTALKED = (  # for a GGUF file without a chat template
    'python -c "import sys; from llama_cpp import Llama; '
    "print(Llama(sys.argv[1], verbose=False)('Hello')['choices'][0]['text'])\" {path}"
)
# The commands that load an export. The runtime of the first has loaded and measured it; the others read the format.
_LOADS: Mapping[str, tuple[str, ...]] = {
    "gguf": ("agentlab llm ask --model {path} Hello", "llama-server -m {path}{cache}"),
    "compressed-tensors": (_PYTHON, "vllm serve {path}"),
    "bitsandbytes": (_PYTHON,),
    "transformers": (_PYTHON, "vllm serve {path}"),
}


@dataclass(frozen=True, slots=True)
class BaseFacts:
    """What is compressed."""

    name: str
    dense: int = 0  # bytes in bfloat16
    source: int = 0  # bytes of the file that the user has
    stored: str | None = None  # a GGUF's main type
    grid: bool = False  # its weights lie on a 4-bit grid already
    odd: Sequence[int] = (0, 0)  # how many matrices have rows that 256 does not divide, and of how many
    chat: bool = True  # it has a chat template
    left_out: str = ""  # the remark on what it cannot go through


def verdict(
    base: BaseFacts,
    goal: Goal,
    searched: Sequence[TrialState],
    rivals: Mapping[str, Sequence[TrialState]],
    made_trials: Sequence[TrialState],
    agent: tuple[Control | None, str],
    confirmed: Mapping[str, Mapping[str, Any]],
    run: Path,
    exports: str,
) -> CompressModelResult:
    """What came of a base: trials of its search, of what it is held against (by name), and of what was made again.

    `agent` is what the agent was worth and the sentence that says it, `confirmed` by recipe the `losses` and `kls` of
    windows that nothing was chosen by (see `figures`), `exports` the folder in that of the run that exports lie in.
    """
    rows = rows_of({"made": made_trials, "search": searched, **rivals}, goal, confirmed)
    winner = _winner(rows, goal, len(confirmed))
    volumes, beyond, same = _volumes(searched, rivals)
    control, agent_remark = agent
    return CompressModelResult(
        base=base.name,
        exports=exports,
        dense=base.dense,
        source=base.source,
        sentence=_sentence(winner, goal, base, rows),
        remarks=[*_remarks(base, rows, winner), *_comparison(volumes, beyond, same), *filter(None, [agent_remark])],
        winner=None if winner is None else winner.id,
        loads=[] if winner is None or winner.file is None else _loads(winner, base, str(run / exports / winner.file)),
        rows=rows,
        volumes=volumes,
        beyond=beyond,
        control=control,
    )


def answer(
    models: Sequence[CompressModelResult],
    goal: Goal,
    stage_costs: Mapping[str, CompressCost],
    energy: str,
    remarks: Sequence[str],
    calls: Planner,
    model_calls: Sequence[ModelRow],
) -> tuple[CompressResult, RunOutcome]:
    """The answer of a run on one base or several, with what each of its stages has cost.

    `energy` says where joules and grams are from; `remarks` are on the budget; `calls` are those of language models all
    together, `model_calls` by model.
    """
    several = len(models) > 1
    result = CompressResult(
        sentence="\n".join(f"{model.base}: {model.sentence}" if several else model.sentence for model in models),
        remarks=[*remarks, *silent(model_calls)],
        goal=str(goal),
        models=list(models),
        stages={stage or "begin": asdict(cost) for stage, cost in stage_costs.items()},
        **sum(stage_costs.values(), CompressCost()).units,
        energy=energy,
        calls=calls,
        asked=list(model_calls),
    )
    metrics: dict[str, Metric] = {}
    for model in models:
        prefix = f"{model.base}." if several else ""
        metrics |= {f"{prefix}{name}": metric for name, metric in _metrics(model).items()}
    control = None if several else models[0].control  # else each base has its own, in the report
    tokens = RunTokens(input=calls.input_tokens, output=calls.output_tokens)
    return result, RunOutcome(metrics, control, tokens, calls.cost_usd)


def _loads(row: RecipeRow, base: BaseFacts, path: str) -> list[str]:
    kind = row.params.get("cache", "f16")
    cache = "" if kind == "f16" else f" -fa on --cache-type-k {kind} --cache-type-v {kind}"
    first, *other_commands = _LOADS[row.format]
    commands = [first if base.chat or row.format != "gguf" else _UNTALKED, *other_commands]
    return [command.format(path=shlex.quote(path), cache=cache) for command in commands]


def _winner(rows: Sequence[RecipeRow], goal: Goal, tried: int) -> RecipeRow | None:
    """The best that other text does not speak against; what beats it on the front may break a bound."""
    best = [row for row in rows if row.verdict == "meets" and not row.failed and not row.research]
    best = [row for row in best if (row.confirmed.verdict == "meets" if row.confirmed else tried < CONFIRMATIONS)]
    return min(best, key=lambda row: _worth(row, goal), default=None)


def rows_of(
    arms: Mapping[str, Sequence[TrialState]], goal: Goal, confirmed: Mapping[str, Mapping[str, Any]]
) -> list[RecipeRow]:
    """Each recipe once, as the first of the arms measured it that has it."""
    trials: dict[str, tuple[str, TrialState]] = {}
    for arm, some in arms.items():
        for trial in some:
            if trial.result is not None:
                trials.setdefault(_name(trial), (arm, trial))
    objectives = {name: trial.objectives for name, (_, trial) in trials.items() if counts(trial)}
    names = list(objectives)
    best = {names[index] for index in front(list(objectives.values()))}
    return [_row(arm, trial, goal, name in best, confirmed.get(name)) for name, (arm, trial) in trials.items()]


def _confirm_row(row: RecipeRow, goal: Goal, losses: Sequence[float], kls: Sequence[float]) -> Confirmed:
    """What other text says of a recipe; too little of it says nothing against it."""
    if len(losses) < _FEWEST:
        return Confirmed(windows=0, figures={}, within={}, verdict=row.verdict)
    values, within = figures(losses, kls, 1 - ERR / CONFIRMATIONS)
    verdict = goal.verdict({**_shares(row), **values}, row.size or 0, {**row.within, **within})
    return Confirmed(windows=len(losses), figures=values, within=within, verdict=verdict)


def _row(arm: str, trial: TrialState, goal: Goal, on_front: bool, confirmed: Mapping[str, Any] | None) -> RecipeRow:
    assert trial.result is not None
    recipe, result, metrics = recipe_of(trial.proposal.params), trial.result, trial.result.metrics
    shares, within = metrics.get("shares", {}), metrics.get("within", {})
    measured = shares, int(metrics.get("size", 0)), within
    row = RecipeRow(
        **{name: metrics[name] for name in RecipeRow.model_fields if name in metrics},
        id=trial.id if arm == "search" else f"{arm}/{trial.id}",
        recipe=str(recipe),
        family=recipe.family,
        format=recipe.format,
        source=trial.proposal.source,
        arm=arm,
        front=on_front,
        broken=goal.broken(*measured) if shares else [],
        verdict=goal.verdict(*measured) if shares else "undecided",
        windows=len(metrics.get("losses", result.items)),
        failed=result.error,
        research=recipe.research,
        params=dict(trial.proposal.params),
        share=shares.get("size"),
        speed=shares.get("speed"),
        remembered=metrics.get("run", ""),
        why=trial.proposal.note,
    )
    return row if confirmed is None else row.model_copy(update={"confirmed": _confirm_row(row, goal, **confirmed)})


def _shares(row: RecipeRow) -> dict[Measure, float]:
    return {"size": row.share or 0.0, "speed": row.speed or 0.0, "loss": row.loss or 0.0, "kl": row.kl or 0.0}


def _worth(row: RecipeRow, goal: Goal) -> float:
    return goal.worth(_shares(row), row.size or 0, row.within)


def _volumes(
    searched: Sequence[TrialState], rivals: Mapping[str, Sequence[TrialState]]
) -> tuple[list[Volume], list[str], list[str]]:
    """The search beside each other one at equal cost, the recipes that none of these dominates, and who had the same.

    What was remembered costs the search nothing; the others have no memory, and pay for it.
    """
    ours = [trial.result.metrics.get("joules", 0.0) if trial.result else 0.0 for trial in searched]
    volumes, same, measured = list[Volume](), list[str](), list[TrialState]()
    for name, trials in rivals.items():
        theirs = joules_of(trials)
        cost = min(sum(ours), sum(theirs))
        search, rival = ended_within(searched, ours, cost), ended_within(trials, theirs, cost)
        # Which of the same recipes had ended by then is a matter of what thinking costs, and of the order.
        if _names(search) - _names(trials) or _names(rival) - _names(searched):
            volumes.append(Volume(name=name, search=volume_of(search), other=volume_of(rival), joules=cost))
        elif _names(searched):
            same.append(name)
        measured += [trial for trial in trials if counts(trial)]
    measured_names = _names(measured)
    new = [trial for trial in searched if measured_names and counts(trial) and _name(trial) not in measured_names]
    beyond = [trial.id for trial in new if not _is_dominated(trial, measured)]
    return volumes, beyond, same


def _is_dominated(trial: TrialState, rivals: Sequence[TrialState]) -> bool:
    return any(dominates(rival.objectives, trial.objectives) for rival in rivals)


def _comparison(volumes: Sequence[Volume], beyond: Sequence[str], same: Sequence[str]) -> list[str]:
    remarks = [
        f"At equal cost, the search and {name} tried the same recipes, so there is nothing to compare." for name in same
    ]
    if volumes:
        sides = [f"at {v.joules / 1e3:.2f} kJ each: search {v.search:.4f}, {v.name} {v.other:.4f}" for v in volumes]
        named = f": {', '.join(beyond)}" if beyond else ""
        remarks.append(
            f"Hypervolume {'; '.join(sides)}. The search found {len(beyond)} recipes that no "
            f"baseline recipe dominates{named}."
        )
    return remarks


def _names(trials: Sequence[TrialState]) -> set[str]:
    return {_name(trial) for trial in trials if counts(trial)}


def _name(trial: TrialState) -> str:
    return str(recipe_of(trial.proposal.params))


def _sentence(winner: RecipeRow | None, goal: Goal, base: BaseFacts, rows: Sequence[RecipeRow]) -> str:
    if winner is not None and winner.size is not None:
        begins = "The winner is not smaller than the source file: " if winner.size >= base.source else ""
        return (
            f"{begins}{winner.id} ({winner.recipe}): {winner.size / 2**20:.1f} MiB, {winner.share:.0%} of "
            f"the bfloat16 base, {winner.size / base.source:.0%} of the source file; {_quality(winner)}; "
            f"speed relative to the source {speed_of(winner)}."
        )
    done = [row for row in rows if not row.failed]
    if not done:
        reason = next((f": {row.id} ({row.recipe}): {row.failed}" for row in rows if row.failed), "")
        return f"No recipe was measured{reason}."
    nearest = min(done, key=lambda row: _worth(row, goal))
    lacks = [*(f"fails {bound}" for bound in nearest.broken), *filter(None, [nearest.research])]
    if nearest.confirmed:
        lacks.append(f"on fresh text: {nearest.confirmed.verdict}, {_quality(nearest)}")
    near = f"The closest is {nearest.id} ({nearest.recipe}): {'; '.join(lacks) or 'undecided'}."
    return f"No recipe meets the goal ({goal}). {near}"


def _quality(row: RecipeRow) -> str:
    """Loss and KL with intervals, as far as they were measured on text that no choice saw; else of the last look."""
    confirmation = row.confirmed if row.confirmed and row.confirmed.windows else None
    figures, within = (confirmation.figures, confirmation.within) if confirmation else (_shares(row), row.within)
    parts = [f"perplexity {with_interval(figures['loss'], within.get('loss'), '+.2%')}"]
    parts += [f"KL {with_interval(figures['kl'], within.get('kl'), '.4f')}"] if "kl" in figures else []
    return ", ".join(parts) + (
        f", on {confirmation.windows} held-out windows not used for any choice" if confirmation else ""
    )


def _remarks(base: BaseFacts, rows: Sequence[RecipeRow], winner: RecipeRow | None) -> list[str]:
    remarks = [base.left_out] if base.left_out else []
    if winner and not (winner.confirmed and winner.confirmed.windows):
        reason = "the text has too few unused held-out windows" if winner.confirmed else "the run ended first"
        remarks.append(f"The figures are not confirmed on fresh text: {reason}.")
    stored = base.stored not in (None, "F32", "F16", "BF16")
    if stored or base.grid:
        was = f"is already quantised ({base.stored})" if stored else "lies on a 4-bit grid, so it was quantised before"
        remarks.append(
            f"The source {was}, and the base consists of its dequantised weights, so recipes on the same grid "
            "look lossless here; this does not carry over to other models."
        )
    if base.odd[0] and any(row.family == "k-quant" for row in rows):
        remarks.append(
            f"llama.cpp stores {base.odd[0]} of {base.odd[1]} matrices in a different type than the k-quant's "
            "name suggests, because their row length is not a multiple of 256; bits per weight are those of the file."
        )
    if saved := [row for row in rows if row.remembered]:
        runs = ", ".join(dict.fromkeys(row.remembered for row in saved))
        remarks.append(f"{len(saved)} of {len(rows)} recipes are reused from earlier runs: {runs}.")
    if slow := [row.id for row in rows if row.front and row.within.get("speed", (0, row.speed or 1))[1] < 1]:
        remarks.append(f"Slower than the source in the same runtime: {', '.join(slow)}.")
    return remarks


def forecast_remark(scores: Mapping[str, float]) -> str:
    """How good forecasts were, see `transfer.score_forecasts`."""
    return (
        "A forecast of each recipe from earlier measurements alone would have been off by a factor "
        f"of {scores['kl']:.2f} in KL, {scores['size']:.2f} in bytes and {scores['joules']:.2f} in "
        f"joules (medians over {scores['count']:.0f} recipes); estimates for this base are about as "
        "accurate."
    )


def _metrics(model: CompressModelResult) -> dict[str, Metric]:
    metrics = {}
    winner = next((row for row in model.rows if row.id == model.winner), None)
    if winner is not None:
        shares = {**_shares(winner), **(winner.confirmed.figures if winner.confirmed else {})}
        metrics["size"] = Metric(value=float(winner.size or 0), unit="bytes", direction="lower")
        metrics["kl"] = Metric(value=shares["kl"], unit="nats a token", direction="lower")
        metrics["loss"] = Metric(value=shares["loss"], unit="rise of perplexity", direction="lower")
        metrics["speed"] = Metric(value=shares["speed"], unit="of the source", direction="higher")
    if model.volumes:
        costliest = max(model.volumes, key=lambda volume: volume.joules)
        metrics["hypervolume"] = Metric(value=costliest.search, direction="higher")
    return metrics
