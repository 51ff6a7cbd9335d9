"""What the agent adds: the light control inside a study, and the full one over pairs of studies.

The light control asks whether a trial was more of an improvement when the agent proposed it. It shares one history
between agent and optimiser, so each profits from the other. In the full one, each pair of studies has a seed, a first
trial and a budget in common, and nothing else.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import product

import numpy as np

from agentlab.errors import ConfigError
from agentlab.runs.branch import RunBranch
from agentlab.runs.document import AnswerDocument, Table, number
from agentlab.runs.run import OpenRun
from agentlab.search.types import meaning
from agentlab.stats.control import Control, ControlComparison, least_pairs, verdict_sentence
from agentlab.stats.studies import full_study, light_study
from agentlab.study.events import Branched, emit
from agentlab.study.setup import Setup
from agentlab.study.state import StudyState, TrialState
from agentlab.study.steps import search
from agentlab.study.terms import StudyTerms

MIN_PAIRED_TRIALS = 2
_LIGHT, _FULL = 2, 3  # streams of the generator, apart from those of single proposals


def improvements(trials: Sequence[TrialState]) -> list[float]:
    """For every trial after the shared first one: by how much it lowered the best value, as a share of it.

    A trial that failed or was no better improved by nothing. Pure.
    """
    lowest: float | None = None
    gains: list[float] = []
    for trial in trials:
        value = trial.value
        gain = max(0.0, (lowest - value) / lowest) if value is not None and lowest else 0.0
        if trial.arm != "shared":
            gains.append(gain)
        if value is not None:
            lowest = value if lowest is None else min(lowest, value)
    return gains


def describe_proposers(sources: Iterable[str]) -> str:
    """Who proposed, by what really ran: a short search of an optimiser may end within its start points. Pure."""
    counts = Counter(sources)
    if len(counts) == 1:
        return f"{meaning(next(iter(counts)))} alone"
    return ", ".join(f"{meaning(source)} ({count})" for source, count in counts.most_common()) or "no proposer"


def light_control(trials: Sequence[TrialState], seed: int, terms: StudyTerms) -> tuple[Control | None, str]:
    """The control record of a study and what it means in a sentence; no record without an agent.

    A trial stays in the arm that the coin gave it, even where the model failed and the optimiser stood in.
    """
    assigned_trials = [trial for trial in trials if trial.arm != "shared"]
    if not any(trial.probability for trial in assigned_trials):
        return None, "No language model took part, so there is no agent to compare."
    comparison = ControlComparison(
        agent="language model as proposer",
        control=describe_proposers(trial.proposal.source for trial in assigned_trials if trial.arm == "control"),
        metric=f"improvement of the best {terms.metric} per trial",
        unit="share of the best before",
        direction="higher",
        budget=f"{len(assigned_trials)} trials, assigned by a fair coin",
    )
    by_agent = [trial.arm == "agent" for trial in assigned_trials]
    rng = np.random.default_rng([seed, _LIGHT, len(trials)])
    control = light_study(comparison, improvements(trials), by_agent, rng, probability=assigned_trials[0].probability)
    agent_reasons = [trial.loss_reason for trial in assigned_trials if trial.arm == "agent"]
    control_reasons = [trial.loss_reason for trial in assigned_trials if trial.arm == "control"]
    control = unless_lost(control, {"the agent": agent_reasons, "the control": control_reasons})
    return control, light_sentence(control, sum(by_agent))


def unless_lost(control: Control, errors: Mapping[str, Sequence[str]]) -> Control:
    """The record; "not measured" if an arm, by its name in a sentence, lost trials: their worth is unknown."""
    last: dict[str, str] = {}
    for arm, reasons in errors.items():
        known_reasons = [reason for reason in reasons if reason]
        if known_reasons:
            last[arm] = known_reasons[-1]
    if not last:
        return control
    note = " and ".join(f"{arm} lost trials to a crash or a limit ({reason})" for arm, reason in last.items())
    nothing = {**dict.fromkeys(("estimate", "low", "high", "p", "smallest")), "supposing": ""}
    return control.model_copy(update={**nothing, "verdict": "not_measured", "method": "none", "note": note})


def light_sentence(control: Control, agent_trials: int) -> str:
    """What a light control says, for a reader."""
    if control.verdict == "not_measured":
        return f"{verdict_sentence(control, 'the agent', '')} Run more trials, or change the assignment with --seed."
    return verdict_sentence(control, "the agent", f"trials, {agent_trials} of them assigned to the agent")


class Pair(AnswerDocument):
    """Two studies of one seed: the lowest value with the agent and without; None where every trial failed.

    `spent` is what each took of the budget, and `lost` why a trial was lost to a crash or a limit, if one was.
    """

    seed: int
    agent: float | None
    control: float | None
    spent: tuple[int, int] | None = None
    lost: tuple[str, str] = ("", "")


def run_pairs(setup: Setup, run: OpenRun, main: StudyState, seed: int, pairs: int) -> list[Pair]:
    """Run the studies that the pairs lack; the main study is the agent's half of the first pair.

    All get the trainings that it was given, repeats included, and nobody reviews their proposals. Where a clock ended
    it they get as many as it had: another study would do more or less in the same time.
    """
    timed = setup.budget.get("seconds") is not None
    trainings = int(main.amount_spent("trainings") if timed else setup.budget["trainings"])
    halves = [(name, n) for n, name in product(range(pairs), ("agent", "control"))][1:]
    states = {("agent", 0): main}
    for position, (name, n) in enumerate(halves, start=1):
        branch, agent = RunBranch(run, f"{name}-{n}"), name == "agent"
        branched = Branched(seed + n, agent=agent, trials=trainings, place=position, of=len(halves))
        emit(branch, "study.branched", branch.name, branched)
        study = setup.study(branch, seed + n, agent=agent, budget={"trainings": trainings})
        try:
            states[name, n] = search(study, setup.check)
        finally:
            study.executor.close()
    return [_pair(seed + n, states["agent", n], states["control", n]) for n in range(pairs)]


def _pair(seed: int, agent: StudyState, control: StudyState) -> Pair:
    trainings_spent = int(agent.amount_spent("trainings")), int(control.amount_spent("trainings"))
    loss_reasons = _first_loss_reason(agent), _first_loss_reason(control)
    return Pair(seed=seed, agent=lowest(agent), control=lowest(control), spent=trainings_spent, lost=loss_reasons)


def _first_loss_reason(state: StudyState) -> str:
    return next((trial.loss_reason for trial in state.trials if trial.loss_reason), "")


def lowest(state: StudyState) -> float | None:
    """The lowest value that a study has measured."""
    return next((trial.value for trial in state.ranking), None)


def require_pairs(control: str, seeds: int, resumes: object) -> None:
    """See that a full control can show anything. Runs of earlier versions, which took five pairs, still go on.

    Raises:
        ConfigError: it cannot.
    """
    if control == "full" and seeds < least_pairs() and resumes is None:
        raise ConfigError(
            f"control_seeds: {seeds} pairs are too few to reach significance.",
            hint=f"Set control_seeds to {least_pairs()} or more; 8 pairs detect a difference of 1.2 standard "
            "deviations with 80% power.",
        )


def full_control(pairs: Sequence[Pair], budget: int, control: str, seed: int, terms: StudyTerms) -> Control:
    """The control record of paired studies, each with so many trainings.

    A pair with a study in which every trial failed is left out; one that lost trials leaves nothing to compare.
    """
    comparison = ControlComparison(
        agent="language model as proposer of about half of the trials, also asked about near ties",
        control=control,
        metric=f"lowest {terms.metric} of a study",
        unit=terms.unit,
        direction="lower",
        budget=f"at most {budget} {terms.measurement}s in each study, repeats included; both studies of a "
        "pair share the seed and the first trial",
    )
    return judge_pairs(comparison, pairs, seed)


def judge_pairs(comparison: ControlComparison, pairs: Sequence[Pair], seed: int) -> Control:
    """The control record of the pairs that are whole; not measured where an arm lost trials."""
    complete_pairs = [(p.agent, p.control) for p in pairs if p.agent is not None and p.control is not None]
    rng = np.random.default_rng([seed, _FULL, len(complete_pairs)])
    record = full_study(comparison, [a for a, _ in complete_pairs], [c for _, c in complete_pairs], rng)
    agent_reasons = [pair.lost[0] for pair in pairs]
    control_reasons = [pair.lost[1] for pair in pairs]
    return unless_lost(record, {"the agent": agent_reasons, "the control": control_reasons})


def pair_table(pairs: Sequence[Pair], terms: StudyTerms, higher: str = "", cost_name: str = "") -> Table:
    """The paired studies of a full control; `higher` names a metric that is no lowest value, `cost_name` the cost."""
    rows = [
        (
            str(pair.seed),
            number(pair.agent),
            number(pair.control),
            "–" if pair.spent is None else f"{pair.spent[0]:,} / {pair.spent[1]:,}",
            "–"
            if pair.agent is None or pair.control is None
            else f"{(pair.agent - pair.control) * (1 if higher else -1):+z.4f}",
        )
        for pair in pairs
    ]
    by, took = "higher by" if higher else "lower by", cost_name or f"{terms.measurement}s"
    columns = ("seed", "with agent", "without", f"{took} (with / without)", by)
    return Table(columns, rows, f"{higher or f'Lowest {terms.metric}'} in the paired studies")
