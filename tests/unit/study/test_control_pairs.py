"""Full control: studies in pairs that share a seed, a first trial and a number of trials, and nothing else."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from agentlab.errors import ConfigError, Interrupted
from agentlab.nas.study import TERMS
from agentlab.runs.branch import RunBranch
from agentlab.runs.run import OpenRun, RunEnvironment, RunSpec
from agentlab.runs.stop import StopFlag
from agentlab.search.types import Proposal, Trial, TrialResult
from agentlab.study import steps
from agentlab.study.control import Pair, full_control, lowest, require_pairs, run_pairs
from agentlab.study.evaluator import SeedEvaluator
from agentlab.study.executor import LocalExecutor
from agentlab.study.state import StudyCandidate, StudyState, rebuild
from agentlab.study.steps import search

SPEC = RunSpec("nas", "", "", "h", 7)
SEED, TRIALS, PAIRS = 7, 3, 6


def measure(batch: Sequence[StudyCandidate]) -> list[TrialResult]:
    return [TrialResult("finished", float(c.params["x"]), {"parameters": 1, "seconds": 1.0}) for c in batch]


class Lowering:
    """Each proposal is lower than the last, by a step of its own."""

    def __init__(self, name: str, step: float) -> None:
        self.name, self.step = name, step

    def ask(self, history: Sequence[Trial], n: int, rng: Any) -> list[Proposal]:
        return [Proposal({"x": 1.0 - self.step * len(history)}, self.name)]


class Counted(LocalExecutor):
    """Knows whether it was closed."""

    closed = False

    def close(self) -> None:
        super().close()
        self.closed = True


@dataclass
class SmallSetup:
    """What `run_pairs` needs of a set-up, with an objective that costs nothing."""

    gain: float = 0.2
    fails: str = "nothing"  # the branch whose measurements all fail
    enough: int = TRIALS  # trials after which the main study ends
    stop: StopFlag = field(default_factory=StopFlag)
    made: list[tuple[str, int, bool]] = field(default_factory=list)
    executors: list[Counted] = field(default_factory=list)

    @property
    def budget(self) -> Mapping[str, float]:
        return {"trainings": self.enough}

    def check(self) -> None:
        self.stop.check()

    def study(
        self, run: OpenRun | RunBranch, seed: int, *, agent: bool = True, budget: Mapping[str, float] | None = None
    ) -> steps.Study:
        name = run.name if isinstance(run, RunBranch) else ""
        self.made.append((name, seed, agent))

        def objective(batch: Sequence[StudyCandidate]) -> list[TrialResult]:
            if name == self.fails:
                raise MemoryError
            return measure(batch)

        self.executors.append(Counted(objective))
        return steps.Study(
            run=run,
            terms=TERMS,
            seed=seed,
            budget=budget or self.budget,
            starts=(Proposal({"x": 1.0}, "default"),),
            baseline_proposer=Lowering("gp", 0.1),
            agent=Lowering("llm", self.gain) if agent else None,
            executor=self.executors[-1],
            evaluator=SeedEvaluator(TERMS, 0.001),
        )

    def pairs(self, run: OpenRun) -> list[Pair]:
        """The main study and what follows it."""
        main = search(self.study(run, SEED), self.stop.check)
        self.made.clear()
        return run_pairs(self, run, main, SEED, PAIRS)  # type: ignore[arg-type]


def pair(seed: int, agent: float | None, control: float | None) -> Pair:
    return Pair(seed=seed, agent=agent, control=control)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[OpenRun]:
    with OpenRun.create(tmp_path, SPEC, RunEnvironment()) as run:
        yield run


def branch(run: OpenRun, name: str) -> StudyState:
    return rebuild(RunBranch(run, name).events)


def test_a_study_with_and_one_without_the_agent_for_every_seed_but_the_first_half(run: OpenRun) -> None:
    setup = SmallSetup()
    pairs = setup.pairs(run)
    assert [pair.seed for pair in pairs] == [7, 8, 9, 10, 11, 12]
    assert setup.made == [
        ("control-0", 7, False),  # its partner is the main study
        *[(f"{arm}-{n}", 7 + n, arm == "agent") for n in (1, 2, 3, 4, 5) for arm in ("agent", "control")],
    ]
    assert all(executor.closed for executor in setup.executors[1:])


def test_the_studies_of_a_pair_share_trial_0_and_its_error_and_the_number_of_trials(run: OpenRun) -> None:
    SmallSetup().pairs(run)
    for number in range(1, PAIRS):
        agent, control = branch(run, f"agent-{number}"), branch(run, f"control-{number}")
        assert len(agent.trials) == len(control.trials) == TRIALS
        assert agent.trials[0].proposal == control.trials[0].proposal
        assert agent.trials[0].result == control.trials[0].result
        assert {t.arm for t in control.trials} == {"shared", "control"}
    assert len(rebuild(run.events).trials) == TRIALS  # the main study knows nothing of them


def test_each_study_is_a_branch_of_its_own(run: OpenRun) -> None:
    SmallSetup().pairs(run)
    names = sorted(path.name for path in (run.path / "studies").iterdir())
    assert names == sorted([*(f"control-{n}" for n in range(PAIRS)), *(f"agent-{n}" for n in range(1, PAIRS))])
    opened = {e.id: e.data for e in run.events if e.type == "study.branched"}
    assert opened["agent-2/agent-2"] == {"seed": 9, "agent": True, "trials": TRIALS, "place": 4, "of": 11}
    assert [data["place"] for data in opened.values()] == list(range(1, 2 * PAIRS))


def test_a_main_study_that_ended_early_gets_partners_of_its_length(run: OpenRun) -> None:
    setup = SmallSetup(enough=2)
    setup.pairs(run)
    for path in (run.path / "studies").iterdir():
        assert len(branch(run, path.name).trials) == 2


def test_a_study_that_lost_a_trial_to_a_crash_leaves_nothing_to_compare(run: OpenRun) -> None:
    pairs = SmallSetup(fails="control-2").pairs(run)
    assert pairs[2].lost[1].startswith("MemoryError")
    assert {pair.spent for pair in pairs} == {(TRIALS, TRIALS)}
    control = full_control(pairs, TRIALS, "gp", 7, TERMS)
    assert (control.verdict, control.estimate) == ("not_measured", None)
    assert "the control lost trials to a crash or a limit (MemoryError" in control.note


def test_a_pair_holds_the_lowest_errors_of_its_studies(run: OpenRun) -> None:
    for number, study_pair in enumerate(SmallSetup().pairs(run)):
        control = branch(run, f"control-{number}")
        assert study_pair.control == lowest(control) == min(t.value for t in control.trials if t.value is not None)
        assert study_pair.agent is not None
        assert study_pair.control is not None
        assert study_pair.agent <= study_pair.control  # the agent takes the larger steps


def test_what_has_run_is_not_run_again(run: OpenRun, tmp_path: Path) -> None:
    """Killed anywhere, the pairs come out as if nothing had been."""
    uninterrupted_pairs = SmallSetup().pairs(run)
    lines = (run.path / "events.jsonl").read_bytes().splitlines(keepends=True)
    finished = [event.id for event in run.events if event.type == "trial.finished"]
    for line_count in range(0, len(lines) + 1, 13):
        OpenRun.create(tmp_path, replace(SPEC, name=f"after-{line_count}"), RunEnvironment()).close()
        (tmp_path / f"after-{line_count}" / "events.jsonl").write_bytes(b"".join(lines[:line_count]))
        with OpenRun.resume(tmp_path / f"after-{line_count}", RunEnvironment()) as cut:
            assert SmallSetup().pairs(cut) == uninterrupted_pairs
            assert [event.id for event in cut.events if event.type == "trial.finished"] == finished


def test_a_request_to_stop_is_heard_in_a_branch_and_its_workers_are_let_go(run: OpenRun) -> None:
    setup = SmallSetup()
    main = search(setup.study(run, 7), lambda: None)
    setup.stop.request(2)
    with pytest.raises(Interrupted):
        run_pairs(setup, run, main, SEED, PAIRS)  # type: ignore[arg-type]
    assert setup.executors[-1].closed


def test_a_study_in_which_every_trial_failed_leaves_its_pair_out_of_the_record(run: OpenRun) -> None:
    pairs = SmallSetup(fails="control-2").pairs(run)
    assert [pair.control is None for pair in pairs] == [False, False, True, False, False, False]
    control = full_control(pairs, TRIALS, "gp alone", 7, TERMS)
    assert (control.n, control.verdict) == (5, "not_measured")
    assert "the control lost trials" in control.note


def test_too_few_pairs_are_refused_before_a_run_but_not_to_an_earlier_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="5 pairs are too few to reach significance"):
        require_pairs("full", 5, None)
    require_pairs("full", 5, tmp_path)  # which took five when five were enough
    require_pairs("full", 6, None)
    require_pairs("light", 5, None)


def test_an_agent_that_wins_every_pair_has_helped() -> None:
    pairs = [pair(seed, 0.30 + seed / 1000, 0.40 + seed / 900) for seed in range(6)]
    control = full_control(pairs, 20, "gp alone", 0, TERMS)
    assert control.verdict == "helped"
    assert control.estimate == pytest.approx(0.1, abs=0.01)
    assert (control.direction, control.control, control.n) == ("lower", "gp alone", 6)
    assert "asked about near ties" in control.agent
    assert "20 trainings in each study" in control.budget


def test_an_agent_that_loses_every_pair_has_hurt() -> None:
    assert full_control([pair(s, 0.5 + s / 1000, 0.4) for s in range(6)], 20, "gp alone", 0, TERMS).verdict == "hurt"


def test_one_lost_pair_of_six_is_not_evidence() -> None:
    pairs = [pair(0, 0.5, 0.45), *[pair(seed, 0.3, 0.4) for seed in range(1, 6)]]
    assert full_control(pairs, 20, "gp alone", 0, TERMS).verdict == "no_measurable_help"


def test_the_record_is_the_same_for_the_same_pairs_and_seed() -> None:
    pairs = [pair(seed, 0.3 + (seed * 7 % 5) / 100, 0.32) for seed in range(20)]  # beyond what can be enumerated
    assert full_control(pairs, 20, "gp alone", 3, TERMS) == full_control(pairs, 20, "gp alone", 3, TERMS)


def test_no_pair_at_all_is_not_measured() -> None:
    assert full_control([pair(0, None, 0.3)], 20, "gp alone", 0, TERMS).verdict == "not_measured"
