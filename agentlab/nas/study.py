"""Puts a study together: proposers, executor, language model and rules, around one run or a part of one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentlab.nas import steps
from agentlab.nas.config import NasConfig, TrialConfig
from agentlab.nas.series import Series
from agentlab.nas.state import StudyState
from agentlab.runs.branch import Branch
from agentlab.runs.context import Context
from agentlab.runs.run import Run
from agentlab.search.budget import Budget
from agentlab.search.executor import LocalExecutor
from agentlab.search.llm_proposer import LLMProposer
from agentlab.search.optuna_proposer import OptunaProposer
from agentlab.search.prompts import Briefing
from agentlab.search.random_proposer import RandomProposer
from agentlab.search.screen import Rules, ScreenedProposer
from agentlab.search.types import Params, Proposer, TrialExecutor

if TYPE_CHECKING:
    from agentlab.llm.router import Router

PROPOSE = "nas.propose"

_BRIEFING = Briefing(
    goal="Find the settings of a forecasting model with the lowest validation error.",
    metric="validation error",
    shown=("parameters", "epochs"),
)
_WORKER_SPARE = 256 << 20  # bytes beside training: pictures, buffers, the allocator's leftovers


@dataclass(frozen=True, slots=True)
class Bench:
    """What all studies of a run share."""

    config: NasConfig
    context: Context
    base: TrialConfig
    series: Series
    rules: Rules
    default: Params
    router: "Router"
    device: str

    def study(
        self, run: Run | Branch, seed: int, *, agent: bool = True, scope: str = "", paired: Budget | None = None
    ) -> steps.Study:
        """A study in a run, or with `paired` beside the main one, in a branch of it. Close its executor at the end."""
        config, base = self.config, self._classical(seed)
        options = config.search.pick_from
        proposer = LLMProposer(base, self.router, self.rules, _BRIEFING, task=PROPOSE, options=options, scope=scope)
        asked = agent and self.router.available(PROPOSE)
        return steps.Study(
            run=run,
            seed=seed,
            budget=paired or Budget(trials=config.max_iterations, seconds=config.max_seconds),
            repeats=config.evaluator.repeats,
            noise=config.evaluator.noise,
            family=config.evaluator.family,
            default=self.default,
            control=base,
            agent=proposer if asked else None,
            executor=self._executor(run),
            router=self.router if agent else None,
            rules=self.rules,
            reviewer=None if paired else self.context.reviewer,
            scope=scope,
        )

    def _classical(self, seed: int) -> Proposer:
        kind, space = self.config.search.base, self.rules.space
        if kind == "random":
            return ScreenedProposer(RandomProposer(space), self.rules)
        return ScreenedProposer(OptunaProposer(space, sampler=kind, seed=seed), self.rules)

    def _executor(self, run: Run | Branch) -> TrialExecutor:
        trials, stop = run.folder.folder("trials"), self.context.stop.check

        def report(type: str, id: str, data: dict[str, object]) -> None:  # noqa: A002 - the event's fields
            run.emit(type, id, **data)

        if self.config.workers == 1:
            from agentlab.nas.objective import InformerObjective

            return LocalExecutor(InformerObjective(self.base, self.series, trials, self.device, report, stop))
        from agentlab.nas.worker import FACTORY, setup
        from agentlab.search.processes import ProcessExecutor

        limit = self.config.search.memory_mb * 2**20 + _WORKER_SPARE
        return ProcessExecutor(
            FACTORY,
            setup(self.base, self.series, trials, self.context.workspace, self.device),
            workers=self.config.workers,
            threads=1,  # these models are too small for more
            memory_bytes=limit if self.device == "cpu" else None,
            report=report,
            check=stop,
        )


def search(study: steps.Study, check: Callable[[], None]) -> StudyState:
    """Iterate until the budget is spent or the space is."""
    state = study.state
    while not steps.over(study, state):
        check()
        state = steps.plan(study, state)
        state = steps.execute(study, state)
        state = steps.evaluate(study, state)
        steps.update(study, state)
    return state
