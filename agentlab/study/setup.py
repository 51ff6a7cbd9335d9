"""What all studies of a run share, and how one is put together: proposers, executor, language model and rules."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agentlab.runs.branch import RunBranch
from agentlab.runs.run import OpenRun
from agentlab.search.arms import ARMS, Arm
from agentlab.search.llm_proposer import LLMProposer
from agentlab.search.screen import ScreenedProposer, ScreenRules
from agentlab.search.types import Proposal, Proposer, Trial
from agentlab.study.evaluator import Evaluator
from agentlab.study.executor import TrialExecutor
from agentlab.study.state import TrialState
from agentlab.study.steps import FAIR, WORST, Reviewer, Study
from agentlab.study.terms import StudyTerms

if TYPE_CHECKING:
    from agentlab.llm.router import Router


@dataclass(frozen=True, slots=True)
class Setup:
    """What a capability brings. `base` is the classical arm, and `options` how many of its offers a small model sees.

    `evaluator` is told the language model that may be asked, None in a study without the agent, and a scope for its
    calls. `check` raises where a signal asked to stop. `worst`, `starts`, `history_filter`, `share`: see `Study`. `arm`
    makes the classical one, where that of the table is not what is wanted, and `asks` may change how a model is asked.
    """

    terms: StudyTerms
    rules: ScreenRules
    starts: Sequence[Proposal]
    base: str
    budget: Mapping[str, float]
    evaluator: Callable[["Router | None", str], Evaluator]
    executor: Callable[[OpenRun | RunBranch], TrialExecutor]
    check: Callable[[], None]
    router: "Router | None" = None
    options: int = 2
    reviewer: Reviewer | None = None
    history_filter: Callable[[Sequence[Trial]], Sequence[Trial]] = lambda history: history
    share: Callable[[Sequence[TrialState]], float] = lambda _: FAIR
    arm: Arm | None = None
    asks: Callable[[LLMProposer], Proposer] = lambda proposer: proposer
    worst: Mapping[str, float] = field(default_factory=WORST.copy)

    def study(
        self, run: OpenRun | RunBranch, seed: int, *, agent: bool = True, budget: Mapping[str, float] | None = None
    ) -> Study:
        """The study of a run, or in a branch one beside it with a budget of its own. Close its executor at the end."""
        scope, terms = f"{run.name}/" if isinstance(run, RunBranch) else "", self.terms
        arm, executor = self.arm or ARMS.load(self.base), self.executor(run)  # first: what asks may think already
        base = ScreenedProposer(arm(self.base, self.rules.space, seed), self.rules)
        router = self.router if agent else None
        asking: Proposer | None = None
        if router is not None and router.available(terms.propose):
            proposer = LLMProposer(
                base, router, self.rules, terms.briefing, task=terms.propose, options=self.options, scope=scope
            )
            asking = self.asks(proposer)
        return Study(
            run=run,
            terms=terms,
            seed=seed,
            budget=self.budget if budget is None else budget,
            starts=self.starts,
            baseline_proposer=base,
            agent=asking,
            executor=executor,
            evaluator=self.evaluator(router, scope),
            rules=self.rules,
            reviewer=None if isinstance(run, RunBranch) else self.reviewer,
            history_filter=self.history_filter,
            share=self.share,
            worst=self.worst,
        )
