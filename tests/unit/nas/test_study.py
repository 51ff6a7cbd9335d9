"""How a study is put together: who proposes, who trains, and under which names a language model is asked."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentlab.config.workspace import Workspace
from agentlab.errors import Interrupted
from agentlab.llm.recorder import RunRecorder
from agentlab.llm.router import Router
from agentlab.nas.config import NasConfig, params_of
from agentlab.nas.series import Series
from agentlab.nas.study import TERMS, setup_of
from agentlab.runs.branch import RunBranch
from agentlab.runs.context import Context
from agentlab.runs.run import OpenRun, RunEnvironment, RunSpec
from agentlab.runs.stop import StopFlag
from agentlab.search.screen import ScreenRules
from agentlab.search.space import SearchSpace
from agentlab.study.evaluator import SeedEvaluator
from agentlab.study.executor import LocalExecutor
from agentlab.study.setup import Setup
from agentlab.study.state import rebuild
from agentlab.study.steps import Reviewer, search

SCRIPTED = {
    "providers": {"p": {"kind": "scripted", "mode": "first"}},
    "models": {"m": {"provider": "p", "id": "m", "tier": "pick"}},
    "roles": {"primary": ["m"]},
}
SETTINGS: dict[str, Any] = {
    "max_iterations": 4,
    "data": {"input_length": 8, "horizon": 2},
    "model": {"d_model": 4, "n_heads": 1, "e_layers": 1},
    "training": {"epochs": 1, "train_fraction": 0.1},
    "evaluator": {"repeats": 0},
    "space": {"data.batch_size": {"type": "categorical", "choices": [8, 16, 32, 64, 128]}},
}


@pytest.fixture
def run(tmp_path: Path) -> Iterator[OpenRun]:
    with OpenRun.create(tmp_path, RunSpec("nas", "", "", "h", 0), RunEnvironment()) as run:
        yield run


@pytest.fixture
def setup(tmp_path: Path, run: OpenRun, make_series: Callable[..., Series]) -> Iterator[Callable[..., Setup]]:
    """Set-ups on a small series; their routers are closed at the end."""
    routers: list[Router] = []

    def make(
        agent: bool = True, stop: StopFlag | None = None, reviewer: Reviewer | None = None, **changes: Any
    ) -> Setup:
        settings = SETTINGS | {"data": {**SETTINGS["data"], "batch_size": 32}} | ({"llm": SCRIPTED} if agent else {})
        config = NasConfig.model_validate({**settings, **changes})
        workspace = Workspace(root=tmp_path, cache=tmp_path)
        space = SearchSpace.of(config.space, config.constraints)
        routers.append(Router(config.llm, env={}, workspace=workspace, recorder=RunRecorder(run)))
        study_setup = setup_of(
            config,
            Context(workspace, {}, stop or StopFlag()),
            make_series(rows=200),
            ScreenRules(space),
            params_of(config.trial(), tuple(space.parameters)),
            routers[-1],
            "cpu",
        )
        return replace(study_setup, reviewer=reviewer)

    yield make
    for router in routers:
        router.close()


def test_without_a_language_model_the_optimiser_works_alone(run: OpenRun, setup: Callable[..., Setup]) -> None:
    study = setup(agent=False).study(run, 3)
    assert study.agent is None
    assert (study.baseline_proposer.name, study.seed) == ("gp", 3)
    assert isinstance(study.executor, LocalExecutor)


def test_a_control_study_hears_nothing_from_the_language_model(run: OpenRun, setup: Callable[..., Setup]) -> None:
    with_agent, without = setup().study(run, 0), setup().study(run, 0, agent=False)
    assert isinstance(with_agent.evaluator, SeedEvaluator)
    assert isinstance(without.evaluator, SeedEvaluator)
    assert (with_agent.agent is None, with_agent.evaluator.router is None) == (False, False)
    assert (without.agent, without.evaluator.router) == (None, None)


class Nobody:
    """A reviewer who would turn everything down."""

    def review(self, name: str, params: Any, **_: Any) -> None:
        return None


def test_a_paired_study_has_a_budget_of_its_own_and_no_reviewer(run: OpenRun, setup: Callable[..., Setup]) -> None:
    study_setup = setup(reviewer=Nobody(), max_seconds=60)
    main, paired = study_setup.study(run, 0), study_setup.study(RunBranch(run, "control-0"), 0, budget={"trials": 3})
    assert main.reviewer is not None
    assert main.budget == {"trials": 4, "seconds": 60}
    assert paired.reviewer is None
    assert paired.budget == {"trials": 3}


@pytest.mark.parametrize("base", ["gp", "tpe", "random"])
def test_the_classical_optimiser_is_chosen_by_name(run: OpenRun, setup: Callable[..., Setup], base: str) -> None:
    assert setup(search={"base": base}).study(run, 0).baseline_proposer.name == base


def test_several_workers_are_processes(run: OpenRun, setup: Callable[..., Setup]) -> None:
    study = setup(workers=2).study(run, 0)
    try:
        assert study.executor.capacity == 2
    finally:
        study.executor.close()


def test_a_whole_study_trains_judges_and_stays_in_its_branch(run: OpenRun, setup: Callable[..., Setup]) -> None:
    branch = RunBranch(run, "agent-1")
    study = setup().study(branch, 1)
    state = search(study, lambda: None)
    assert len(state.trials) == len(state.judged) == 4
    assert state.best is not None
    trained = {path.name for path in (branch.path / "trials").iterdir()}
    assert trained == {name for trial in state.trials for name in (trial.id, *trial.repeats)}
    call_ids = [event.id for event in run.events if event.type == "llm.called"]
    assert call_ids, "the coin gave the agent no trial: choose another seed"
    assert all(name.startswith(f"agent-1/{TERMS.propose}:") or name.endswith("/evaluate") for name in call_ids)
    assert rebuild(run.events).trials == []
    epochs = [event.id for event in run.events if event.type == "trial.epoch"]
    assert epochs[0] == "agent-1/run_0000"


class StopsAfter(StopFlag):
    """A request that comes when it was asked for so many times: here, before a training step."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.left = count

    def check(self) -> None:
        self.left -= 1
        if not self.left:
            self.request(2)
        super().check()


def test_a_stop_in_the_middle_of_a_training_is_heard_and_the_study_goes_on(
    run: OpenRun, setup: Callable[..., Setup]
) -> None:
    stopped = setup(stop=StopsAfter(3)).study(run, 1)
    with pytest.raises(Interrupted):
        search(stopped, lambda: None)
    assert len(stopped.state.pending) == 1
    resumed = search(setup().study(run, 1), lambda: None)
    assert (len(resumed.judged), resumed.pending) == (4, [])


def test_two_studies_of_one_seed_begin_alike_and_studies_of_two_do_not(
    run: OpenRun, setup: Callable[..., Setup]
) -> None:
    def values(name: str, seed: int) -> list[tuple[Any, float | None]]:
        study_setup = setup(evaluator={"repeats": 0, "noise": 0.0})
        study = study_setup.study(RunBranch(run, name), seed, agent=False)
        return [(dict(trial.proposal.params), trial.value) for trial in search(study, lambda: None).trials]

    first, same_seed, new_seed = values("a", 1), values("b", 1), values("c", 2)
    assert first == same_seed
    assert first[0][0] == new_seed[0][0]
    assert first[0][1] != new_seed[0][1]
