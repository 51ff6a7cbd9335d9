"""What a language model is shown of a search, by how much can be asked of it. Pure functions of plain data.

A model sees the validation value that the search minimises and the metrics that were named for it, never a test
metric. The smaller the model, the more is said in ranks and relative changes and the less in raw numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from agentlab.llm.types import Message
from agentlab.search.history import ended_trials, finished_trials, incumbent, value_of
from agentlab.search.parameters import same, show
from agentlab.search.space import SearchSpace
from agentlab.search.types import Params, Trial

LETTERS = "ABCDEFGH"
_RECENT = 5
_TOP = 3
_ERROR = 80  # characters of a failure that a prompt repeats


@dataclass(frozen=True, slots=True)
class Briefing:
    """What the search is about. `shown` names the metrics of a trial that a model may see.

    The total number of trials is not in it: an extended search has to ask what an uninterrupted one would have asked.
    """

    goal: str
    metric: str
    shown: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        leaked = [name for name in (self.metric, *self.shown) if "test" in name.lower()]
        if leaked:
            raise ValueError(f"a proposer must not see {', '.join(leaked)}: choosing by the test set spoils it")


def pick_prompt(
    space: SearchSpace, history: Sequence[Trial], options: Sequence[Params], about: Briefing
) -> list[Message]:
    """One letter out of a few candidates, each written as its difference from the best configuration."""
    best = incumbent(history)
    if best is None:
        raise ValueError("there is no best configuration to compare with yet")
    base = best.proposal.params
    lines = [about.goal, f"Best so far: {configuration(space, base)}.", *_lessons(space, history, best)]
    changes = (f"{LETTERS[i]}) {difference(space, base, option)}" for i, option in enumerate(options))
    lines += ["Options, as changes to the best:", *changes]
    lines += [f"Which option is most likely to give a lower {about.metric}? Answer with its letter."]
    return [Message("system", "You tune a model. Answer in JSON with one letter."), Message("user", "\n".join(lines))]


def edit_prompt(space: SearchSpace, history: Sequence[Trial], about: Briefing) -> list[Message]:
    """One parameter of the best configuration and its new value."""
    best = incumbent(history)
    if best is None:
        raise ValueError("there is no configuration to edit yet")
    base = best.proposal.params
    lines = [about.goal, _progress(history), "Parameters of the current, best configuration:"]
    lines += [f"- {name} = {show(base[name])} ({space.parameters[name].describe()})" for name in base]
    lines += [*_rules(space), *_lessons(space, history, best)]
    lines += [
        f"Change one parameter so that the {about.metric} falls. Do not repeat a change listed above.",
        'Answer in JSON: {"param": name, "value": new value}.',
    ]
    return [Message("system", "You tune a model, one careful change at a time."), Message("user", "\n".join(lines))]


def full_prompt(space: SearchSpace, history: Sequence[Trial], about: Briefing) -> list[Message]:
    """A short hypothesis and up to three whole configurations."""
    lines = [about.goal, _progress(history), "Search space:"]
    lines += [f"- {name}: {spec.describe()}{_condition(space, name)}" for name, spec in space.parameters.items()]
    lines += [*_rules(space), f"Best trials ({about.metric}, lower is better):"]
    ranked = sorted(finished_trials(history), key=lambda trial: (value_of(trial), trial.number))
    lines += [_record(space, trial, about) for trial in ranked[:_TOP]]
    lines += ["Most recent trials:", *(_record(space, trial, about) for trial in ended_trials(history)[-_RECENT:])]
    lines += [
        "Give a short reason first, then one to three new configurations, the most promising first.",
        "A parameter that you leave null keeps its value from the best trial. Do not repeat a trial.",
    ]
    system = "You are an expert in hyperparameter and architecture search. Answer in JSON."
    return [Message("system", system), Message("user", "\n".join(lines))]


def configuration(space: SearchSpace, params: Params) -> str:
    """All values in one line, with names as short as they stay distinct."""
    names = short_names(space)
    return ", ".join(f"{names[name]} {show(value)}" for name, value in params.items())


def difference(space: SearchSpace, base: Params, params: Params) -> str:
    """What `params` changes in `base`: `lr 0.001 -> 0.003, dropout off`."""
    names = short_names(space)
    parts = []
    for name in space.parameters:
        old, new = base.get(name), params.get(name)
        if new is None and old is not None:
            parts.append(f"{names[name]} off")
        elif new is not None and (old is None or not same(old, new)):
            parts.append(f"{names[name]} {show(new)}" if old is None else f"{names[name]} {show(old)} -> {show(new)}")
    return ", ".join(parts) or "no change"


def short_names(space: SearchSpace) -> dict[str, str]:
    """The last part of each dotted name where that is unambiguous, else the whole name."""
    last = [name.rpartition(".")[2] for name in space.parameters]
    return {name: short if last.count(short) == 1 else name for name, short in zip(space.parameters, last, strict=True)}


def relative(value: float, best: float) -> str:
    """How far a value is above the best one, in words."""
    if value <= best:
        return "as good as the best"
    return f"{100 * (value - best) / abs(best):.2g} % worse than the best" if best else "worse than the best"


def _lessons(space: SearchSpace, history: Sequence[Trial], best: Trial) -> list[str]:
    """The last five trials as changes to the best configuration and what came of them."""
    top, lines = value_of(best), []
    for trial in ended_trials(history)[-_RECENT:]:
        value = value_of(trial)
        if top is not None and trial.number != best.number:
            outcome = "failed" if value is None else relative(value, top)
            lines.append(f"Tried: {difference(space, best.proposal.params, trial.proposal.params)}: {outcome}.")
    return lines


def _record(space: SearchSpace, trial: Trial, about: Briefing) -> str:
    value = value_of(trial)
    if value is None:
        outcome = f"failed ({' '.join(trial.result.error.split())[:_ERROR]})"
    else:
        extra = [f"{name} {show(trial.result.metrics[name])}" for name in about.shown if name in trial.result.metrics]
        outcome = ", ".join([f"{about.metric} {value:.5g}", *extra])
    name = f"trial {trial.number}" if trial.number >= 0 else "a proposal"
    return f"- {name}: {configuration(space, trial.proposal.params)}: {outcome}"


def _progress(history: Sequence[Trial]) -> str:
    done = ended_trials(history)
    return f"{len(done)} trials are done, {len(done) - len(finished_trials(done))} of them failed."


def _rules(space: SearchSpace) -> list[str]:
    return [f"Rule: {rule.describe()}." for rule in space.constraints]


def _condition(space: SearchSpace, name: str) -> str:
    when = space.parameters[name].when
    return "".join(f"; only if {parent} is {' or '.join(map(show, values))}" for parent, values in when.items())
