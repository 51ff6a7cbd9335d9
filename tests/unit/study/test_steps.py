"""The steps of an iteration: what follows what, and that a kill between any two events changes nothing."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentlab.errors import Interrupted
from agentlab.nas.study import TERMS
from agentlab.runs.branch import RunBranch
from agentlab.runs.run import OpenRun, RunEnvironment, RunSpec
from agentlab.search.screen import ScreenRules
from agentlab.search.space import SearchSpace, SpaceConfig
from agentlab.search.types import Proposal, Trial, TrialResult
from agentlab.study import steps
from agentlab.study.evaluator import SeedEvaluator
from agentlab.study.executor import LocalExecutor, TrialExecutor
from agentlab.study.noise import Noise
from agentlab.study.noise import estimate_noise as measure_noise
from agentlab.study.state import StudyCandidate, StudyState, TrialState, agent_state
from agentlab.study.steps import search

SPEC = RunSpec("nas", "", "", "h", 0)
NEAR_TIE = (0.5, 0.499, 0.3, 0.4)  # of the trials after the first one: better, a tie, better, worse


def wobble(seed: int) -> float:
    """What a seed does to an error: up to one percent."""
    return 1.0 if seed == 0 else 1.0 + (seed % 5 - 2) / 200


def measure(batch: Sequence[StudyCandidate]) -> list[TrialResult]:
    """The error is `x`, moved a little by the seed; a negative `x` cannot be trained."""
    if any(float(candidate.params["x"]) < 0 for candidate in batch):
        raise MemoryError
    metrics = {"parameters": 100, "seconds": 1.0}
    return [TrialResult("finished", float(c.params["x"]) * wobble(c.seed), metrics) for c in batch]


class Listed:
    """Proposes from a list, one further for every entry of the history, until it ends. `llm` is another name for it."""

    def __init__(self, values: Sequence[float], name: str = "listed") -> None:
        self.values, self.name = tuple(values), name

    def ask(self, history: Sequence[Trial], n: int, rng: Any) -> list[Proposal]:
        return [Proposal({"x": x}, self.name) for x in self.values[len(history) - 1 :][:n]]


class Together:
    """An executor with several workers. `pick` says which of the running trainings ends next."""

    in_batches = False

    def __init__(self, pick: Callable[[list[str]], str], capacity: int = 2) -> None:
        self.capacity = capacity
        self.pick = pick
        self.running: dict[str, StudyCandidate] = {}
        self.most = 0

    def submit(self, candidate: StudyCandidate) -> None:
        assert candidate.name not in self.running
        self.running[candidate.name] = candidate
        self.most = max(self.most, len(self.running))

    def next_completed(self) -> tuple[StudyCandidate, TrialResult]:
        candidate = self.running.pop(self.pick(list(self.running)))
        return candidate, measure([candidate])[0]

    def close(self) -> None:
        self.running.clear()


def study_in(run: OpenRun | RunBranch, values: Sequence[float] = NEAR_TIE, **changes: Any) -> steps.Study:
    """A fresh study, as a new process builds it."""
    judging = {name: changes.pop(name) for name in ("noise", "repeats", "family") if name in changes}
    study = steps.Study(
        run=run,
        terms=TERMS,
        seed=0,
        budget={"trials": 1 + len(values)},
        starts=(Proposal({"x": 1.0}, "default"),),
        baseline_proposer=Listed(values),
        agent=None,
        executor=LocalExecutor(measure),
        evaluator=SeedEvaluator(TERMS, **{"noise": 0.01, **judging}),
    )
    return replace(study, **changes)


def noise_of(study: steps.Study, state: StudyState, trial: TrialState) -> Noise:
    assert isinstance(study.evaluator, SeedEvaluator)
    return study.evaluator.noise_of(trial, state)


def go(study: steps.Study) -> StudyState:
    return search(study, lambda: None)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[OpenRun]:
    with OpenRun.create(tmp_path, SPEC, RunEnvironment()) as run:
        yield run


@contextmanager
def continued(run: OpenRun, folder: Path, lines: int) -> Iterator[OpenRun]:
    """Another run that has the first lines of this one's events: as a kill leaves it."""
    OpenRun.create(folder, replace(SPEC, name=f"after-{lines}"), RunEnvironment()).close()
    path = folder / f"after-{lines}"
    event_lines = (run.path / "events.jsonl").read_bytes().splitlines(keepends=True)[:lines]
    (path / "events.jsonl").write_bytes(b"".join(event_lines))
    with OpenRun.resume(path, RunEnvironment()) as resumed:
        yield resumed


