"""The compression of one base: its search, the whole portfolio beside it, and what came of both."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from itertools import chain
from pathlib import Path

from agentlab.compress.config import CompressConfig, point
from agentlab.compress.goal import read_goal
from agentlab.compress.memory import Experiment, Memory, hashed
from agentlab.compress.meter import Meter
from agentlab.compress.objective import Measures, Recipes, Workshop
from agentlab.compress.recipe import Recipe, recipe_of
from agentlab.compress.result import BASE, TEXTS, WORDS, ModelResult
from agentlab.compress.verdict import Base, verdict
from agentlab.models.base_model import BaseFile, imported
from agentlab.runs.branch import Branch
from agentlab.runs.context import Context
from agentlab.runs.events import noted
from agentlab.runs.run import Run
from agentlab.search.screen import Rules
from agentlab.search.space import SearchSpace
from agentlab.search.types import Params, Proposal, TrialResult
from agentlab.study.evaluator import Fronts
from agentlab.study.executor import LocalExecutor, TrialExecutor
from agentlab.study.setup import Setup
from agentlab.study.state import Candidate, TrialState, rebuild
from agentlab.study.steps import search

PORTFOLIO = "portfolio"  # the branch in which what the search left out of it is carried out
MADE = "made"  # the branch in which a winner is made of which nothing but the measures is left
MEMORY = "memory.read"


class Part:
    """One base of a run: its studies, its exports and what came of them. The only one has no name."""

    def __init__(self, run: Run, base: BaseFile, name: str, config: CompressConfig, memory: Memory | None) -> None:
        self.run, self.base, self.name, self._config, self._memory = run, base, name, config, memory
        self._goal = read_goal(config.goal)
        self._study: Run | Branch = Branch(run, name) if name else run
        self._beside, self._made = (Branch(run, f"{name}/{each}" if name else each) for each in (PORTFOLIO, MADE))
        self._place = f"exports/{name}" if name else "exports"
        self._exports = run.folder.folder(self._place).path

    @property
    def searched(self) -> list[TrialState]:
        """The trials of the search."""
        return list(rebuild(self._study.events).trials)

    def search(self, workshop: Workshop, meter: Meter, stop: Callable[[], None]) -> None:
        """The search to its end, then what is left of the portfolio; what is remembered costs nothing.

        Raises:
            OverBudgetError: see `Meter`.
            Whatever `stop` raises.
        """
        config = self._config
        space = SearchSpace.of(config.searched, config.rules)
        portfolio = [Proposal(point(recipe, space), PORTFOLIO) for recipe in config.recipes]
        if len(rebuild(self._beside.events).judged) < len(portfolio):
            dense = f"{workshop.dense:,} bytes in bfloat16"  # what is wrong with the base is no trial's
            self.run.stream("base.loading", dense)
        remembered = self._remembered(space)
        starts = [Proposal(each.recipe, "memory") for each in remembered.values()]
        starts += [each for each in portfolio[: config.first] if space.key(each.params) not in remembered]

        def check() -> None:
            stop()
            meter.check()

        def executor(branch: Run | Branch) -> TrialExecutor:
            def place(candidate: Candidate) -> Path:
                name = "" if branch is self._study else f"{PORTFOLIO if branch is self._beside else MADE}-"
                return self._exports / f"{name}{candidate.name}"

            def known(params: Params) -> TrialResult | None:
                if branch is self._made:
                    return None
                key, ended = space.key(params), self.searched if branch is self._beside else []
                if result := next((t.result for t in ended if space.key(t.proposal.params) == key), None):
                    return result
                before = remembered.get(key)
                return before.result(self._goal, self._left(before)) if before else None

            return LocalExecutor(Recipes(workshop, self._goal, meter, place, known, self.tidy))

        setup = Setup(
            words=WORDS,
            rules=Rules(space),
            starts=starts,
            base=config.sampler,
            budget={"trials": len(remembered) + config.budget.trials},
            evaluator=lambda *_: Fronts(WORDS),
            executor=executor,
            check=check,
        )
        search(setup.study(self._study, config.seed), check)
        beside = replace(setup, starts=portfolio, budget={"trials": len(portfolio)})
        search(beside.study(self._beside, config.seed), check)
        winner = next((row for row in self.result().rows if row.id == self.result().winner and not row.file), None)
        if winner is not None or self._made.events:
            lacking = [] if winner is None else [Proposal(winner.params, "memory")]
            made = replace(setup, starts=lacking, budget={"trials": 1})
            search(made.study(self._made, config.seed), check)

    def _remembered(self, space: SearchSpace) -> dict[str, Experiment]:
        """What earlier runs have measured of this base on this text, by its point of the space.

        What was known when the run began is known when it goes on, and nothing else.
        """
        if self._memory is None:
            return {}
        if not noted(self._study.events, MEMORY):
            known = [] if self.searched else self._memory.experiments()  # a run that has begun without goes on without
            usable = [each.key for each in known if each.key == self._key(each.recipe)]
            self._study.emit(MEMORY, keys=usable)
        keys = set(noted(self._study.events, MEMORY)["keys"])
        known = [each for each in self._memory.experiments() if each.key in keys and not space.problems(each.recipe)]
        return {space.key(each.recipe): each for each in known}

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
        studies = self._study, self._beside, self._made
        for trial in chain.from_iterable(rebuild(each.events).trials for each in studies):
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
                    metrics={name: value for name, value in result.metrics.items() if name != "file"},
                    objectives=list(result.objectives),
                    windows=list(result.items),
                    run=self.run.id,
                )
            )
            file = self._exports / str(result.metrics.get("file"))
            if file.exists():
                exports[key] = file
        self._memory.keep(found, exports)

    def result(self) -> ModelResult:
        """What came of it so far."""
        measured = noted(self.run.events, BASE, self.name)
        odd = measured.get("odd", (0, 0))
        sizes = measured.get("dense", 0), measured.get("source", 0)
        base = Base(self.base.name, *sizes, measured.get("stored"), bool(measured.get("grid")), (odd[0], odd[1]))
        beside, made = rebuild(self._beside.events).trials, rebuild(self._made.events).trials
        return verdict(base, self._goal, self.searched, beside, made, self.run.path, self._place)

    def tidy(self) -> None:
        """Remove all exports but the front and the winner: they are large, never come back, and have a recipe."""
        kept = self.result().kept.values()
        for each in sorted(self._exports.iterdir()) if self._exports.is_dir() else []:
            if each.name not in kept:
                shutil.rmtree(each) if each.is_dir() else each.unlink()


class Late:
    """A workshop that opens when it is first needed: a run that only lacks its report loads no model."""

    def __init__(self, come: Callable[[], Workshop]) -> None:
        self._come = come

    @cached_property
    def _there(self) -> Workshop:
        return self._come()

    @property
    def dense(self) -> int:
        """See `Workshop`."""
        return self._there.dense

    def make(self, recipe: Recipe, out: Path) -> Measures:
        """See `Workshop`."""
        return self._there.make(recipe, out)


def opened(part: Part, config: CompressConfig, context: Context, threads: int, meter: Meter) -> Workshop:
    """The workshop of a base, which is read now."""
    from agentlab.compress.workshop import RealWorkshop

    part.run.stream("base.loading", part.base.name)
    meter.stage("open")
    base = part.base
    return RealWorkshop(config, imported(base), base.file, part.name, part.run, context, threads, meter)
