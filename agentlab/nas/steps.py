"""The four steps of an iteration: planner -> executor -> evaluator -> update.

Each step appends its outcome to the run's events before the next begins, so a killed study goes on from the step it
was in. All randomness of trial n comes from (study seed, n), never from what ran before in this process.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from agentlab.nas.evaluator import decide
from agentlab.nas.state import StudyState, TrialState, agent_state, rebuild, run_id
from agentlab.runs.run import Run
from agentlab.search.assign import Assignment, assign
from agentlab.search.types import Params, Proposal, Proposer, Trial, TrialContext, TrialExecutor, TrialResult

if TYPE_CHECKING:
    from agentlab.llm.router import Router

_ASSIGN, _ASK = 0, 1  # independent streams of a trial's generator


@dataclass(frozen=True, slots=True)
class Study:
    """What the steps work with. `agent` is None when no language model is configured."""

    run: Run
    seed: int
    noise: float
    default: Params
    control: Proposer
    agent: Proposer | None
    executor: TrialExecutor
    router: "Router | None"

    @property
    def state(self) -> StudyState:
        """The state that the events tell."""
        return rebuild(self.run.events)


def plan(study: Study, state: StudyState) -> TrialState | None:
    """Propose the next trial, or take up the one that a kill has left open. None when nothing is left to try."""
    if state.unfinished is not None:
        return state.unfinished
    number = len(state.trials)
    if number == 0:
        return _proposed(study, TrialState(0, Proposal(study.default, "default"), "shared", 0.0))
    drawn = Assignment("control", 0.0)
    if study.agent is not None:
        drawn = assign(np.random.default_rng([study.seed, number, _ASSIGN]))
    proposer = study.agent if study.agent is not None and drawn.arm == "agent" else study.control
    offers = proposer.ask(state.history, 1, np.random.default_rng([study.seed, number, _ASK]))
    if not offers:
        return None
    return _proposed(study, TrialState(number, offers[0], drawn.arm, drawn.probability))


def _proposed(study: Study, trial: TrialState) -> TrialState:
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
    return trial


def execute(study: Study, trial: TrialState) -> TrialState:
    """Train the trial, unless its result is known. Every trial uses the study's seed: equal configurations tie."""
    if trial.result is None:
        study.run.emit("trial.started", trial.id, seed=study.seed)
        study.executor.submit(trial.proposal, TrialContext(number=trial.number, seed=study.seed))
        _record(study.run, trial.number, study.executor.completed())
    return study.state.trials[trial.number]


def _record(run: Run, number: int, result: TrialResult) -> None:
    metrics = dict(result.metrics)
    if result.status == "finished":
        run.emit("trial.finished", run_id(number), value=result.value, metrics=metrics)
    else:
        run.emit("trial.failed", run_id(number), error=result.error, metrics=metrics)


def evaluate(study: Study, state: StudyState, trial: TrialState) -> StudyState:
    """Judge the trial against those before it. After a kill, `state` holds the trial itself, too."""
    before = replace(state, trials=state.trials[: trial.number])
    decision = decide(trial, before, study.noise, study.router)
    study.run.emit(
        "decision.made",
        trial.id,
        accepted=decision.accepted,
        reason=decision.reason,
        by=decision.by,
        val_mse=trial.value,
        source=trial.proposal.source,
    )
    return study.state


def update(study: Study, state: StudyState) -> None:
    """Tell the proposers and rewrite the snapshot, which the events can always restore."""
    last = state.trials[-1]
    if last.result is not None:
        for proposer in (study.control, study.agent):
            if proposer is not None:
                proposer.tell(Trial(last.number, last.proposal, last.result))
    study.run.write_json("agent_state.json", agent_state(state))