def happened(run: OpenRun | RunBranch, *types: str) -> list[str]:
    """Events in short: `trial.started run_0000`."""
    return [f"{e.type} {e.id}" for e in run.events if not types or e.type in types]


def told(run: OpenRun | RunBranch) -> dict[tuple[str, str], Mapping[str, Any]]:
    """What a run decided and measured. A step that a resume repeats has to tell the same again."""
    data_by_event: dict[tuple[str, str], Mapping[str, Any]] = {}
    for event in run.events:
        first_data = data_by_event.setdefault((event.type, event.id), event.data)
        assert first_data == event.data, f"{event.type} {event.id} was told in two ways"
    return data_by_event


def outcomes(state: StudyState) -> list[tuple[float | None, int, bool]]:
    """Value, trainings and decision of every trial."""
    return [(t.value, 1 + len(t.repeats), bool(t.decision and t.decision.accepted)) for t in state.trials]


# -- one worker -------------------------------------------------------------------------------------------------


def test_the_noise_is_measured_before_anything_is_proposed(run: OpenRun) -> None:
    state = go(study_in(run, [0.5], noise=None, repeats=2))
    assert happened(run) == [
        "trial.proposed run_0000",
        "trial.started run_0000",
        "trial.finished run_0000",
        "repeat.wanted run_0000",
        "trial.started run_0000-r1",
        "trial.finished run_0000-r1",
        "trial.started run_0000-r2",
        "trial.finished run_0000-r2",
        "decision.made run_0000",
        "trial.proposed run_0001",
        "trial.started run_0001",
        "trial.finished run_0001",
        "decision.made run_0001",
    ]
    assert noise_of(study_in(run, noise=None), state, state.trials[1]).trainings == 3


@pytest.mark.parametrize("changes", [{"noise": 0.05, "repeats": 2}, {"noise": None, "repeats": 0}])
def test_noise_that_is_given_or_not_wanted_costs_no_training(run: OpenRun, changes: dict[str, Any]) -> None:
    go(study_in(run, [0.5], **changes))
    assert "repeat.wanted" not in {event.type for event in run.events}


def repeated(number: int, kind: str, *values: float) -> TrialState:
    """A trial of a kind that was trained with several seeds."""
    results = [TrialResult("finished", value) for value in values]
    repeats = {f"run_{number:04d}-r{turn}": result for turn, result in enumerate(results[1:], 1)}
    return TrialState(number, Proposal({"kind": kind}, "x"), "control", 0.0, results[0], repeats=repeats)


def test_noise_of_a_family_is_its_own_as_soon_as_it_was_repeated_enough(run: OpenRun) -> None:
    study = study_in(run, noise=None, family=("kind",))
    wild, calm, calmer = (
        repeated(0, "wild", 1.0, 1.2, 0.8),
        repeated(1, "calm", 0.5, 0.51),
        repeated(2, "calm", 0.4, 0.41),
    )
    everything = measure_noise([wild.values, calm.values, calmer.values])
    state = StudyState(entries=(wild, calm))
    assert noise_of(study, state, wild) == measure_noise([wild.values])
    assert noise_of(study, state, calm) == measure_noise([wild.values, calm.values])  # one repetition is too few
    state = StudyState(entries=(wild, calm, calmer))
    assert noise_of(study, state, calm) == measure_noise([calm.values, calmer.values])
    assert noise_of(study, state, repeated(3, "new", 0.3)) == everything
    assert noise_of(study_in(run, noise=None), state, calm) == everything  # without families


