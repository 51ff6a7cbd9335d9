"""What all recipes came to: the front, the winner for the goal, and the search beside the whole portfolio. Pure."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from agentlab.compress.goal import Goal, Measure
from agentlab.compress.meter import Spent
from agentlab.compress.objective import REFERENCE, alone, counts
from agentlab.compress.recipe import Recipe, recipe_of
from agentlab.compress.result import CompressResult, ModelResult, RecipeRow, Volume
from agentlab.runs.manifest import Metric, Tokens
from agentlab.runs.run import Outcome
from agentlab.search.types import TrialResult
from agentlab.stats.control import Control
from agentlab.stats.fronts import dominates, front, hypervolume
from agentlab.study.calls import ModelRow, Planner, silent
from agentlab.study.state import TrialState

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
class Base:
    """What is compressed: its name, bytes in bfloat16, bytes of the file that the user has, a GGUF's main type.

    `grid`: its weights lie on a 4-bit grid already. `odd`: how many matrices have rows that 256 does not divide, and
    of how many. `chat`: it has a chat template. `left_out`: the remark on what it cannot go through.
    """

    name: str
    dense: int
    source: int
    stored: str | None = None
    grid: bool = False
    odd: tuple[int, int] = (0, 0)
    chat: bool = True
    left_out: str = ""


def verdict(
    base: Base,
    goal: Goal,
    searched: Sequence[TrialState],
    beside: Mapping[str, Sequence[TrialState]],
    made: Sequence[TrialState],
    agent: tuple[Control | None, str],
    run: Path,
    exports: str,
) -> ModelResult:
    """What came of a base.

    Args:
        base: what was compressed.
        goal: what for.
        searched: trials of the search, in their order.
        beside: trials of what it is held against, by name: `portfolio`, `random`, `tpe`.
        made: what was only remembered, and was made again to have its export.
        agent: what the agent was worth, and the sentence that says it.
        run: the run's folder.
        exports: the folder in it that exports lie in.
    """
    rows = rows_of({"made": made, "search": searched, **beside}, goal)
    done = [row for row in rows if not row.failed]
    best = [row for row in done if not row.research and not row.broken]  # what beats it may break a bound
    winner = min(best, key=lambda row: goal.worth(_shares(row), row.size or 0), default=None)
    volumes, beyond = _volumes(searched, beside)
    control, said = agent
    return ModelResult(
        base=base.name,
        exports=exports,
        dense=base.dense,
        source=base.source,
        sentence=_sentence(winner, goal, base, rows),
        remarks=[*_remarks(base, rows, volumes, beyond), *filter(None, [said])],
        winner=None if winner is None else winner.id,
        loads=[] if winner is None or winner.file is None else _loads(winner, base, str(run / exports / winner.file)),
        rows=rows,
        volumes=volumes,
        beyond=beyond,
        control=control,
    )


def answer(
    models: Sequence[ModelResult],
    goal: Goal,
    spent: Mapping[str, Spent],
    energy: str,
    over: str | None,
    calls: Planner,
    asked: Sequence[ModelRow],
) -> tuple[CompressResult, Outcome]:
    """The answer of a run.

    Args:
        models: what came of each base.
        goal: what for.
        spent: by each stage of all of the run.
        energy: where joules and grams are from.
        over: why the work ended early, if a budget did that.
        calls: of language models, all together.
        asked: the same, by model.
    """
    several = len(models) > 1
    result = CompressResult(
        sentence="\n".join(f"{each.base}: {each.sentence}" if several else each.sentence for each in models),
        remarks=[*([] if over is None else [f"The budget ended the work: {over}"]), *silent(asked)],
        goal=str(goal),
        models=list(models),
        stages={stage or "begin": asdict(cost) for stage, cost in spent.items()},
        **asdict(sum(spent.values(), Spent())),
        energy=energy,
        calls=calls,
        asked=list(asked),
    )
    metrics = {
        f"{each.base}.{name}" if several else name: metric for each in models for name, metric in _metrics(each).items()
    }
    control = None if several else models[0].control  # else each base has its own, in the report
    tokens = Tokens(input=calls.input_tokens, output=calls.output_tokens)
    return result, Outcome(metrics, control, tokens, calls.cost_usd)


def _loads(row: RecipeRow, base: Base, path: str) -> list[str]:
    kind = row.params.get("cache", "f16")
    cache = "" if kind == "f16" else f" -fa on --cache-type-k {kind} --cache-type-v {kind}"
    first, *others = _LOADS[row.format]
    commands = [first if base.chat or row.format != "gguf" else _UNTALKED, *others]
    return [command.format(path=shlex.quote(path), cache=cache) for command in commands]


def rows_of(arms: Mapping[str, Sequence[TrialState]], goal: Goal) -> list[RecipeRow]:
    """Each recipe once, as the first of the arms measured it that has it."""
    trials: dict[str, tuple[str, TrialState]] = {}
    for arm, some in arms.items():
        for trial in some:
            if trial.result is not None:
                trials.setdefault(str(recipe_of(trial.proposal.params)), (arm, trial))
    finished = [trial for _, trial in trials.values() if counts(trial)]
    best = {
        finished[place].id + str(finished[place].proposal.params) for place in front([t.objectives for t in finished])
    }
    rows = []
    for arm, trial in trials.values():
        assert trial.result is not None
        on_front = trial.id + str(trial.proposal.params) in best
        rows.append(_row(arm, trial, trial.result, recipe_of(trial.proposal.params), goal, on_front))
    return rows


def _row(arm: str, trial: TrialState, result: TrialResult, recipe: Recipe, goal: Goal, on_front: bool) -> RecipeRow:
    found = result.metrics
    shares = found.get("shares", {})
    return RecipeRow(
        id=trial.id if arm == "search" else f"{arm}/{trial.id}",
        recipe=str(recipe),
        family=recipe.family,
        format=recipe.format,
        source=trial.proposal.source,
        arm=arm,
        front=on_front,
        broken=goal.broken(shares, found["size"]) if shares else [],
        failed=result.error,
        research=recipe.research,
        params=dict(trial.proposal.params),
        share=shares.get("size"),
        speed=shares.get("speed"),
        **{key: found.get(key) for key in ("file", "size", "bits", "kl", "kl_weights", "loss", "top1", "decode")},
        **{key: found.get(key) for key in ("prefill", "load", "peak", "says")},
        held=found.get("held", {}),
        gpu=found.get("gpu", {}),
        **{key: found.get(key, 0.0) for key in ("seconds", "joules", "grams")},
        remembered=found.get("run", ""),
        why=trial.proposal.note,
    )


def _shares(row: RecipeRow) -> dict[Measure, float]:
    return {"size": row.share or 0.0, "speed": row.speed or 0.0, "loss": row.loss or 0.0, "kl": row.kl or 0.0}


def _volumes(
    searched: Sequence[TrialState], beside: Mapping[str, Sequence[TrialState]]
) -> tuple[list[Volume], list[str]]:
    """The search beside each other one at equal cost, and the recipes that none of the others dominates.

    What was remembered costs the search nothing; the others have no memory, and pay for it.
    """
    ours = [_joules(trial.result.metrics) if trial.result else 0.0 for trial in searched]
    found, measured = list[Volume](), list[TrialState]()
    for name, trials in beside.items():
        theirs = [_joules(alone(trial.result.metrics)) if trial.result else 0.0 for trial in trials]
        cost = min(sum(ours), sum(theirs))
        sides = (_until(searched, ours, cost), _until(trials, theirs, cost))
        if searched and trials:
            search, other = (hypervolume(side, REFERENCE) for side in sides)
            found.append(Volume(name=name, search=search, other=other, joules=cost))
            measured += [trial for trial in trials if counts(trial)]
    known = {str(recipe_of(trial.proposal.params)) for trial in measured}
    beyond = [
        trial.id
        for trial in searched
        if found
        and counts(trial)
        and str(recipe_of(trial.proposal.params)) not in known
        and not any(dominates(other.objectives, trial.objectives) for other in measured)
    ]
    return found, beyond


def _joules(metrics: Mapping[str, Any]) -> float:
    return float(metrics.get("joules", 0.0))


def _until(trials: Sequence[TrialState], costs: Sequence[float], most: float) -> list[tuple[float, ...]]:
    """Objectives of what had ended when so much was spent."""
    within = zip(trials, accumulate(costs), strict=True)
    return [trial.objectives for trial, spent in within if spent <= most * (1 + 1e-9) and counts(trial)]


def _sentence(winner: RecipeRow | None, goal: Goal, base: Base, rows: Sequence[RecipeRow]) -> str:
    if winner is None or winner.size is None:
        done = [row for row in rows if not row.failed]
        if not done:
            why = next((f": {row.id} ({row.recipe}): {row.failed}" for row in rows if row.failed), "")
            return f"No recipe was measured{why}."
        nearest = min(done, key=lambda row: goal.worth(_shares(row), row.size or 0))
        why = "; ".join([*(f"not {bound}" for bound in nearest.broken), *filter(None, [nearest.research])])
        near = f"The nearest is {nearest.id} ({nearest.recipe}): {why}."
        return f"No recipe reaches the goal ({goal}). {near}"
    larger = winner.size >= base.source
    begins = "The winner is no smaller than the source file: " if larger else ""
    return (
        f"{begins}{winner.id} ({winner.recipe}): {winner.size / 2**20:.1f} MiB, {winner.share:.0%} of the bfloat16 "
        f"base, {winner.size / base.source:.0%} of the source file; KL {winner.kl:.4f}, perplexity {winner.loss:+.1%}, "
        f"{winner.speed:.2f}x as fast as the source."
    )


def _remarks(base: Base, rows: Sequence[RecipeRow], volumes: Sequence[Volume], beyond: Sequence[str]) -> list[str]:
    found = [base.left_out] if base.left_out else []
    stored = base.stored not in (None, "F32", "F16", "BF16")
    if stored or base.grid:
        was = f"is quantised itself ({base.stored})" if stored else "lies on a 4-bit grid: it was quantised once"
        found.append(
            f"The source {was}, and its dequantised weights are the base: a recipe that meets its grid loses nothing "
            "here, which says nothing of other models."
        )
    if base.odd[0] and any(row.family == "k-quant" for row in rows):
        found.append(
            f"llama.cpp holds {base.odd[0]} of {base.odd[1]} matrices in another type than a k-quant names, for 256 "
            "does not divide their rows; the bits a weight are those of the file."
        )
    if volumes:
        sides = "; ".join(
            f"at {each.joules / 1e3:.2f} kJ each: search {each.search:.4f}, {each.name} alone {each.other:.4f}"
            for each in volumes
        )
        named = f": {', '.join(beyond)}" if beyond else ""
        found.append(f"Hypervolume {sides}. {len(beyond)} found that no recipe of these dominates{named}.")
    if saved := [row for row in rows if row.remembered]:
        runs = ", ".join(dict.fromkeys(row.remembered for row in saved))
        found.append(f"{len(saved)} of {len(rows)} recipes were measured by earlier runs, and not again: {runs}.")
    slow = [row.id for row in rows if row.speed is not None and row.speed < 1 and row.front]
    if slow:
        found.append(f"Slower than the source in the same runtime: {', '.join(slow)}.")
    return found


def forecast_remark(scores: Mapping[str, float]) -> list[str]:
    """How good forecasts were, see `transfer.scored`; nothing where there was none."""
    if not scores:
        return []
    return [
        f"A forecast of each recipe, made of what was known before it, would have been off by a factor of "
        f"{scores['kl']:.2f} in KL, {scores['size']:.2f} in bytes and {scores['joules']:.2f} in joules (medians of "
        f"{scores['count']:.0f}): so much are the estimates of this base worth."
    ]


def _metrics(model: ModelResult) -> dict[str, Metric]:
    found = {}
    winner = next((row for row in model.rows if row.id == model.winner), None)
    if winner is not None:
        found["size"] = Metric(value=float(winner.size or 0), unit="bytes", direction="lower")
        found["kl"] = Metric(value=winner.kl or 0.0, unit="nats a token", direction="lower")
        found["loss"] = Metric(value=winner.loss or 0.0, unit="rise of perplexity", direction="lower")
        found["speed"] = Metric(value=winner.speed or 0.0, unit="of the source", direction="higher")
    if model.volumes:
        most = max(model.volumes, key=lambda each: each.joules)
        found["hypervolume"] = Metric(value=most.search, direction="higher")
    return found
