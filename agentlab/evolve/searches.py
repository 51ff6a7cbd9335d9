"""The searches of a run, one after the other, and the sealed split behind them.

Every search has its own seed and budget; the first trials are common to all. When all winners are named, it is opened.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from agentlab.answers.choices import DECIDES, NORMALISATIONS, Normalisation, Scored
from agentlab.errors import AgentlabError
from agentlab.evolve.config import EvolveConfig
from agentlab.evolve.data import QuestionSplit
from agentlab.evolve.fitness import FitnessJudge
from agentlab.evolve.genome import PARENT, Child, Coefficients
from agentlab.evolve.recipes import RecipeGenome
from agentlab.evolve.result import EVOLVED, GENERATION, OPENED, RANDOM, SCORED, TERMS
from agentlab.evolve.verdict import Contender
from agentlab.runs.branch import RunBranch
from agentlab.runs.events import first_event_data
from agentlab.runs.run import OpenRun
from agentlab.search.arms import ARMS
from agentlab.search.history import batches
from agentlab.search.screen import ScreenRules
from agentlab.search.space import SearchSpace
from agentlab.search.types import Proposer, Trial, TrialResult
from agentlab.study.evaluator import PairedItemEvaluator
from agentlab.study.executor import LocalExecutor, TrialExecutor
from agentlab.study.setup import Setup
from agentlab.study.state import StudyState, TrialState, rebuild
from agentlab.study.steps import search
from agentlab.tasks.labelled import mark_answers

if TYPE_CHECKING:
    from agentlab.evolve.scoring import Answer
    from agentlab.llm.router import Router

_LEVELS = 5  # of the share of right answers, which tell niches apart


class Searches:
    """The searches of a run: the one it is about, random search at the same cost, and further pairs of them."""

    def __init__(
        self,
        config: EvolveConfig,
        genome: Coefficients | RecipeGenome,
        questions: QuestionSplit,
        run: OpenRun,
        answer: "Answer",
        router: "Router",
        check: Callable[[], None],
    ) -> None:
        self._config, self._genome, self._questions = config, genome, questions
        self._run, self._answer, self._router, self._check = run, answer, router, check
        self._judge = FitnessJudge(
            config.fitness,
            questions.right,
            tuple(len(question.choices) for question in questions.train),
            tuple(range(len(genome.parents))),
            config.population,
        )
        self.winners: dict[str, TrialState] = {}  # by the name of the search
        self._states: dict[str, StudyState] = {}
        self._branches: dict[str, str] = {}  # under which names their events lie

    def hold(self) -> None:
        """Hold the searches that are not over, and name their winners."""
        config, pairs = self._config, self._config.control_seeds if self._config.control == "full" else 1
        limits = {"items": config.max_items, "trials": config.max_trials, "seconds": config.max_seconds}
        budget = {unit: float(limit) for unit, limit in limits.items() if limit is not None}
        for number in range(pairs):
            end, seed = f" {number}" if number else "", config.seed + number
            run = RunBranch(self._run, f"evolve-{number}") if number else self._run
            state = self._hold(EVOLVED + end, run, seed, config.algorithm, budget)
            control = RunBranch(self._run, f"random-{number}")
            # a clock is no measure
            same = budget if config.max_seconds is None else {"items": state.amount_spent("items")}
            self._hold(RANDOM + end, control, seed, "random", same)

    def _hold(
        self, name: str, run: OpenRun | RunBranch, seed: int, arm: str, budget: Mapping[str, float]
    ) -> StudyState:
        """One search to its end. Random search is a control: no language model takes part in it."""
        setup = replace(self._setup(arm), budget=budget)
        study = setup.study(run, seed, agent=not name.startswith(RANDOM))
        try:
            state = search(study, setup.check, lambda state: self._tell(run, state))
        finally:
            study.executor.close()
        self.winners[name], self._states[name] = self._winner(state), state
        self._branches[name] = run.name if isinstance(run, RunBranch) else ""
        return state

    def _setup(self, arm: str) -> Setup:
        genome = self._genome
        return Setup(
            terms=TERMS,
            rules=ScreenRules(genome.space),
            starts=tuple(genome.starts),
            base=arm,
            budget={},
            evaluator=lambda *_: PairedItemEvaluator(TERMS, self._config.seed),
            executor=self._executor,
            check=self._check,
            router=self._router,
            history_filter=self._judge.seen,
            arm=self._arm,
            worst=self._worst,
        )

    @property
    def _worst(self) -> dict[str, float]:
        """What a child costs at most: it answers every train question."""
        return {"items": len(self._questions.train)}

    def _arm(self, name: str, space: SearchSpace, seed: int) -> Proposer:
        """The algorithm of that name with our generations; niches of MAP-Elites are what a child is good at."""

        def good_at(trial: Trial) -> tuple[int, ...]:
            return tuple(int(_LEVELS * share) for share in trial.result.metrics["sets"].values())

        proposer: Any = ARMS.load(name)(name, space, seed)
        ours: dict[str, object] = {"population": self._config.population, "descriptor": good_at}
        if isinstance(self._genome, RecipeGenome):
            ours["genome"] = self._genome
        field_names = [field.name for field in fields(proposer)] if is_dataclass(proposer) else []
        return replace(proposer, **{key: ours[key] for key in field_names if key in ours})  # type: ignore[no-any-return] # a proposer

    def _executor(self, run: OpenRun | RunBranch) -> TrialExecutor:
        from agentlab.evolve.objective import TrainSplit

        space, starts = self._genome.space, self._config.starts
        first = rebuild(self._run.events).trials[:starts] if isinstance(run, RunBranch) else []
        known_results = {space.key(trial.proposal.params): trial.result for trial in first}

        def rival() -> TrialResult | None:
            results = [t.result for t in rebuild(run.events).trials[:starts] if t.result and t.result.value is not None]
            return min(results, key=lambda result: result.value or 0.0, default=None)

        objective = TrainSplit(
            self._answer,
            self._questions.train,
            self._config.race,
            rival,
            run.name if isinstance(run, RunBranch) else "",
            lambda params: known_results.get(space.key(params)),
        )
        return LocalExecutor(objective, self._config.population, self._worst)

    def _tell(self, run: OpenRun | RunBranch, state: StudyState) -> None:
        """Log the terms of the generations that are finished."""
        logged = {event.id for event in run.events if event.type == GENERATION}
        terms = self._judge.terms(state.history)
        items = 0
        for number, members in enumerate(batches(state.trials, self._config.population)):
            name = f"gen_{number:04d}"
            results = chain.from_iterable(trial.ended_results for trial in members)
            items += sum(result.metrics.get("items", 0) for result in results)
            if name not in logged and all(trial.decision for trial in members):
                rows = {trial.id: asdict(terms[trial.number]) for trial in members if trial.number in terms}
                run.emit(GENERATION, name, items=items, children=len(members), terms=rows)

    def _winner(self, state: StudyState) -> TrialState:
        """The best on the whole train split; the test split is still sealed."""
        complete_trials = [t for t in state.ranking if t.result and len(t.result.items) == len(self._questions.train)]
        if not complete_trials:
            errors = [trial.result.error for trial in state.trials if trial.result]
            message = (
                f"All {len(errors)} children failed; last error: {errors[-1]}" if errors else "No child was scored."
            )
            raise AgentlabError(message, hint=f"Tracebacks are in {self._run.path / 'events.jsonl'}.")
        return complete_trials[0]

    def score_contenders(self) -> list[Contender]:
        """Every winner, the best parent, the blend and the base on the sealed split, which is opened for it once."""
        trials = rebuild(self._run.events).trials
        count = len(self._genome.parents)
        named = dict(self.winners)
        parents = [trial for trial in trials[:count] if trial.value is not None]
        if parents:
            named[PARENT] = min(parents, key=lambda trial: trial.value or 0.0)
        named |= {trial.proposal.source: trial for trial in trials[count : count + 2] if trial.value is not None}
        if not self._run.has(OPENED):
            limits = {key: getattr(self._config, key) for key in ("max_items", "max_trials", "max_seconds")}
            ids = {name: f"{self._branches.get(name, '')}/{trial.id}".lstrip("/") for name, trial in named.items()}
            self._run.emit(OPENED, **limits, named=ids)
        if not self._run.has(SCORED):
            questions = self._questions.test
            children = [Child(self._branches.get(name, ""), t.number, t.proposal.params) for name, t in named.items()]
            scores = self._answer(children, questions)
            choices: dict[str, list[list[list[float]]]] = {}
            for name, child_scores in zip(named, scores, strict=True):
                choices[name] = [list(map(list, question_score.finite)) for question_score in child_scores]
            self._run.emit(SCORED, choices=choices)
        noted_scores = first_event_data(self._run.events, SCORED)
        marks = {name: self._marks(noted_scores, name) for name in named}
        return [Contender(name, trial, marks[name], self._states.get(name)) for name, trial in named.items()]

    def _marks(self, noted_scores: Mapping[str, Any], name: str) -> dict[Normalisation, tuple[bool, ...]]:
        """Which sealed questions somebody answers right; runs of earlier versions know it by the mean alone."""
        if "choices" not in noted_scores:
            return {DECIDES: tuple(map(bool, noted_scores["marks"][name]))}
        scored = [Scored(*parts) for parts in noted_scores["choices"][name]]
        return {by: tuple(mark_answers(scored, self._questions.test, by)) for by in NORMALISATIONS}