def test_every_noise_that_trials_were_judged_by_is_named_with_the_trials_it_holds_for(run: OpenRun) -> None:
    study = study_in(run, noise=None, family=("kind",))
    wild, calm = repeated(0, "wild", 1.0, 1.2, 0.8), repeated(1, "calm", 0.5, 0.51, 0.5)
    new = repeated(2, "new", 0.3)
    assert isinstance(study.evaluator, SeedEvaluator)
    text = study.evaluator.describe_noises(StudyState(entries=(wild, calm, new)))
    first, second, third = text.split(" The seed ")
    assert "of trials with kind wild by" in first
    assert "of trials with kind calm by" in second
    assert "of all trials (used for the other trials) by" in third
    assert f"{measure_noise([wild.values]).deviation:.2%}" in first
    assert f"{measure_noise([calm.values]).deviation:.2%}" in second
    alone = study.evaluator.describe_noises(StudyState(entries=(new,)))
    assert "was not measured" in alone


def test_a_failed_first_trial_is_not_repeated_and_the_next_success_measures_the_noise(run: OpenRun) -> None:
    state = go(study_in(run, [0.5, 0.3], noise=None, repeats=2, starts=(Proposal({"x": -1.0}, "default"),)))
    assert outcomes(state) == [(None, 1, False), (0.5, 3, True), (0.3, 1, True)]


def test_equal_turns_have_equal_seeds_and_different_turns_different_ones(run: OpenRun) -> None:
    go(study_in(run, noise=None, repeats=3))
    seeds = {event.id: event.data["seed"] for event in run.events if event.type == "trial.started"}
    assert {seed for name, seed in seeds.items() if "-" not in name} == {0}  # equal configurations tie
    assert len({seeds[f"run_0000-r{turn}"] for turn in (1, 2, 3)} | {0}) == 4
    assert steps.seed_of(5, 1) != steps.seed_of(6, 1)
    assert steps.seed_of(5, 0) == 5


def test_a_near_tie_is_trained_once_more_and_then_decided(run: OpenRun) -> None:
    state = go(study_in(run))
    assert happened(run, "repeat.wanted") == ["repeat.wanted run_0002"]
    assert [(number, accepted) for number, accepted in outcomes_by_trainings(state)] == [
        (1, True),
        (1, True),
        (2, False),
        (1, True),
        (1, False),
    ]
    assert state.best is not None
    assert state.best.id == "run_0003"


def outcomes_by_trainings(state: StudyState) -> list[tuple[int, bool]]:
    return [(trainings, accepted) for _, trainings, accepted in outcomes(state)]


def test_a_failed_trial_counts_and_the_search_goes_on(run: OpenRun) -> None:
    state = go(study_in(run, [-1.0, 0.5]))
    assert outcomes(state) == [(1.0, 1, True), (None, 1, False), (0.5, 1, True)]


def test_the_search_ends_when_nothing_is_left_to_try(run: OpenRun) -> None:
    state = go(study_in(run, [0.5], budget={"trials": 9}))
    assert state.exhausted
    assert len(state.trials) == 2


def test_seconds_are_a_budget_and_what_was_begun_is_finished(run: OpenRun) -> None:
    state = go(study_in(run, noise=None, repeats=2, budget={"trials": 9, "seconds": 0.5}))
    assert outcomes_by_trainings(state) == [(3, True)]
    assert state.pending == []


def test_a_coin_of_the_seed_gives_each_trial_to_an_arm(run: OpenRun, tmp_path: Path) -> None:
    values = [0.5 - number / 100 for number in range(12)]
    state = go(study_in(run, values, agent=Listed(values, "llm")))
    arms = [trial.arm for trial in state.trials]
    assert arms[0] == "shared"
    assert set(arms[1:]) == {"agent", "control"}
    assert all((t.proposal.source == "llm") == (t.arm == "agent") for t in state.trials)
    assert {t.probability for t in state.trials[1:]} == {0.5}
    with OpenRun.create(tmp_path, replace(SPEC, name="again"), RunEnvironment()) as second_run:
        assert [t.arm for t in go(study_in(second_run, values, agent=Listed(values, "llm"))).trials] == arms


