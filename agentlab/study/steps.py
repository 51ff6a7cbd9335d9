"""The four steps of an iteration: planner -> executor -> evaluator -> update.

Each step appends its outcome to the run's events before the next begins, so a killed study goes on from the step it
was in. All randomness of a proposal comes from (study seed, number of proposals before), never from what ran before
in this process. With several workers a step serves all of them: the planner fills the free ones, the executor waits
for whichever ends first.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from agentlab.runs.branch import RunBranch
from agentlab.runs.run import OpenRun
from agentlab.search.history import batches
from agentlab.search.screen import ScreenRules
from agentlab.search.types import Params, Proposal, Proposer, Trial, TrialResult
from agentlab.study.evaluator import Evaluator
from agentlab.study.events import Arm, Closed, Decision, Proposed, Reason, Repeat, ResultBatch, emit
from agentlab.study.executor import TrialExecutor
from agentlab.study.state import StudyCandidate, StudyState, TrialState, agent_state, rebuild, trial_id
from agentlab.study.terms import StudyTerms

_ASSIGN, _ASK = 0, 1  # independent streams of a proposal's generator
FAIR = 0.5  # probability of the agent's arm
WORST = {"trainings": 1.0}


class Reviewer(Protocol):
    """A person who looks at every proposal before it costs anything."""

    def review(
        self, name: str, params: Params, *, compared_with: Params, source: str, problems: Callable[[Params], list[str]]
    ) -> Params | None:
        """The configuration to try: as proposed or edited so that `problems` finds nothing; None to turn it down.

        Raises:
            Interrupted: nobody answers any more.
        """


@dataclass(frozen=True, slots=True)
class Study:
    """What the steps work with. `agent` is None when no language model is configured.

    `budget` bounds what the search spends in total, earlier parts of a resumed one included: `trials`, `trainings`
    (with repeats), or any metric of the trials. It decides when to stop, never what a trial contains. `worst` is what a
    measurement costs at most, in units that are counted: one begins only if that and the worst of all open ones fit
    into what is left, so these are never passed. `trials` are counted one by one. Any other unit, such as `seconds`, is
    measured: what was begun before it was spent is finished.

    `starts` are the first trials, which all studies of a run share, and `history_filter` is what proposers are shown of
    the history: a pure function of it. `share` is how probably the agent gets the next trial, in [0.01, 0.99]: a pure
    function of the trials before.
    """

    run: OpenRun | RunBranch
    terms: StudyTerms
    seed: int
    budget: Mapping[str, float]
    starts: Sequence[Proposal]
    baseline_proposer: Proposer
    agent: Proposer | None
    executor: TrialExecutor
    evaluator: Evaluator
    rules: ScreenRules | None = None
    reviewer: Reviewer | None = None
    history_filter: Callable[[Sequence[Trial]], Sequence[Trial]] = lambda history: history
    share: Callable[[Sequence[TrialState]], float] = lambda _: FAIR
    worst: Mapping[str, float] = field(default_factory=WORST.copy)
    in_flight: set[str] = field(default_factory=set)

    @property
    def state(self) -> StudyState:
        return rebuild(self.run.events, self.terms.figures)


def search(study: Study, check: Callable[[], None], after: Callable[[StudyState], None] = lambda _: None) -> StudyState:
    """Iterate until the budget is spent or the space is. `check` raises where a signal asked to stop.

    `after` hears of the state at the end of every iteration, and once more of one that was found finished.
    """
    state = study.state
    while not is_over(study, state):
        check()
        state = plan(study, state)
        state = execute(study, state)
        state = evaluate(study, state)
        write_snapshot(study, state)
        after(state)
    after(state)
    return state


def seed_of(study_seed: int, turn: int) -> int:
    """The seed of a measurement. Every trial's first one has the study's own: equal configurations tie."""
    return study_seed if turn == 0 else int(np.random.SeedSequence([study_seed, turn]).generate_state(1)[0])


def plan(study: Study, state: StudyState) -> StudyState:
    """Propose trials until every worker has one, the budget is planned or nothing is left to try.

    A batch that the budget cuts short is closed: what its trials leave of their worst case goes to the next one.
    """
    while not state.judgeable and _has_room(study.executor, state) and not _complete(study, state):
        _propose(study, state)
        state = study.state
    growing = _growing(study.executor, state)
    if growing and not state.judgeable and _complete(study, state):
        emit(study.run, "batch.closed", growing[-1].id, Closed())
        state = study.state
    return state


def _has_room(executor: TrialExecutor, state: StudyState) -> bool:
    """Whether one more trial may be open. A batch waits for the decisions on all before it.

    Which batch a trial belongs to follows from the events, so a kill while one is planned changes none.
    """
    before = len(state.trials) - len(_growing(executor, state)) if executor.in_batches else 0
    return len(state.pending) < executor.capacity and all(trial.decision for trial in state.trials[:before])


def _growing(executor: TrialExecutor, state: StudyState) -> list[TrialState]:
    """The trials of the batch that takes more; none if the next trial begins one."""
    last = batches(state.trials, executor.capacity)[-1] if executor.in_batches and state.trials else []
    return last if len(last) < executor.capacity and last and not last[-1].closes else []


def _complete(study: Study, state: StudyState) -> bool:
    measured = [unit for unit in study.budget if unit not in study.worst]
    is_spent = any(state.amount_spent(unit) >= study.budget[unit] for unit in measured)
    return state.exhausted or is_spent or _room(study, state) < 1


def _room(study: Study, state: StudyState) -> float:
    """How many more measurements fit into the counted units, if they and all open ones cost what they can."""
    counted = [unit for unit in study.budget if unit in study.worst]
    remaining = [(study.budget[unit] - state.amount_spent(unit)) // study.worst[unit] for unit in counted]
    return min(remaining, default=math.inf) - len(state.pending)


def _propose(study: Study, state: StudyState) -> None:
    number, history = len(state.trials), state.history
    if number < len(study.starts):
        _record_proposal(study, number, study.starts[number], "shared", 0.0)
        return
    proposer, arm, probability = assign_arm(study, len(history), study.share(state.trials))
    offers = proposer.ask(study.history_filter(history), 1, np.random.default_rng([study.seed, len(history), _ASK]))
    if not offers:
        emit(study.run, "search.exhausted", "", Reason("no untried configuration satisfies the rules"))
        return
    proposal = _review_proposal(study, state, offers[0])
    if proposal is None:
        emit(study.run, "proposal.refused", f"refused_{len(history) - number:04d}", replace(offers[0], note=""))
        return
    _record_proposal(study, number, proposal, arm, probability)


def assign_arm(study: Study, trial_number: int, share: float) -> tuple[Proposer, Arm, float]:
    """The light control: a coin of probability `share` gives a proposal to the agent, else to its control.

    The coin looks at nothing but the seed and the place, so a randomisation interval is valid.
    """
    if study.agent is None:
        return study.baseline_proposer, "control", 0.0
    if np.random.default_rng([study.seed, trial_number, _ASSIGN]).random() < share:
        return study.agent, "agent", share
    return study.baseline_proposer, "control", share


def _review_proposal(study: Study, state: StudyState, proposal: Proposal) -> Proposal | None:
    """The proposal as a person wants it; None if turned down. Without a reviewer, as it is."""
    if study.reviewer is None or study.rules is None:
        return proposal
    best, space, against = state.best, study.rules.space, study.rules.against(state.history)

    def problems(params: Params) -> list[str]:
        point = space.reduce(params)
        idle = [f"{name} is not in the space, or is inactive with these values" for name in params if name not in point]
        return idle or against(point)

    chosen = study.reviewer.review(
        trial_id(len(state.trials)),
        proposal.params,
        compared_with=best.proposal.params if best else study.starts[0].params,
        source=f"{proposal.source}: {proposal.note}" if proposal.note else proposal.source,
        problems=problems,
    )
    if chosen is None:
        return None
    edited = space.reduce(chosen)
    if edited == dict(proposal.params):
        return proposal
    return Proposal(edited, "human", f"edited by a person, proposed by {proposal.source}")


def _record_proposal(study: Study, number: int, proposal: Proposal, arm: Arm, probability: float) -> None:
    proposed = Proposed(number, dict(proposal.params), proposal.source, proposal.note, arm, probability)
    emit(study.run, "trial.proposed", trial_id(number), proposed)


def execute(study: Study, state: StudyState) -> StudyState:
    """Hand the open measurements to the executor and wait for the first to end."""
    return run_candidates(study, state.pending)


def run_candidates(study: Study, candidates: list[StudyCandidate]) -> StudyState:
    """Start as many of the candidates as the executor takes, and record the first that ends.

    A batch ends as a whole, in one event: numbers depend in their last bits on what is computed together, so of a batch
    that was cut short all is measured again.
    """
    for candidate in candidates:
        if candidate.name not in study.in_flight and len(study.in_flight) < study.executor.capacity:
            seed = seed_of(study.seed, candidate.turn)
            study.run.emit("trial.started", candidate.name, seed=seed)
            study.executor.submit(replace(candidate, seed=seed))
            study.in_flight.add(candidate.name)
    if study.in_flight:
        results: dict[str, TrialResult] = {}
        while not results or (study.executor.in_batches and len(results) < len(study.in_flight)):
            candidate, result = study.executor.next_completed()
            results[candidate.name] = result
        study.in_flight.difference_update(results)
        first, result = next(iter(results.items()))
        if len(results) == 1:
            emit(study.run, f"trial.{result.status}", first, result)
        else:
            emit(study.run, "batch.finished", first, ResultBatch(results))
    return study.state


def evaluate(study: Study, state: StudyState) -> StudyState:
    """Judge the trials that have ended, or have one measured again."""
    while state.judgeable:
        trial = state.judgeable[0]
        verdict = _affordable(study, state, trial, study.evaluator.judge(trial, state))
        if isinstance(verdict, Decision):
            details = {study.terms.value: trial.value, "source": trial.proposal.source}
            emit(study.run, "decision.made", trial.id, verdict, **details)
        else:
            emit(study.run, "repeat.wanted", trial.id, verdict)
        state = study.state
    return state


def _affordable(study: Study, state: StudyState, trial: TrialState, verdict: Decision | Repeat) -> Decision | Repeat:
    """The verdict; of the repeats that it wants, those that the budget has room for."""
    if isinstance(verdict, Decision):
        return verdict
    if (room := _room(study, state)) >= 1:
        return replace(verdict, count=int(min(verdict.count, room)))
    final = study.evaluator.judge(replace(trial, wanted=1), state)
    accepted = isinstance(final, Decision) and final.accepted
    return Decision(accepted, f"{final.reason}; there is no budget left to measure it again")


def write_snapshot(study: Study, state: StudyState) -> None:
    """Rewrite the snapshot, which the events can always restore."""
    study.run.write_json("agent_state.json", agent_state(state, study.terms))


def is_over(study: Study, state: StudyState) -> bool:
    """Whether nothing is left to do: no measurement under way, no trial to judge, no budget to plan with."""
    return not state.pending and not state.judgeable and _complete(study, state)
