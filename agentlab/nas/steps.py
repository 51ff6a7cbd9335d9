"""The four steps of an iteration: planner -> executor -> evaluator -> update.

Each step appends its outcome to the run's events before the next begins, so a killed study goes on from the step it
was in. All randomness of a proposal comes from (study seed, number of proposals before), never from what ran before
in this process. With several workers a step serves all of them: the planner fills the free ones, the executor waits
for whichever ends first.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from agentlab.nas.evaluator import Repeat, decide
from agentlab.nas.noise import Noise, measure
from agentlab.nas.state import Decision, StudyState, Training, TrialState, agent_state, rebuild, run_id
from agentlab.runs.branch import Branch
from agentlab.runs.context import Reviewer
from agentlab.runs.run import Run
from agentlab.search.assign import Assignment, assign
from agentlab.search.budget import Budget, Spent, exhausted
from agentlab.search.screen import Rules
from agentlab.search.types import Params, Proposal, Proposer, TrialContext, TrialExecutor, TrialResult, Value

if TYPE_CHECKING:
    from agentlab.llm.router import Router

_ASSIGN, _ASK = 0, 1  # independent streams of a proposal's generator
_ENOUGH = 2  # degrees of freedom of a noise estimate that stands for itself


@dataclass(frozen=True, slots=True)
class Study:
    """What the steps work with. `agent` is None when no language model is configured."""

    run: Run | Branch
    seed: int
    budget: Budget
    repeats: int  # of the first accepted trial of a family, to measure the noise
    noise: float | None  # given instead of measured
    default: Params
    control: Proposer
    agent: Proposer | None
    executor: TrialExecutor
    router: "Router | None"
    family: tuple[str, ...] = ()  # keys on which the noise depends
    rules: Rules | None = None
    reviewer: Reviewer | None = None
    scope: str = ""  # tells the language-model calls of parallel studies apart
    running: set[str] = field(default_factory=set)
    told: set[str] = field(default_factory=set)

    @property
    def state(self) -> StudyState:
        """The state that the events tell."""
        return rebuild(self.run.events)


def seed_of(study_seed: int, turn: int) -> int:
    """The seed of a training. Every trial's first one has the study's own: equal configurations tie."""
    return study_seed if turn == 0 else int(np.random.SeedSequence([study_seed, turn]).generate_state(1)[0])


def plan(study: Study, state: StudyState) -> StudyState:
    """Propose trials until every worker has one, the budget is planned or nothing is left to try."""
    while not state.judgeable and len(state.open) < study.executor.capacity and not _complete(study, state):
        _propose(study, state)
        state = study.state
    return state


def _complete(study: Study, state: StudyState) -> bool:
    """Whether no further trial may be proposed."""
    spent = Spent(trials=len(state.trials), seconds=state.seconds)
    return state.exhausted or exhausted(study.budget, spent) is not None


def _propose(study: Study, state: StudyState) -> None:
    number, history = len(state.trials), state.history
    if not history:
        _proposed(study, TrialState(0, Proposal(study.default, "default"), "shared", 0.0))
        return
    drawn = Assignment("control", 0.0)
    if study.agent is not None:
        drawn = assign(np.random.default_rng([study.seed, len(history), _ASSIGN]))
    proposer = study.agent if study.agent is not None and drawn.arm == "agent" else study.control
    offers = proposer.ask(history, 1, np.random.default_rng([study.seed, len(history), _ASK]))
    if not offers:
        study.run.emit("search.exhausted", reason="no untried point passes the rules")
        return
    proposal = _reviewed(study, state, offers[0])
    if proposal is None:
        name = f"refused_{len(history) - number:04d}"
        study.run.emit("proposal.refused", name, params=dict(offers[0].params), source=offers[0].source, note="")
        return
    _proposed(study, TrialState(number, proposal, drawn.arm, drawn.probability))


def _reviewed(study: Study, state: StudyState, proposal: Proposal) -> Proposal | None:
    """The proposal as a person wants it; None if turned down. Without a reviewer, as it is."""
    if study.reviewer is None or study.rules is None:
        return proposal
    best, space, against = state.best, study.rules.space, study.rules.against(state.history)

    def problems(params: Mapping[str, Value]) -> list[str]:
        point = space.reduce(params)
        idle = [f"{name} is not searched, or not active with these values" for name in params if name not in point]
        return idle or against(point)

    chosen = study.reviewer.review(
        run_id(len(state.trials)),
        proposal.params,
        compared_with=best.proposal.params if best else study.default,
        source=f"{proposal.source}: {proposal.note}" if proposal.note else proposal.source,
        problems=problems,
    )
    if chosen is None:
        return None
    edited = space.reduce(chosen)
    if edited == dict(proposal.params):
        return proposal
    return Proposal(edited, "human", f"edited, proposed by {proposal.source}")


def _proposed(study: Study, trial: TrialState) -> None:
    study.run.emit(
        "trial.proposed",
        trial.id,
        number=trial.number,
        params=dict(trial.proposal.params),
        source=trial.proposal.source,
        note=trial.proposal.note,
        arm=trial.arm,
        probability=trial.probability,
    )


def execute(study: Study, state: StudyState) -> StudyState:
    """Hand the open trainings to the workers and wait for the first to end."""
    return train(study, state.open)


def train(study: Study, trainings: list[Training]) -> StudyState:
    """Start as many of the trainings as there are workers, and record the first that ends."""
    for training in trainings:
        if training.name not in study.running and len(study.running) < study.executor.capacity:
            seed = seed_of(study.seed, training.turn)
            study.run.emit("trial.started", training.name, seed=seed)
            study.executor.submit(Proposal(training.params, ""), TrialContext(training.name, seed))
            study.running.add(training.name)
    if study.running:
        context, result = study.executor.completed()
        study.running.discard(context.name)
        _record(study, context.name, result)
    return study.state


def _record(study: Study, name: str, result: TrialResult) -> None:
    metrics: Mapping[str, object] = dict(result.metrics)
    if result.status == "finished":
        study.run.emit("trial.finished", name, value=result.value, metrics=metrics)
    else:
        study.run.emit("trial.failed", name, error=result.error, metrics=metrics)


def evaluate(study: Study, state: StudyState) -> StudyState:
    """Judge the trials that have ended, or have one trained again."""
    while state.judgeable:
        trial = state.judgeable[0]
        verdict = _verdict(study, state, trial)
        if isinstance(verdict, Repeat):
            opinion = asdict(verdict.opinion) if verdict.opinion else None
            study.run.emit("repeat.wanted", trial.id, count=verdict.count, reason=verdict.reason, opinion=opinion)
        else:
            study.run.emit(
                "decision.made",
                trial.id,
                accepted=verdict.accepted,
                reason=verdict.reason,
                by=verdict.by,
                val_mse=trial.value,
                source=trial.proposal.source,
            )
        state = study.state
    return state


def _verdict(study: Study, state: StudyState, trial: TrialState) -> Decision | Repeat:
    """Judge a trial. The first one that would be accepted of a family is trained again: it measures the noise there."""
    best = state.best
    verdict = decide(
        trial,
        best,
        noise_of(study, state, trial),
        study.router,
        noise_of_best=noise_of(study, state, best) if best else None,
        scope=study.scope,
    )
    accepted = isinstance(verdict, Decision) and verdict.accepted
    known = study.noise is not None or _measured(study, state, trial).freedom >= _ENOUGH
    if not accepted or known or trial.wanted or not study.repeats:
        return verdict
    return Repeat("to measure the noise", count=study.repeats)


def _measured(study: Study, state: StudyState, trial: TrialState) -> Noise:
    """The noise of a trial's family alone."""
    return measure(other.values for other in state.trials if _family(study, other) == _family(study, trial))


def noise_of(study: Study, state: StudyState, trial: TrialState) -> Noise:
    """What the seed alone does to the error of a trial, as given, or as measured so far.

    Trials that agree in the study's `family` keys are measured apart from the others as soon as they have repetitions
    enough: an architecture that starts from a linear forecast scatters ten times less than one that does not.
    """
    if study.noise is not None:
        return Noise(study.noise)
    alike = _measured(study, state, trial)
    return alike if alike.freedom >= _ENOUGH else measure(other.values for other in state.trials)


def _family(study: Study, trial: TrialState) -> list[object]:
    return [trial.proposal.params.get(key) for key in study.family]


def update(study: Study, state: StudyState) -> None:
    """Tell the proposers and rewrite the snapshot, which the events can always restore."""
    for trial in state.trials:
        if trial.decision and trial.id not in study.told:
            study.told.add(trial.id)
            for proposer in (study.control, study.agent):
                if proposer is not None:
                    proposer.tell(trial.as_trial())
    study.run.write_json("agent_state.json", agent_state(state))


def over(study: Study, state: StudyState) -> bool:
    """Whether nothing is left to do: no training under way, no trial to judge, no budget to plan with."""
    return not state.open and not state.judgeable and _complete(study, state)