def test_the_coin_is_fair(run: OpenRun) -> None:
    study = study_in(run, agent=Listed(NEAR_TIE, "llm"))
    for share in (0.5, 0.1):
        assignments = [steps.assign_arm(study, index, share)[1:] for index in range(4_000)]
        assert sum(arm == "agent" for arm, _ in assignments) / len(assignments) == pytest.approx(share, abs=0.03)
        assert assignments == [steps.assign_arm(study, index, share)[1:] for index in range(4_000)]


def test_the_snapshot_is_what_the_events_tell(run: OpenRun) -> None:
    state = go(study_in(run))
    assert json.loads((run.path / "agent_state.json").read_text()) == agent_state(state, TERMS)


def test_a_request_to_stop_is_heard_between_two_trainings(run: OpenRun) -> None:
    remaining_checks = 3

    def check() -> None:
        nonlocal remaining_checks
        remaining_checks -= 1
        if not remaining_checks:
            raise Interrupted("stop")

    with pytest.raises(Interrupted):
        search(study_in(run), check)
    assert len(study_in(run).state.judged) == 2
    assert len(go(study_in(run)).judged) == 5


def test_a_study_in_a_branch_is_the_same_study(run: OpenRun, tmp_path: Path) -> None:
    branch = RunBranch(run, "control-1")
    go(study_in(branch))
    with OpenRun.create(tmp_path, replace(SPEC, name="alone"), RunEnvironment()) as alone:
        go(study_in(alone))
        assert happened(branch) == happened(alone)
        assert told(branch) == told(alone)
    assert study_in(run).state == StudyState()
    assert (run.path / "studies" / "control-1" / "agent_state.json").is_file()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"noise": None, "repeats": 2},
        {"agent": Listed(NEAR_TIE, "llm")},
        {"starts": (Proposal({"x": -1.0}, "default"),)},
    ],
    ids=["near tie", "measured noise", "agent", "failure"],
)
def test_a_kill_between_any_two_events_changes_nothing(run: OpenRun, tmp_path: Path, changes: dict[str, Any]) -> None:
    """A fresh study that finds the first lines of the story tells the rest of it as if nothing had been."""
    uninterrupted = go(study_in(run, **changes))
    total = len(run.events)
    assert total > 15
    for lines in range(total):
        with continued(run, tmp_path / "cut", lines) as cut:
            state = go(study_in(cut, **changes))
            assert state == uninterrupted, f"killed after line {lines}"
            assert told(cut) == told(run)
            assert state.judged == uninterrupted.judged


def test_a_longer_budget_extends_the_story_and_changes_nothing_of_it(run: OpenRun, tmp_path: Path) -> None:
    full_state = go(study_in(run))
    with OpenRun.create(tmp_path, replace(SPEC, name="short"), RunEnvironment()) as short:
        go(study_in(short, budget={"trials": 2}))
        assert len(short.events) < len(run.events)
        assert go(study_in(short)) == full_state
        assert happened(short) == happened(run)


# -- several workers --------------------------------------------------------------------------------------------

ORDERS = {
    "first come, first served": min,
    "last come, first served": max,
    "the first trial last": lambda names: max(names, key=lambda name: (not name.startswith("run_0000"), name)),
}


@pytest.mark.parametrize("pick", ORDERS.values(), ids=list(ORDERS))
@pytest.mark.parametrize("capacity", [2, 3])
@pytest.mark.parametrize("repeats", [0, 2])
def test_workers_share_a_study(run: OpenRun, pick: Callable[[list[str]], str], capacity: int, repeats: int) -> None:
    executor = Together(pick, capacity)
    study = study_in(run, executor=executor, noise=None if repeats else 0.01, repeats=repeats)
    state = go(study)
    assert executor.most == capacity
    assert executor.running == {}
    assert study.in_flight == set()
    assert [trial.number for trial in state.trials] == [0, 1, 2, 3, 4]
    assert all(trial.decision is not None for trial in state.trials)
    assert state.judged[0] == "run_0000"
    assert sorted(state.judged) == [f"run_{number:04d}" for number in range(5)]
    started = happened(run, "trial.started")
    assert len(started) == len(set(started)) == sum(1 + len(trial.repeats) for trial in state.trials)
    assert [t.value for t in state.trials if not t.repeats] == [
        x for x, t in zip((1.0, *NEAR_TIE), state.trials, strict=True) if not t.repeats
    ]


