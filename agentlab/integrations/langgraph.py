"""The architecture search as a LangGraph graph: planner -> executor -> evaluator -> update, until the budget is spent.

    from agentlab.integrations.langgraph import nas_graph

    graph = nas_graph("demo", overrides={"llm": "none"})
    state = graph.invoke({})
    state["result"]["winner"]["test_mse"]

The nodes call the same step functions as `agentlab nas`, in a run folder like any other: the trials are identical, and
a graph that was killed is gone on with by `agentlab runs resume`. Needs the extra `langgraph`.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from agentlab.errors import MissingExtraError
from agentlab.nas.config import NasConfig
from agentlab.nas.run import NasExperiment, OpenStudy
from agentlab.study import steps

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph

_RECURSION = 1_000_000  # LangGraph counts every node; what bounds a search is its own budget

Step = Callable[[steps.Study], object]

_STEPS: dict[str, Step] = {
    "planner": lambda study: steps.plan(study, study.state),
    "executor": lambda study: steps.execute(study, study.state),
    "evaluator": lambda study: steps.evaluate(study, study.state),
    "update": lambda study: steps.update(study, study.state),
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
    config: "NasConfig | str | Path | None" = None,
    *,
    overrides: Mapping[str, Any] | None = None,
    runs_dir: Path | None = None,
) -> "CompiledStateGraph[NasState, None, NasState, NasState]":
    """A compiled graph. Every `invoke({})` is a new run; its state is a `NasState`.

    Args:
        config: a checked config, a preset's name or a YAML file; None is the default preset.
        overrides: dotted config key -> value, as with `--set`.
        runs_dir: the folder that holds run folders; None is `runs` of the workspace.

    Raises:
        MissingExtraError: LangGraph is not installed.
    """
    try:
        from langgraph.graph import END, START, StateGraph
    except ImportError as error:
        raise MissingExtraError(
            "LangGraph is not installed.", hint="Install the extra: pip install -e '.[langgraph]'"
        ) from error
    works: dict[str, _Work] = {}

    def begin(state: NasState) -> NasState:  # noqa: ARG001 - LangGraph passes it by this name
        work = _Work.begin(config, overrides or {}, runs_dir)
        works[str(work.search.run.path)] = work
        return work.state()

    def conclude(state: NasState) -> NasState:
        return works.pop(state["run"]).conclude()

    graph = StateGraph(NasState)
    graph.add_node("begin", begin)
    for name, step in _STEPS.items():
        graph.add_node(name, _node(works, step))
    graph.add_node("conclude", conclude)
    graph.add_edge(START, "begin")
    for first, second in (("planner", "executor"), ("executor", "evaluator"), ("evaluator", "update")):
        graph.add_edge(first, second)
    for name in ("begin", "update"):
        graph.add_conditional_edges(name, _next, ["planner", "conclude"])
    graph.add_edge("conclude", END)
    return graph.compile(name="agentlab-nas").with_config(recursion_limit=_RECURSION)


def _next(state: NasState) -> str:
    return "conclude" if state["done"] else "planner"


def _node(works: "dict[str, _Work]", step: Step) -> Any:  # a node of LangGraph's, which has no name for its type
    def call(state: NasState) -> NasState:
        work = works[state["run"]]
        try:
            step(work.search.study)
            return work.state()
        except BaseException as error:
            works.pop(state["run"]).abandon(error)
            raise

    return call


class _Work:
    """One search at work, and what has to be let go of at its end: workers, router, run folder."""

    def __init__(self, search: OpenStudy, stack: ExitStack) -> None:
        self.search = search
        self._stack = stack

    @classmethod
    def begin(
        cls, config: "NasConfig | str | Path | None", overrides: Mapping[str, Any], runs_dir: Path | None
    ) -> "_Work":
        """Check the config, create the run folder, measure the reference lines."""
        import os

        from agentlab.config.overrides import Override
        from agentlab.runs.redact import Redactor
        from agentlab.session import Watch, begin, surroundings

        context = surroundings(os.environ, Path.cwd())
        given = [Override(key, value, "overrides") for key, value in overrides.items()]
        folder = runs_dir or context.workspace.runs
        session = begin("nas", config, given, context=context, runs_dir=folder, argv=["nas_graph"])
        experiment = session.experiment
        assert isinstance(experiment, NasExperiment)
        with ExitStack() as stack:
            run = stack.enter_context(session.opened(Watch(Redactor.of(context.env))))
            search = stack.enter_context(experiment.opened(run))
            return cls(search, stack.pop_all())

    def state(self) -> NasState:
        """What the graph's state says of it."""
        study = self.search.study
        state = study.state
        best = state.best
        return {
            "run": str(self.search.run.path),
            "trials": len(state.judged),
            "best_run_id": best.id if best else None,
            "best_val_mse": best.value if best else None,
            "done": steps.over(study, state),
        }

    def conclude(self) -> NasState:
        """The last round, the report, and the end of the run."""
        from agentlab.session import finish

        with self._stack:
            state = self.state()
            result = finish(self.search.run, *self.search.conclude())
        return {**state, "result": result.model_dump(mode="json")}

    def abandon(self, error: BaseException) -> None:
        """End the work as a command's is ended: the run folder says why."""
        self._stack.__exit__(type(error), error, error.__traceback__)
