"""The compression of one base: its search, the whole portfolio beside it, and what came of both."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentlab.compress.agent import Agent, AgentProposer
from agentlab.compress.config import CompressConfig, offered, point
from agentlab.compress.control import agent_control, joules_of, pair_of, paired_control, share
from agentlab.compress.costs import stages_of, weights_of, work_of
from agentlab.compress.goal import read_goal
from agentlab.compress.memory import Experiment, Memory, hashed
from agentlab.compress.meter import Meter
from agentlab.compress.objective import Opener, Recipes, Workshop, alone
from agentlab.compress.recipe import Limit, Recipe, left_out, recipe_of
from agentlab.compress.result import BASE, TEXTS, WORDS, Advice, ModelResult, RecipeRow
from agentlab.compress.texts import MOST
from agentlab.compress.tools import Situation
from agentlab.compress.transfer import Recalling, scored
from agentlab.compress.verdict import CONFIRMATIONS, Base, forecast_remark, verdict
from agentlab.errors import ModelFileError, RunMismatchError, StorageError
from agentlab.models.base_model import BaseFile, imported
from agentlab.runs.atomic import delete
from agentlab.runs.branch import Branch
from agentlab.runs.context import Context
from agentlab.runs.events import noted
from agentlab.runs.run import Run
from agentlab.search.arms import ARMS, ArmName
from agentlab.search.constraints import Forbids
from agentlab.search.llm_proposer import LLMProposer
from agentlab.search.screen import Rules
from agentlab.search.space import SearchSpace
from agentlab.search.types import Params, Proposal, Proposer, Trial, TrialResult
from agentlab.study.control import Pair
from agentlab.study.evaluator import Fronts
from agentlab.study.executor import LocalExecutor, TrialExecutor
from agentlab.study.setup import Setup
from agentlab.study.state import Candidate, StudyState, TrialState, rebuild
from agentlab.study.steps import Study, search

if TYPE_CHECKING:
    from agentlab.llm.router import Router

PORTFOLIO = "portfolio"  # known recipes alone; a branch carries out what the search left out of them
MADE = "made"  # the branch in which a winner is made of which nothing but the measures is left
MEMORY, PLANNED, REFLECTED, CONCLUDED = "memory.read", "agent.planned", "agent.reflected", "search.concluded"
CONFIRMED = "winner.confirmed"


@dataclass(frozen=True)
class Search:
    """A search at work.

    Attributes:
        study: what the steps work with.
        check: raises where a signal asked to stop, or the budget is spent.
        conclude: what comes after the last: what the search is held against, the winner's export, the reflection.
    """

    study: Study
    check: Callable[[], None]
    update: Callable[[StudyState], None]
    conclude: Callable[[], None]

    def run(self) -> None:
        """All of it.

        Raises:
            OverBudgetError: see `Meter`.
            Interrupted: a signal asked to stop.
        """
        search(self.study, self.check, self.update)
        self.conclude()


class Part:
    """One base of a run: its studies, its exports and what came of them. The only one has no name."""

    def __init__(self, run: Run, base: BaseFile, name: str, config: CompressConfig, memory: Memory | None) -> None:
        self.run, self.base, self.name, self._config, self._memory = run, base, name, config, memory
        self._goal = read_goal(config.goal)
        self._study: Run | Branch = Branch(run, name) if name else run
        pairs = range(config.control_seeds if config.control == "full" else 0)
        self._arms = [(f"agent-{n}", f"control-{n}") for n in pairs]
        names = (*config.beside, MADE, *chain.from_iterable(self._arms))
        self._branches = {each: Branch(run, f"{name}/{each}" if name else each) for each in names}
        self._made, self._beside = self._branches[MADE], {str(each): self._branches[each] for each in config.beside}
        self._place = f"exports/{name}" if name else "exports"
        self._exports = run.folder.folder(self._place).path
        self._forgotten = ""

    @property
    def _limits(self) -> list[Limit]:
        """What the base cannot go through, as it was when the run began."""
        told = noted(self.run.events, BASE, self.name).get("limits", ())
        return [Limit(Forbids.model_validate(rule), why) for rule, why in told]

    @property
    def searched(self) -> list[TrialState]:
        """The trials of the search."""
        return list(rebuild(self._study.events).trials)

    def opened(
        self, workshop: Opener, meter: Meter, stop: Callable[[], None], router: "Router | None" = None
    ) -> "Search":
        """The search, planned by the agent if there is one; what is remembered costs nothing.

        Args:
            workshop: opens what carries recipes out when it is first needed; who only lacks a report loads no model.
            meter: of all of it.
            stop: raises where a signal asked to stop.
            router: the way to the agent's models; None is a search without.

        Raises:
            OverBudgetError: see `Meter`.
            UsageError: see `offered`.
            Whatever `stop` raises.
        """
        config = self._config
        if str(config.budget.trials) not in self._told(CONCLUDED):
            dense = f"{workshop().dense:,} bytes in bfloat16"  # what is wrong with the base is no trial's
            self.run.stream("base.loading", dense)
        space, recipes = offered(config, self._limits, self.base.name)
        portfolio = [Proposal(point(recipe, space), PORTFOLIO) for recipe in recipes]
        remembered, elsewhere = self._recalled(space)
        there = [each.elsewhere for each in elsewhere]

        def situation(history: Sequence[Trial]) -> Situation:
            return Situation(self._goal, Rules(space), history, list(remembered.values()), elsewhere)

        pairing, router = router, router if config.planner == "agent" else None
        planned = self._plan(self._study, meter, router, situation) if router else []
        known = [Proposal(each.recipe, "memory") for each in remembered.values()]
        first = self._cheapest_first(portfolio if config.planner == PORTFOLIO else portfolio[: config.first], space)
        starts = [*known, *(each for each in first if space.key(each.params) not in remembered)]
        trials = len(starts) if config.planner == PORTFOLIO else len(remembered) + config.budget.trials

        def check() -> None:
            stop()
            meter.stage("propose")

        def arm(name: ArmName, space: SearchSpace, seed: int) -> Proposer:
            return Recalling(ARMS.load(name)(name, space, seed), space, there)

        def executor(branch: Run | Branch) -> TrialExecutor:
            before = partial(self._known, branch, space, remembered)
            first, place = config.text.held_out, partial(self._out, branch)
            return LocalExecutor(Recipes(workshop, self._goal, first, meter, place, before, self.tidy))

        setup = Setup(
            words=WORDS,
            rules=Rules(space),
            starts=starts,
            base=config.arm,
            budget={"trials": trials},
            evaluator=lambda *_: Fronts(WORDS),
            executor=executor,
            check=check,
            router=router,
            options=config.options,
            share=share,
            arm=arm,
            asks=lambda plain: AgentProposer.of(plain, planned, situation),
        )

        def conclude() -> None:
            self._compare(replace(setup, router=None), portfolio)
            for _ in range(2 * CONFIRMATIONS):  # each may have to be made again before
                if unconfirmed := self._unconfirmed():
                    self._confirm(unconfirmed, replace(setup, router=None), workshop, meter)
            if pairing:
                self._pair(replace(setup, starts=portfolio[: config.first], router=pairing), meter, elsewhere)
            if router:
                self._advice(self._study, REFLECTED, str(config.budget.trials), meter, router, situation)
            self._tick(starts, ended=True)
            if str(config.budget.trials) not in self._told(CONCLUDED):
                trials = [each.as_trial() for each in self.searched]
                self._study.emit(CONCLUDED, str(config.budget.trials), **scored(space, trials, there))

        return Search(setup.study(self._study, config.seed), check, lambda _: self._tick(starts), conclude)

    def _cheapest_first(self, starts: Sequence[Proposal], space: SearchSpace) -> list[Proposal]:
        """By forecast in powers of two: a small budget is to measure something. What was proposed already stays so."""
        done = {space.key(trial.proposal.params): trial.number for trial in self.searched}
        weights = weights_of(self.base)
        works = [round(math.log2(work_of(stages_of(recipe_of(each.params), self._config, weights)))) for each in starts]
        ranks = [(done.get(space.key(start.params), math.inf), work) for start, work in zip(starts, works, strict=True)]
        return [starts[place] for place in sorted(range(len(starts)), key=ranks.__getitem__)]

    def _told(self, kind: str, study: Run | Branch | None = None) -> dict[str, Mapping[str, Any]]:
        """What the events of a kind say, by their ids: what ends a search is told once for each number of trials."""
        events = (study or self._study).events
        return {event.id: event.data for event in events if event.type == kind and "/" not in event.id}

    def _plan(self, study: Run | Branch, *asked: Any) -> list[Params]:
        """The recipes that the agent plans for a study; what rules name is no plan."""
        advice = self._advice(study, PLANNED, "", *asked)
        return [each["params"] for each in advice.recipes] if advice.by else []

    def _advice(
        self,
        study: Run | Branch,
        kind: str,
        name: str,
        meter: Meter,
        router: "Router",
        situation: Callable[[Sequence[Trial]], Situation],
    ) -> Advice:
        """What the agent says before and after the search, once under each name."""
        if name not in self._told(kind, study):
            meter.stage("propose")
            scope = study.name if isinstance(study, Branch) else self.name
            agent = Agent(
                router, situation([each.as_trial() for each in rebuild(study.events).trials]), f"{scope}/{name}"
            )
            advice = agent.plan() if kind == PLANNED else agent.reflect()
            study.emit(kind, name, **advice.model_dump())
        return Advice.model_validate(self._told(kind, study)[name])

    def _tick(self, starts: Sequence[Proposal], *, ended: bool = False) -> None:
        """Write the list of what is to do, with what is done."""
        config, done = self._config, {str(recipe_of(each.proposal.params)) for each in self.searched if each.result}
        steps = [(f"measure {each}", each in done) for each in (str(recipe_of(start.params)) for start in starts)]
        told = self._told(PLANNED)
        if told and (planned := Advice.model_validate(told[""])).by:  # what rules name is not done before all else
            steps += [(f"{step} (said by {planned.by})", ended) for step in planned.todos]
            steps += [
                (f"measure {each}", each in done) for each in (str(recipe_of(r["params"])) for r in planned.recipes)
            ]
        steps.append((f"search, {config.budget.trials} recipes in all", ended))
        steps += [(f"hold it against {name}", ended) for name in config.beside]
        lines = "".join(f"- [{'x' if done else ' '}] {text}\n" for text, done in dict(steps).items())
        self.run.write_text(f"todo-{self.name}.md" if self.name else "todo.md", lines)

    def _compare(self, setup: Setup, portfolio: Sequence[Proposal]) -> None:
        """Carry out what the search is held against: the whole portfolio, or an arm without memory at equal cost."""
        config, cost = self._config, sum(joules_of(self.searched))
        for name, branch in self._beside.items():
            if name == PORTFOLIO:
                other = replace(setup, starts=portfolio, budget={"trials": len(portfolio)})
            else:
                other = replace(setup, starts=portfolio[: config.first], budget={"joules": cost}, base=name, arm=None)
            search(other.study(branch, config.seed), setup.check)

    def _pair(self, setup: Setup, meter: Meter, elsewhere: Sequence[Experiment]) -> None:
        """Pairs of searches with and without the agent, each for what the search has cost, and without its memory."""

        def situation(history: Sequence[Trial]) -> Situation:
            return Situation(self._goal, setup.rules, history, [], elsewhere)

        cost = {"joules": sum(joules_of(self.searched))}

        def asks(plain: LLMProposer, branch: Branch) -> AgentProposer:
            return AgentProposer.of(plain, self._plan(branch, meter, setup.router, situation), situation)

        for number, names in enumerate(self._arms):
            for name in names:
                branch, agent = self._branches[name], name == names[0]
                arm = replace(setup, asks=partial(asks, branch=branch))
                search(arm.study(branch, self._config.seed + number, agent=agent, budget=cost), setup.check)

    def _unconfirmed(self) -> RecipeRow | None:
        """Whose figures on text that no choice saw are wanted next; None once there is a winner, or can be none."""
        found = self.result()
        return next((row for row in found.rows if row.id == found.winner and row.confirmed is None), None)

    def _confirm(self, row: RecipeRow, setup: Setup, workshop: Opener, meter: Meter) -> None:
        """Measure whoever is best on that text. Its export is made again before, if it is gone or an earlier run's."""
        if row.file and (self._exports / row.file).exists():
            losses, kls = workshop().read(recipe_of(row.params), self._exports / row.file, "confirm", 0, MOST)
            meter.flush()
            self._study.emit(CONFIRMED, row.recipe, losses=losses, kls=kls)
        else:
            made = [trial.proposal for trial in rebuild(self._made.events).trials]
            made = [*(each for each in made if each.params != row.params), Proposal(row.params, "memory")]
            study = replace(setup, starts=made, budget={"trials": len(made)}).study(self._made, self._config.seed)
            search(study, setup.check)

    def _out(self, branch: Run | Branch, candidate: Candidate) -> Path:
        """Where an export is written."""
        name = next((f"{name}-" for name, other in self._branches.items() if other is branch), "")
        return self._exports / f"{name}{candidate.name}"

    def _known(
        self, branch: Run | Branch, space: SearchSpace, remembered: Mapping[str, Experiment], params: Params
    ) -> TrialResult | None:
        """What need not be measured in a branch: it counts there with what it cost whoever measured it."""
        key = space.key(params)
        others = () if branch in (self._study, self._made) else (self._study, *self._branches.values())
        trials = [trial for other in others if other is not self._made for trial in rebuild(other.events).trials]
        ended = [trial for trial in trials if trial.result and space.key(trial.proposal.params) == key]
        if ended and (result := ended[0].result):
            return replace(result, metrics=alone(result.metrics))
        there = None if branch is self._made else remembered.get(key)
        if there is None or there.is_near(self._goal):
            return None
        result = there.result(self._goal, self._left(there))
        return result if branch is self._study else replace(result, metrics=alone(result.metrics))

    def _recalled(self, space: SearchSpace) -> tuple[dict[str, Experiment], list[Experiment]]:
        """What earlier runs have measured: of this base on this text, by its point of the space, and of others.

        What was known when the run began is known when it goes on, and nothing else.
        """
        if self._memory is None:
            return {}, []
        if not noted(self._study.events, MEMORY):
            known = [] if self.searched else list(self._memory.experiments())  # begun without, it goes on without
            usable = [each.key for each in known if each.key == self._key(each.recipe)]
            others = [each.key for each in known if each.status == "finished" and each.texts != self._texts()]
            self._study.emit(MEMORY, keys=usable, elsewhere=others)
        told, there = noted(self._study.events, MEMORY), {each.key for each in self._memory.experiments()}
        if gone := {*told["keys"], *told["elsewhere"]} - there:
            raise RunMismatchError(
                f"{len(gone)} of the experiments that the run began with are gone from its memory.",
                hint="Put them back, or begin a new run.",
            )
        known = list(self._memory.within(space))
        here = {space.key(each.recipe): each for each in known if each.key in set(told["keys"])}
        return here, [each for each in known if each.key in set(told["elsewhere"])]

    def _texts(self) -> str:
        texts, text = noted(self.run.events, TEXTS, self.name), self._config.text.model_dump(exclude={"file"})
        return hashed(texts["fingerprint"], texts["sha256"], text)

    def _training(self, recipe: Recipe) -> str:
        config = self._config
        return "" if recipe.recovery == "none" else hashed(config.recovery.model_dump(), config.seed)

    def _key(self, params: Params) -> str:
        recipe = recipe_of(params)
        return hashed(self._texts(), self._training(recipe), recipe.model_dump(exclude_defaults=True))

    def _left(self, before: Experiment) -> str | None:
        path = None if self._memory is None else self._memory.export(before.key)
        return None if path is None else str(path)

    def remember(self) -> None:
        """Keep what was measured here for later runs."""
        if self._memory is None or not noted(self.run.events, TEXTS, self.name):
            return
        found, exports = list[Experiment](), dict[str, Path]()
        for trial in chain.from_iterable(
            rebuild(each.events).trials for each in (self._study, *self._branches.values())
        ):
            params, result = trial.proposal.params, trial.result
            if result is None or "shares" not in result.metrics or "then" in result.metrics:
                continue  # a crash may have been bad luck, and what was remembered is there
            key = self._key(params)
            found.append(
                Experiment(
                    key=key,
                    base=self.base.path.name,
                    texts=self._texts(),
                    training=self._training(recipe_of(params)),
                    recipe=dict(params),
                    status=result.status,
                    error=result.error,
                    metrics={name: value for name, value in result.metrics.items() if name not in ("file", "thought")},
                    objectives=list(result.objectives),
                    windows=list(result.items),
                    run=self.run.id,
                )
            )
            file = self._exports / str(result.metrics.get("file"))
            if file.exists():
                exports[key] = file
        try:
            self._memory.keep(found, exports)
        except (ModelFileError, StorageError) as error:  # no reason to lose the report
            self._forgotten = f"Nothing was remembered: {error.message} {error.hint or ''}".strip()

    def result(self) -> ModelResult:
        """What came of it so far."""
        measured = noted(self.run.events, BASE, self.name)
        known = {each.name: measured[each.name] for each in fields(Base) if each.name in measured}
        base = Base(self.base.name, left_out=left_out(self._limits), **known)
        beside = {name: rebuild(branch.events).trials for name, branch in self._beside.items()}
        made, config = rebuild(self._made.events).trials, self._config
        agent, pairs = agent_control(self.searched, config.seed), list[Pair]()
        if any(self._branches[name].events for names in self._arms for name in names):
            cost = sum(joules_of(self.searched))
            arms = [[rebuild(self._branches[name].events) for name in names] for names in self._arms]
            pairs = [pair_of(config.seed + n, cost, *both) for n, both in enumerate(arms)]
            sources = [t.proposal.source for _, rival in arms for t in rival.trials if t.arm != "shared"]
            agent = paired_control(pairs, cost, sources, config.seed)
        confirmed, where = self._told(CONFIRMED), (self.run.path, self._place)
        found = verdict(base, self._goal, self.searched, beside, made, agent, confirmed, *where)
        told = {"plan": self._told(PLANNED), "reflection": self._told(REFLECTED)}
        last = {name: list(said.values())[-1] for name, said in told.items() if said}
        update: dict[str, Any] = {"pairs": pairs} | {name: Advice.model_validate(said) for name, said in last.items()}
        if said := next(reversed(self._told(CONCLUDED).values()), None):
            update["remarks"] = [*found.remarks, *forecast_remark(said)]
        if self._forgotten:
            update["remarks"] = [*update.get("remarks", found.remarks), self._forgotten]
        return found.model_copy(update=update)

    def tidy(self) -> None:
        """Remove all exports but the front and the winner: they are large, never come back, and have a recipe."""
        kept = self.result().kept.values()
        for each in sorted(self._exports.iterdir()) if self._exports.is_dir() else []:
            if each.name not in kept:
                delete(each)


def opened(part: Part, config: CompressConfig, context: Context, threads: int, meter: Meter) -> Workshop:
    """The workshop of a base, which is read now."""
    from agentlab.compress.workshop import RealWorkshop

    part.run.stream("base.loading", part.base.name)
    meter.stage("open")
    base = part.base
    return RealWorkshop(config, imported(base), base.file, part.name, part.run, context, threads, meter)