def test_what_the_first_trial_has_to_judge_waits_for_it(run: OpenRun) -> None:
    pick = ORDERS["the first trial last"]
    go(study_in(run, executor=Together(pick), noise=None, repeats=1))
    order = happened(run, "trial.finished", "decision.made")
    assert order.index("decision.made run_0000") > order.index("trial.finished run_0002")
    assert order.index("decision.made run_0000") < order.index("decision.made run_0001")


def test_a_proposer_sees_what_is_under_way(run: OpenRun) -> None:
    seen: list[list[str]] = []

    class Watching(Listed):
        def ask(self, history: Sequence[Trial], n: int, rng: Any) -> list[Proposal]:
            seen.append([trial.result.status for trial in history])
            return super().ask(history, n, rng)

    go(study_in(run, baseline_proposer=Watching(NEAR_TIE), executor=Together(min)))
    assert seen[0] == ["running"]
    assert all(statuses.count("running") <= 1 for statuses in seen)


@pytest.mark.parametrize("pick", ORDERS.values(), ids=list(ORDERS))
def test_a_kill_with_two_workers_loses_no_trial(run: OpenRun, tmp_path: Path, pick: Callable[[list[str]], str]) -> None:
    """What was under way is trained again; the order may differ, the trials and their errors do not."""
    uninterrupted = go(study_in(run, executor=Together(pick)))
    for lines in range(len(run.events)):
        with continued(run, tmp_path / "cut", lines) as cut:
            state = go(study_in(cut, executor=Together(pick)))
            assert [t.proposal for t in state.trials] == [t.proposal for t in uninterrupted.trials]
            assert [t.result for t in state.trials] == [t.result for t in uninterrupted.trials]
            assert all(trial.decision for trial in state.trials)
            assert state.judged[0] == "run_0000"


# -- a person ---------------------------------------------------------------------------------------------------

RULES = ScreenRules(SearchSpace.of(SpaceConfig.model_validate({"x": {"type": "float", "low": 0.001, "high": 2.0}})))


class Person:
    """Answers from a list: True accepts, None turns down, a number is tried instead."""

    def __init__(self, *answers: float | bool | None) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, Any, Any, str]] = []
        self.problems: list[list[str]] = []

    def review(self, name: str, params: Any, *, compared_with: Any, source: str, problems: Any) -> Any:
        self.asked.append((name, dict(params), dict(compared_with), source))
        self.problems.append(problems(params))
        answer = self.answers.pop(0) if self.answers else True
        return params if answer is True else None if answer is None else {"x": answer}


def test_a_person_accepts_turns_down_and_edits(run: OpenRun) -> None:
    person = Person(True, None, 0.25)
    state = go(study_in(run, [0.5, 0.4, 0.3], rules=RULES, reviewer=person, budget={"trials": 3}))
    assert [(t.proposal.params["x"], t.proposal.source, t.proposal.note) for t in state.trials] == [
        (1.0, "default", ""),
        (0.5, "listed", ""),
        (0.25, "human", "edited by a person, proposed by listed"),
    ]
    assert happened(run, "proposal.refused") == ["proposal.refused refused_0000"]
    assert person.asked == [
        ("run_0001", {"x": 0.5}, {"x": 1.0}, "listed"),
        ("run_0002", {"x": 0.4}, {"x": 0.5}, "listed"),  # beside the best so far
        ("run_0002", {"x": 0.3}, {"x": 0.5}, "listed"),  # the number is given again: a refusal costs no trial
    ]
    assert person.problems == [[], [], []]


