"""Capabilities as LangGraph graphs. Needs the extra `langgraph`.

    nas, compress    planner -> executor -> evaluator -> update, until the budget is spent
    debate           agent -> metrics, until a wave of questions is settled; then judge, until no wave is left

    from agentlab.integrations.langgraph import compress_graph, debate_graph, nas_graph

    state = nas_graph("demo", overrides={"llm": "none"}).invoke({})
    state["result"]["winner"]["test_mse"]

The nodes call the same step functions as the commands, in a run folder like any other: trials and transcripts are
identical, and a graph that was killed is gone on with by `agentlab runs resume`.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypedDict, TypeVar

from agentlab.compress.base_compression import Search
from agentlab.compress.config import CompressConfig
from agentlab.compress.run import OpenCompression
from agentlab.config.overrides import Override
from agentlab.debate.config import DebateConfig
from agentlab.debate.protocol import is_unanimous
from agentlab.debate.run import Debates
from agentlab.errors import MissingExtraError
from agentlab.nas.config import NasConfig
from agentlab.nas.run import OpenStudy
from agentlab.session import Watch, begin, finish, surroundings
from agentlab.stats.fronts import front
from agentlab.study import steps

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph

_RECURSION = 1_000_000  # LangGraph counts every node; what bounds a search is its own budget

Overrides = Mapping[str, Any] | None  # dotted config key -> value, as with `--set`
Step = Callable[[steps.Study], object]
Opened = TypeVar("Opened", bound=OpenStudy | Debates | OpenCompression)

_STEPS: dict[str, Step] = {
    "planner": lambda study: steps.plan(study, study.state),
    "executor": lambda study: steps.execute(study, study.state),
    "evaluator": lambda study: steps.evaluate(study, study.state),
    "update": lambda study: steps.write_snapshot(study, study.state),
}


class NasState(TypedDict, total=False):
    """What travels through the graph: the run folder, how far the search is, and in the end its result."""

    run: str
    trials: int
    best_run_id: str | None
    best_val_mse: float | None
    done: bool
    result: dict[str, Any]


def nas_graph(
    config: NasConfig | str | Path | None = None, *, overrides: Overrides = None, runs_dir: Path | None = None
) -> "CompiledStateGraph[NasState, None, NasState, NasState]":
    """A compiled graph. Every `invoke({})` is a new run; its state is a `NasState`.

    Args:
        config: a checked config, a preset's name or a YAML file; None is the default preset.
        runs_dir: the folder that holds run folders; None is `runs` of the workspace.

    Raises:
        MissingExtraError: LangGraph is not installed.
    """
    start = partial(_GraphWork.begin, "nas", config, overrides, runs_dir, _nas_state)
    steps_ = {name: _of_study(step) for name, step in _STEPS.items()}
    route = dict.fromkeys(("begin", "update"), (_next_trial, ["planner", "conclude"]))
    return _graph(NasState, "agentlab-nas", start, steps_, route)  # type: ignore[no-any-return] # of LangGraph, which is an extra


def _of_study(step: Step) -> "Callable[[_GraphWork[OpenStudy]], object]":
    return lambda work: step(work.opened.study)


def _next_trial(state: "NasState | CompressState") -> str:
    return "conclude" if state["done"] else "planner"


def _nas_state(search: OpenStudy) -> dict[str, Any]:
    state = search.study.state
    best = state.best
    return {
        "trials": len(state.judged),
        "best_run_id": best.id if best else None,
        "best_val_mse": best.value if best else None,
        "done": steps.is_over(search.study, state),
    }


class CompressState(TypedDict, total=False):
    """What travels through the graph: the run folder, how far the search is, what ended it, and its result."""

    run: str
    trials: int
    front: list[str]
    over: str | None
    done: bool
    result: dict[str, Any]


def compress_graph(
    config: CompressConfig | str | Path | None = None, *, overrides: Overrides = None, runs_dir: Path | None = None
) -> "CompiledStateGraph[CompressState, None, CompressState, CompressState]":
    """As `nas_graph`, for the compression of one base; the state is a `CompressState`.

    What the search is held against, and the agent's reflection, come in the last node.
    """
    start = partial(_GraphWork.begin, "compress", config, overrides, runs_dir, _compress_state)
    steps_ = {name: _of_compression(name) for name in _STEPS}
    route = dict.fromkeys(("begin", "update"), (_next_trial, ["planner", "conclude"]))
    return _graph(CompressState, "agentlab-compress", start, steps_, route)  # type: ignore[no-any-return] # of LangGraph, which is an extra


def _of_compression(name: str) -> "Callable[[_GraphWork[OpenCompression]], object]":
    def step(search: Search) -> None:
        if name == "planner":
            search.check()
        _STEPS[name](search.study)
        if name == "update":
            search.update(search.study.state)

    return lambda work: work.opened.advance(step)


def _compress_state(work: OpenCompression) -> dict[str, Any]:
    if work.search is None:
        return {"over": work.over, "done": True}
    study = work.search.study
    ranked_trials = study.state.ranking
    best = front([trial.objectives for trial in ranked_trials])
    done = work.over is not None or steps.is_over(study, study.state)
    ids = [ranked_trials[position].id for position in best]
    return {"trials": len(study.state.judged), "front": ids, "over": work.over, "done": done}


class DebateState(TypedDict, total=False):
    """What travels through the graph: the run folder, the wave, its round and open questions, the result in the end."""

    run: str
    wave: str
    round: int
    open: int
    agreed: int
    done: bool
    result: dict[str, Any]


def debate_graph(
    config: DebateConfig | str | Path | None = None, *, overrides: Overrides = None, runs_dir: Path | None = None
) -> "CompiledStateGraph[DebateState, None, DebateState, DebateState]":
    """As `nas_graph`, for debates; the state is a `DebateState`."""
    start = partial(_GraphWork.begin, "debate", config, overrides, runs_dir, _debate_state)
    steps_: dict[str, Callable[[_GraphWork[Debates]], object]] = {
        "agent": lambda work: work.opened.speak(),
        "metrics": lambda _: None,  # the state that every node leaves says it all
        "judge": lambda work: work.opened.finish(),
    }
    route = {
        "begin": (_next_round, ["agent", "conclude"]),
        "metrics": (_next_round, ["agent", "judge"]),
        "judge": (_next_round, ["agent", "conclude"]),
    }
    return _graph(DebateState, "agentlab-debate", start, steps_, route)  # type: ignore[no-any-return] # of LangGraph, which is an extra


def _next_round(state: DebateState) -> str:
    if state["done"]:
        return "conclude"
    return "agent" if state["open"] else "judge"


def _debate_state(debates: Debates) -> dict[str, Any]:
    wave = debates.wave
    if wave is None:
        return {"done": True}
    return {
        "wave": wave.name,
        "round": max(map(len, wave.rounds.values()), default=0),
        "open": len(wave.open),
        "agreed": sum(is_unanimous(rounds[-1]) for rounds in wave.rounds.values()),
        "done": False,
    }


def _graph(
    state_type: Any,
    name: str,
    start: "Callable[[], _GraphWork[Any]]",
    steps_: "Mapping[str, Callable[[_GraphWork[Any]], object]]",
    route: Mapping[str, tuple[Callable[[Any], str], list[str]]],
) -> Any:
    """begin, the steps one after another, conclude; behind those in `route`, a function says which place is next."""
    try:
        from langgraph.graph import END, START, StateGraph
    except ImportError as error:
        raise MissingExtraError(
            "LangGraph is not installed.", hint="Install the extra: pip install -e '.[langgraph]'"
        ) from error
    works: dict[str, _GraphWork[Any]] = {}

    def first(state: Any) -> Any:  # noqa: ARG001 - LangGraph passes it by this name
        work = start()
        works[str(work.opened.run.path)] = work
        return work.state()

    def conclude(state: Any) -> Any:
        return works.pop(state["run"]).conclude()

    graph = StateGraph(state_type)
    graph.add_node("begin", first)
    for step, function in steps_.items():
        graph.add_node(step, _node(works, function))
    graph.add_node("conclude", conclude)
    graph.add_edge(START, "begin")
    for before, after in pairwise(steps_):
        if before not in route:
            graph.add_edge(before, after)
    for before, (follow, next_steps) in route.items():
        graph.add_conditional_edges(before, follow, next_steps)
    graph.add_edge("conclude", END)
    return graph.compile(name=name).with_config(recursion_limit=_RECURSION)


def _node(works: "dict[str, _GraphWork[Any]]", step: "Callable[[_GraphWork[Any]], object]") -> Any:
    def call(state: Any) -> Any:
        work = works[state["run"]]
        try:
            step(work)
            return work.state()
        except BaseException as error:
            works.pop(state["run"]).abandon(error)
            raise

    return call


class _GraphWork(Generic[Opened]):
    """A run at work, and what has to be let go of at its end: workers, router, run folder."""

    def __init__(self, opened: Opened, stack: ExitStack, tell: Callable[[Opened], dict[str, Any]]) -> None:
        self.opened = opened
        self._stack, self._tell = stack, tell

    @classmethod
    def begin(
        cls,
        name: str,
        config: Any,
        overrides: Overrides,
        runs_dir: Path | None,
        tell: Callable[[Opened], dict[str, Any]],
    ) -> "_GraphWork[Opened]":
        context = surroundings(os.environ, Path.cwd())
        changes = [Override(key, value, "overrides") for key, value in (overrides or {}).items()]
        folder = runs_dir or context.workspace.runs
        session = begin(name, config, changes, context=context, runs_dir=folder, argv=[f"{name}_graph"])
        experiment: Any = session.experiment
        with ExitStack() as stack:
            run = stack.enter_context(session.open_run_folder(Watch()))
            return cls(stack.enter_context(experiment.open_work(run)), stack.pop_all(), tell)

    def state(self) -> dict[str, Any]:
        return {"run": str(self.opened.run.path), **self._tell(self.opened)}

    def conclude(self) -> dict[str, Any]:
        with self._stack:
            state = self.state()
            result = finish(self.opened.run, *self.opened.conclude())
        return {**state, "result": result.model_dump(mode="json")}

    def abandon(self, error: BaseException) -> None:
        """End the work as a command's is ended: the run folder says why."""
        self._stack.__exit__(type(error), error, error.__traceback__)
