"""The compression of one base: its search, the whole portfolio beside it, and what came of both."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentlab.compress.agent import Agent, AgentProposer
from agentlab.compress.config import CompressConfig, apply_limits, point
from agentlab.compress.control import agent_control, joules_of, pair_of, paired_control, share
from agentlab.compress.costs import stages_of, weights_of, work_of
from agentlab.compress.experiment_memory import CompressMemory, RememberedExperiment
from agentlab.compress.goal import read_goal
from agentlab.compress.meter import Meter
from agentlab.compress.objective import Opener, RecipeObjective, Workshop, alone
from agentlab.compress.recipe import Limit, left_out, recipe_of
from agentlab.compress.result import BASE, TERMS, Advice, CompressModelResult, RecipeRow
from agentlab.compress.run_memory import RunMemory
from agentlab.compress.texts import MOST
from agentlab.compress.tools import Situation
from agentlab.compress.transfer import MeasuredRecipe, Recalling, score_forecasts
from agentlab.compress.verdict import CONFIRMATIONS, BaseFacts, forecast_remark, verdict
from agentlab.models.base_model import BaseFile, import_base
from agentlab.runs.atomic import delete
from agentlab.runs.branch import RunBranch
from agentlab.runs.context import Context
from agentlab.runs.events import first_event_data
from agentlab.runs.run import OpenRun
from agentlab.search.arms import ARMS, ArmName
from agentlab.search.constraints import Forbids
from agentlab.search.llm_proposer import LLMProposer
from agentlab.search.screen import ScreenRules
from agentlab.search.space import SearchSpace
from agentlab.search.types import Params, Proposal, Proposer, Trial, TrialResult
from agentlab.study.control import Pair
from agentlab.study.evaluator import ParetoEvaluator
from agentlab.study.executor import LocalExecutor, TrialExecutor
from agentlab.study.setup import Setup
from agentlab.study.state import StudyCandidate, StudyState, TrialState, rebuild
from agentlab.study.steps import Study, search

if TYPE_CHECKING:
    from agentlab.llm.router import Router

PORTFOLIO = "portfolio"  # known recipes alone; a branch carries out what the search left out of them
MADE = "made"  # the branch in which a winner is made of which nothing but the measures is left
PLANNED, REFLECTED, CONCLUDED = "agent.planned", "agent.reflected", "search.concluded"
CONFIRMED = "winner.confirmed"


@dataclass(frozen=True)
class Search:
    """A search at work."""

    study: Study
    check: Callable[[], None]  # raises Interrupted at a request to stop, OverBudgetError where the budget is spent
    update: Callable[[StudyState], None]
    conclude: Callable[[], None]  # after the last step: the comparison, the winner's export, the reflection

    def run(self) -> None:
        """All of it; raises what `check` raises."""
        search(self.study, self.check, self.update)
        self.conclude()


class CompressPart:
    """One base of a run: its studies, its exports and what came of them. The only one has no name."""

    def __init__(
        self, run: OpenRun, base: BaseFile, name: str, config: CompressConfig, memory: CompressMemory | None
    ) -> None:
        self.run, self.base, self.name, self._config = run, base, name, config
        self._goal = read_goal(config.goal)
        self._study: OpenRun | RunBranch = RunBranch(run, name) if name else run
        pairs = range(config.control_seeds if config.control == "full" else 0)
        self._arms = [(f"agent-{n}", f"control-{n}") for n in pairs]
        names = (*config.beside, MADE, *chain.from_iterable(self._arms))
        self._branches = {arm: RunBranch(run, f"{name}/{arm}" if name else arm) for arm in names}
        self._made, self._beside = self._branches[MADE], {str(rival): self._branches[rival] for rival in config.beside}
        self._place = f"exports/{name}" if name else "exports"
        self._exports = run.folder.folder(self._place).path
        self._memory = RunMemory(memory, config, run, name, base.path.name, self._study)

    @property
    def _limits(self) -> list[Limit]:
        """What the base cannot go through, as it was when the run began."""
        limits = first_event_data(self.run.events, BASE, self.name).get("limits", ())
        return [Limit(Forbids.model_validate(rule), reason) for rule, reason in limits]

    @property
    def search_trials(self) -> list[TrialState]:
        return list(rebuild(self._study.events).trials)

    def open_search(
        self, workshop: Opener, meter: Meter, stop: Callable[[], None], router: "Router | None" = None
    ) -> "Search":
        """The search, planned by the agent if there is one; what is remembered costs nothing.

        Args:
            workshop: opens what carries recipes out when it is first needed; who only lacks a report loads no model.
            stop: raises where a signal asked to stop.
            router: the way to the agent's models; None is a search without.

        Raises:
            OverBudgetError: see `Meter`.
            UsageError: see `apply_limits`.
            Whatever `stop` raises.
        """
        config = self._config
        if str(config.budget.trials) not in self._event_data(CONCLUDED):
            dense = f"{workshop().dense:,} bytes in bfloat16"  # what is wrong with the base is no trial's
            self.run.stream("base.loading", dense)
        space, recipes = apply_limits(config, self._limits, self.base.name)
        portfolio = [Proposal(point(recipe, space), PORTFOLIO) for recipe in recipes]
        remembered, elsewhere = self._memory.recall(space)

        def situation(history: Sequence[Trial]) -> Situation:
            return Situation(self._goal, ScreenRules(space), history, list(remembered.values()), elsewhere)

        pairing, router = router, router if config.planner == "agent" else None
        planned = self._plan(self._study, meter, router, situation) if router else []
        starts = self._starts(portfolio, remembered, space)
        trials = len(starts) if config.planner == PORTFOLIO else len(remembered) + config.budget.trials

        def check() -> None:
            stop()
            meter.stage("propose")

        setup = Setup(
            terms=TERMS,
            rules=ScreenRules(space),
            starts=starts,
            base=config.arm,
            budget={"trials": trials},
            evaluator=lambda *_: ParetoEvaluator(TERMS),
            executor=partial(self._executor, workshop, meter, space, remembered),
            check=check,
            router=router,
            options=config.options,
            share=share,
            arm=partial(_recalling_arm, [experiment.elsewhere for experiment in elsewhere]),
            asks=lambda plain: AgentProposer.of(plain, planned, situation),
        )

        conclude = partial(self._conclude, setup, portfolio, workshop, meter, elsewhere, situation, pairing)
        return Search(setup.study(self._study, config.seed), check, lambda _: self._tick(starts), conclude)

    def _executor(
        self,
        workshop: Opener,
        meter: Meter,
        space: SearchSpace,
        remembered: Mapping[str, RememberedExperiment],
        branch: OpenRun | RunBranch,
    ) -> TrialExecutor:
        before = partial(self._find_known, branch, space, remembered)
        first, export_path = self._config.text.held_out, partial(self._out, branch)
        return LocalExecutor(RecipeObjective(workshop, self._goal, first, meter, export_path, before, self.tidy))

    def _conclude(
        self,
        setup: Setup,
        portfolio: Sequence[Proposal],
        workshop: Opener,
        meter: Meter,
        elsewhere: Sequence[RememberedExperiment],
        situation: Callable[[Sequence[Trial]], Situation],
        pairing: "Router | None",
    ) -> None:
        """After the last step of a search; `pairing` is the way to the models of a full control."""
        trials, plain_setup = str(self._config.budget.trials), replace(setup, router=None)
        self._compare(plain_setup, portfolio)
        for _ in range(2 * CONFIRMATIONS):  # each may have to be made again before
            if unconfirmed := self._find_unconfirmed():
                self._confirm(unconfirmed, plain_setup, workshop, meter)
        if pairing:
            self._pair(replace(setup, starts=portfolio[: self._config.first], router=pairing), meter, elsewhere)
        if setup.router:
            self._advice(self._study, REFLECTED, trials, meter, setup.router, situation)
        self._tick(setup.starts, has_ended=True)
        if trials not in self._event_data(CONCLUDED):
            history = [trial.as_trial() for trial in self.search_trials]
            forecasts = score_forecasts(setup.rules.space, history, [experiment.elsewhere for experiment in elsewhere])
            self._study.emit(CONCLUDED, trials, **forecasts)

    def _starts(
        self, portfolio: Sequence[Proposal], remembered: Mapping[str, RememberedExperiment], space: SearchSpace
    ) -> list[Proposal]:
        """What is remembered, which costs nothing, and then what of the portfolio is not."""
        known = [Proposal(experiment.recipe, "memory") for experiment in remembered.values()]
        first = portfolio if self._config.planner == PORTFOLIO else portfolio[: self._config.first]
        unknown = [start for start in self._cheapest_first(first, space) if space.key(start.params) not in remembered]
        return [*known, *unknown]

    def _cheapest_first(self, starts: Sequence[Proposal], space: SearchSpace) -> list[Proposal]:
        """By forecast in powers of two: a small budget is to measure something. What was proposed already stays so."""
        done = {space.key(trial.proposal.params): trial.number for trial in self.search_trials}
        weights = weights_of(self.base)
        stages = [stages_of(recipe_of(proposal.params), self._config, weights) for proposal in starts]
        works = [round(math.log2(work_of(recipe_stages))) for recipe_stages in stages]
        ranks = [(done.get(space.key(start.params), math.inf), work) for start, work in zip(starts, works, strict=True)]
        return [starts[index] for index in sorted(range(len(starts)), key=ranks.__getitem__)]

    def _event_data(self, kind: str, study: OpenRun | RunBranch | None = None) -> dict[str, Mapping[str, Any]]:
        """What the events of a kind say, by their ids: what ends a search is told once for each number of trials."""
        events = (study or self._study).events
        return {event.id: event.data for event in events if event.type == kind and "/" not in event.id}

    def _plan(self, study: OpenRun | RunBranch, *arguments: Any) -> list[Params]:
        """The recipes that the agent plans for a study; what rules name is no plan."""
        advice = self._advice(study, PLANNED, "", *arguments)
        return [recipe["params"] for recipe in advice.recipes] if advice.by else []

    def _advice(
        self,
        study: OpenRun | RunBranch,
        kind: str,
        name: str,
        meter: Meter,
        router: "Router",
        situation: Callable[[Sequence[Trial]], Situation],
    ) -> Advice:
        """What the agent says before and after the search, once under each name."""
        if name not in self._event_data(kind, study):
            meter.stage("propose")
            scope = study.name if isinstance(study, RunBranch) else self.name
            history = [trial.as_trial() for trial in rebuild(study.events).trials]
            agent = Agent(router, situation(history), f"{scope}/{name}")
            advice = agent.plan() if kind == PLANNED else agent.reflect()
            study.emit(kind, name, **advice.model_dump())
        return Advice.model_validate(self._event_data(kind, study)[name])

    def _tick(self, starts: Sequence[Proposal], *, has_ended: bool = False) -> None:
        config = self._config
        done = {str(recipe_of(trial.proposal.params)) for trial in self.search_trials if trial.result}
        start_recipes = [str(recipe_of(start.params)) for start in starts]
        steps = [(f"measure {recipe}", recipe in done) for recipe in start_recipes]
        plans = self._event_data(PLANNED)
        plan = Advice.model_validate(plans[""]) if plans else None
        if plan is not None and plan.by:  # what rules name is not done before all else
            steps += [(f"{step} (suggested by {plan.by})", has_ended) for step in plan.todos]
            planned_recipes = [str(recipe_of(recipe["params"])) for recipe in plan.recipes]
            steps += [(f"measure {recipe}", recipe in done) for recipe in planned_recipes]
        steps.append((f"search, {config.budget.trials} recipes in total", has_ended))
        steps += [(f"compare with {name}", has_ended) for name in config.beside]
        lines = "".join(f"- [{'x' if done else ' '}] {text}\n" for text, done in dict(steps).items())
        self.run.write_text(f"todo-{self.name}.md" if self.name else "todo.md", lines)

    def _compare(self, setup: Setup, portfolio: Sequence[Proposal]) -> None:
        """Carry out what the search is held against: the whole portfolio, or an arm without memory at equal cost."""
        config, cost = self._config, sum(joules_of(self.search_trials))
        for name, branch in self._beside.items():
            if name == PORTFOLIO:
                rival_setup = replace(setup, starts=portfolio, budget={"trials": len(portfolio)})
            else:
                first, budget = portfolio[: config.first], {"joules": cost}
                rival_setup = replace(setup, starts=first, budget=budget, base=name, arm=None)
            search(rival_setup.study(branch, config.seed), setup.check)

    def _pair(self, setup: Setup, meter: Meter, elsewhere: Sequence[RememberedExperiment]) -> None:
        """Pairs of searches with and without the agent, each for what the search has cost, and without its memory."""

        def situation(history: Sequence[Trial]) -> Situation:
            return Situation(self._goal, setup.rules, history, [], elsewhere)

        cost = {"joules": sum(joules_of(self.search_trials))}

        def asks(plain: LLMProposer, branch: RunBranch) -> AgentProposer:
            return AgentProposer.of(plain, self._plan(branch, meter, setup.router, situation), situation)

        for number, names in enumerate(self._arms):
            for name in names:
                branch, agent = self._branches[name], name == names[0]
                arm = replace(setup, asks=partial(asks, branch=branch))
                search(arm.study(branch, self._config.seed + number, agent=agent, budget=cost), setup.check)

    def _find_unconfirmed(self) -> RecipeRow | None:
        """Whose figures on text that no choice saw are wanted next; None once there is a winner, or can be none."""
        result = self.result()
        return next((row for row in result.rows if row.id == result.winner and row.confirmed is None), None)

    def _confirm(self, row: RecipeRow, setup: Setup, workshop: Opener, meter: Meter) -> None:
        """Measure whoever is best on that text. Its export is made again before, if it is gone or an earlier run's."""
        if row.file and (self._exports / row.file).exists():
            losses, kls = workshop().read(recipe_of(row.params), self._exports / row.file, "confirm", 0, MOST)
            meter.flush()
            self._study.emit(CONFIRMED, row.recipe, losses=losses, kls=kls)
        else:
            proposals = [trial.proposal for trial in rebuild(self._made.events).trials]
            proposals = [proposal for proposal in proposals if proposal.params != row.params]
            proposals.append(Proposal(row.params, "memory"))
            made_setup = replace(setup, starts=proposals, budget={"trials": len(proposals)})
            search(made_setup.study(self._made, self._config.seed), setup.check)

    def _out(self, branch: OpenRun | RunBranch, candidate: StudyCandidate) -> Path:
        name = next((f"{name}-" for name, known_branch in self._branches.items() if known_branch is branch), "")
        return self._exports / f"{name}{candidate.name}"

    def _find_known(
        self,
        branch: OpenRun | RunBranch,
        space: SearchSpace,
        remembered: Mapping[str, RememberedExperiment],
        params: Params,
    ) -> TrialResult | None:
        """What need not be measured in a branch: it counts there with what it cost whoever measured it."""
        key = space.key(params)
        branches = () if branch in (self._study, self._made) else (self._study, *self._branches.values())
        trials = (rebuild(known_branch.events).trials for known_branch in branches if known_branch is not self._made)
        for trial in chain.from_iterable(trials):
            if trial.result and space.key(trial.proposal.params) == key:
                return replace(trial.result, metrics=alone(trial.result.metrics))
        experiment = None if branch is self._made else remembered.get(key)
        if experiment is None or experiment.is_near(self._goal):
            return None
        result = experiment.result(self._goal, self._memory.find_export(experiment))
        return result if branch is self._study else replace(result, metrics=alone(result.metrics))

    def remember(self) -> None:
        self._memory.keep((self._study, *self._branches.values()), self._exports)

    def result(self) -> CompressModelResult:
        measured = first_event_data(self.run.events, BASE, self.name)
        facts = {field.name: measured[field.name] for field in fields(BaseFacts) if field.name in measured}
        base = BaseFacts(self.base.name, left_out=left_out(self._limits), **facts)
        rivals = {name: rebuild(branch.events).trials for name, branch in self._beside.items()}
        made_trials, config = rebuild(self._made.events).trials, self._config
        agent, pairs = agent_control(self.search_trials, config.seed), list[Pair]()
        if any(self._branches[name].events for name in chain.from_iterable(self._arms)):
            cost = sum(joules_of(self.search_trials))
            sources = list[str]()
            for number, names in enumerate(self._arms):
                ours, rival = (rebuild(self._branches[name].events) for name in names)
                pairs.append(pair_of(config.seed + number, cost, ours, rival))
                sources += [trial.proposal.source for trial in rival.trials if trial.arm != "shared"]
            agent = paired_control(pairs, cost, sources, config.seed)
        confirmed, where = self._event_data(CONFIRMED), (self.run.path, self._place)
        result = verdict(base, self._goal, self.search_trials, rivals, made_trials, agent, confirmed, *where)
        advice_by_kind = {"plan": self._event_data(PLANNED), "reflection": self._event_data(REFLECTED)}
        last = {name: list(entries.values())[-1] for name, entries in advice_by_kind.items() if entries}
        advice = {name: Advice.model_validate(content) for name, content in last.items()}
        scores = next(reversed(self._event_data(CONCLUDED).values()), None)
        notes = filter(None, [forecast_remark(scores) if scores else "", self._memory.problem])
        return result.model_copy(update={"pairs": pairs, "remarks": [*result.remarks, *notes], **advice})

    def tidy(self) -> None:
        """Remove all exports but the front and the winner: they are large, never come back, and have a recipe."""
        kept_files = self.result().kept_files.values()
        for path in sorted(self._exports.iterdir()) if self._exports.is_dir() else []:
            if path.name not in kept_files:
                delete(path)


def _recalling_arm(elsewhere: Sequence[MeasuredRecipe], name: ArmName, space: SearchSpace, seed: int) -> Proposer:
    return Recalling(ARMS.load(name)(name, space, seed), space, elsewhere)


def open_workshop(part: CompressPart, config: CompressConfig, context: Context, threads: int, meter: Meter) -> Workshop:
    """The workshop of a base, which is read now."""
    from agentlab.compress.recipe_runner import RealWorkshop

    base = part.base
    part.run.stream("base.loading", base.name)
    meter.stage("open")
    return RealWorkshop(config, import_base(base), base.file, part.name, part.run, context, threads, meter)