def test_what_a_person_turned_down_is_not_worth_asking_again(run: OpenRun) -> None:
    person = Person(None)
    go(study_in(run, [0.4, 0.4], rules=RULES, reviewer=person, budget={"trials": 2}))
    assert person.problems == [[], ["already rejected"]]


def test_turning_everything_down_ends_the_search(run: OpenRun) -> None:
    state = go(study_in(run, rules=RULES, reviewer=Person(*[None] * 9)))
    assert len(state.trials) == 1
    assert len(state.entries) == 5
    assert state.exhausted


def test_an_edit_stays_in_the_arm_that_the_coin_gave(run: OpenRun) -> None:
    values = [0.5, 0.4, 0.3, 0.2, 0.1, 0.05]
    person = Person(*[value / 2 for value in values])
    state = go(study_in(run, values, agent=Listed(values, "llm"), rules=RULES, reviewer=person))
    proposed_by = {"agent": "llm", "control": "listed"}
    for trial in state.trials[1:]:
        assert trial.proposal.source == "human"
        assert trial.proposal.note.endswith(proposed_by[trial.arm])


def test_a_kill_among_the_answers_of_a_person_changes_nothing(run: OpenRun, tmp_path: Path) -> None:
    """A proposal that was not answered yet is shown again; what was answered is not."""

    class Steady(Person):
        """Answers by what is asked, as somebody does who knows what to look for."""

        def review(self, name: str, params: Any, **details: Any) -> Any:
            self.asked.append((name, dict(params), None, ""))
            return {0.5: params, 0.499: None, 0.3: {"x": 0.35}, 0.4: params}[params["x"]]

    uninterrupted = go(study_in(run, rules=RULES, reviewer=Steady()))
    assert [entry.proposal.source for entry in uninterrupted.entries] == [
        "default",
        "listed",
        "listed",
        "human",
        "listed",
    ]
    for lines in range(len(run.events)):
        with continued(run, tmp_path / "cut", lines) as cut:
            steady = Steady()
            assert go(study_in(cut, rules=RULES, reviewer=steady)) == uninterrupted
            answered = sum(e.type in ("trial.proposed", "proposal.refused") for e in run.events[:lines])
            assert len(steady.asked) == 4 - max(0, answered - 1)


class Breeder(Listed):
    """Takes as parent the trial of population and archive whose items lie furthest from all others: novelty."""

    def ask(self, history: Sequence[Trial], n: int, rng: Any) -> list[Proposal]:
        batch_start = len(history) - len(history) % 3
        assert {trial.result.status for trial in history[:batch_start]} <= {"finished"}
        assert {trial.result.status for trial in history[batch_start:]} <= {"running"}
        items = [trial.result.items[0] for trial in history[:batch_start]]
        novel = max(items, key=lambda one: sum(abs(one - other) for other in items), default=1.0)
        return [Proposal({"x": novel * self.values[len(history) - 1]}, self.name)]


def test_a_generation_is_bred_from_all_that_were_judged_before_it(run: OpenRun, tmp_path: Path) -> None:
    def with_items(batch: Sequence[StudyCandidate]) -> list[TrialResult]:
        return [replace(result, items=(result.value or 0.0, 1.0)) for result in measure(batch)]

    def bred(run: OpenRun) -> StudyState:
        control = Breeder([0.9, 0.2, 1.1, 0.5, 2.0, 0.7, 0.8])
        return go(
            study_in(run, control.values, baseline_proposer=control, executor=LocalExecutor(with_items, capacity=3))
        )

    uninterrupted = bred(run)
    assert [round(float(trial.proposal.params["x"]), 3) for trial in uninterrupted.trials[3:6]] == [0.22, 0.1, 0.4]
    for lines in range(len(run.events)):
        with continued(run, tmp_path / "cut", lines) as cut:
            assert bred(cut) == uninterrupted


def test_the_executors_of_these_tests_keep_the_protocol() -> None:
    executors: list[TrialExecutor] = [LocalExecutor(measure), Together(min)]
    assert [executor.capacity for executor in executors] == [1, 2]
