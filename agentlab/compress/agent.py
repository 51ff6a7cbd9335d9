"""The agent of a compression: it plans, proposes with tools, and says in the end what it makes of it.

How it is asked follows the model. One that can call tools talks with specialists until it is done; a large one without
tools answers in one piece; a small one picks a letter, and the rest is written by rule. Without a model all of it is.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field

from agentlab.compress.config import CompressConfig, point
from agentlab.compress.experiment_memory import memory_of, on_one_text, statements
from agentlab.compress.goal import read_goal
from agentlab.compress.recipe import Recipe, recipe_of
from agentlab.compress.result import TERMS, Advice
from agentlab.compress.tools import (
    SPECIALISTS,
    Situation,
    action,
    compare_models,
    estimate,
    get_best_config,
    query_experiments,
    show_front,
)
from agentlab.compress.transfer import best_first
from agentlab.config.base import StrictModel
from agentlab.errors import UsageError
from agentlab.experiment import open_router
from agentlab.llm.load import check_optional
from agentlab.llm.tool_loop import Action, converse
from agentlab.llm.types import Message
from agentlab.runs.context import Context
from agentlab.search.llm_proposer import LLM_FAILURES, LLMProposer, one_line, pick_schema
from agentlab.search.prompts import LETTERS
from agentlab.search.screen import ScreenRules
from agentlab.search.space import SearchSpace
from agentlab.search.types import Params, Proposal, Trial

if TYPE_CHECKING:
    import numpy as np

    from agentlab.llm.recorder import RunRecorder
    from agentlab.llm.router import Router

PLAN, REFLECT = f"{TERMS.command}.plan", f"{TERMS.command}.reflect"
_MOST = 4  # recipes of a plan, and questions to specialists in a conversation
_WALKED = 4096  # points of the space that are looked at
_LONG = 2_000  # characters of a text that are kept
SYSTEM = """You compress language models. Every recipe that you ask for is really carried out and measured on the file
that comes out, and costs energy from a budget. You never need to guess where something was measured.

Techniques, in the order of a recipe: cut structure (width of feed-forward networks, or whole layers), prune weights,
recover (LoRA on text, or distillation from the original), quantize, export.
- k-quants (llama.cpp): seconds to make, run on any processor; 8 bits lose almost nothing, 4 bits little with
  importance, 2 and 3 bits a lot on small models.
- GPTQ, AWQ, RTN on a grid: 4 or 8 bits for transformers and vLLM; GPTQ is the best of them and costs a calibration.
- cuts: the only way below what bits allow, and the only one that saves arithmetic; they hurt without recovery.
- zeros (pruners): save neither bytes nor time in today's formats; research only.

A recipe is a success if it is on the front: no other one is smaller and diverges less. Decide like this: fill the
widest gap of the front first; leave a technique whose best recipe is beaten at its own size; try one step less bits,
or one more cut, where the goal has room; never ask for what was measured already.
Ask a specialist when a setting is unclear, look at experiments before you decide, and be brief."""


class Answer(StrictModel):
    """What a model fills in."""

    output: str = Field(max_length=_LONG, description="The plan, or what to make of the results; a few sentences.")
    todos: list[str] = Field(default_factory=list, max_length=8, description="Steps, each a short line.")
    recipes: list[Recipe] = Field(default_factory=list, max_length=_MOST, description="Recipes to try next.")


class Question(StrictModel):
    """To a specialist."""

    specialist: Literal["quantization", "pruning", "lora", "distillation", "evaluation"]
    question: str = Field(max_length=_LONG)


class Reply(StrictModel):
    """Of a specialist."""

    answer: str = Field(max_length=_LONG)


class Wish(StrictModel):
    """A recipe to carry out and measure now."""

    recipe: Recipe
    reason: str = Field("", max_length=_LONG)


@dataclass(frozen=True)
class Agent:
    """Asked at one moment of a run; `scope` tells its calls there from those at others."""

    router: "Router | None"
    situation: Situation
    scope: str = ""

    def plan(self) -> Advice:
        request = f"Make a plan for this goal: {self.situation.goal}. At most {_MOST} recipes beyond the known ones."
        return self._advice(PLAN, request, "Which kind of recipe should be looked at first, after the known ones?")

    def reflect(self) -> Advice:
        lines = statements([(recipe_of(row["params"]), (row["size"], row["kl"]), "") for row in self.situation.rows()])
        lessons = "\n".join(lines[:_MOST])
        request = (
            f"The run is over. Goal: {self.situation.goal}. Say what was learnt, and at most {_MOST} recipes that a "
            f"further run should try.\n{lessons}"
        )
        return self._advice(REFLECT, request, "Which kind of recipe should a further run look at?", lines)

    def propose(self, reasons: Callable[[Params], list[str]]) -> tuple[Params, str] | None:
        """A recipe that passes, with a reason; None if the model names none.

        Raises:
            AgentlabError: the model cannot be asked; see `LLM_FAILURES`.
        """
        wished: list[tuple[Params, str]] = []

        def execute(wish: Wish) -> str:
            params = point(wish.recipe, self.situation.rules.space)
            wrong = [problem for _, problem in wish.recipe.problems()]
            wrong = wrong or _unsearched_settings(wish.recipe, params) or reasons(params)
            if wrong:
                raise UsageError(f"Cannot try this recipe: {'; '.join(wrong)}.")
            wished.append((params, one_line(wish.reason)))
            return "It is carried out next."

        description = "Measure a recipe: a whole one, that was not measured yet."
        request = f"Goal: {self.situation.goal}. Ask for the next recipe to measure."
        self._talk(TERMS.propose, request, Action("execute_experiment", description, Wish, execute, ends=True))
        return wished[0] if wished else None

    def _advice(self, task: str, request: str, question: str, learnt: Sequence[str] = ()) -> Advice:
        """By the largest means that the models have; by rule where they have none, or fail."""
        tier, families = self.router.tier(task) if self.router else None, _families(self.situation)
        failure, answer, by = "", None, ""
        if self.router is not None and tier is not None:
            by = ", ".join(self.router.config.candidates(task))
            try:
                if tier == "pick" or (tier == "edit" and len(families) > 1):
                    return self._pick_family(task, question, families, by, learnt)
                answer = self._ask_model(task, request)
                failure = "" if answer else " The model gave no usable answer."
            except LLM_FAILURES as error:
                failure = f" The model gave no usable answer ({one_line(error.message)})."
        if answer is None:
            output = f"{self._by_rule(families, learnt)}{failure}"
            return Advice(output=output, recipes=self._add_estimates(_first(families)))
        candidates = [(suggestion, point(suggestion, self.situation.rules.space)) for suggestion in answer.recipes]
        usable = [params for recipe, params in candidates if self._can_try(recipe, params)]
        dropped = len(candidates) - len(usable)
        unique = [params for index, params in enumerate(usable) if params not in usable[:index]]
        note = f" {dropped} of the suggested recipes cannot be tried." if dropped else ""
        return Advice(
            output=" ".join(answer.output.split())[:_LONG].lstrip("#>-+*= ") + note,
            todos=[line for todo in answer.todos if (line := one_line(todo))],
            recipes=self._add_estimates(unique),
            by=by,
        )

    def _ask_model(self, task: str, request: str) -> Answer | None:
        assert self.router is not None
        if not self.router.can(task, "tools"):
            messages = [Message("system", SYSTEM), Message("user", f"{request}\n{self._describe_situation()}")]
            return self.router.complete_sync(messages, task, Answer, call_id=f"{self.scope}{task}").value
        answers: list[Answer] = []

        def finish(answer: Answer) -> str:
            answers.append(answer)
            return "Done."

        description = "The end: the plan or the lessons, the steps, and recipes to try."
        self._talk(task, request, Action("finish", description, Answer, finish, ends=True))
        return answers[0] if answers else None

    def _pick_family(
        self, task: str, question: str, families: Mapping[str, list[Params]], by: str, learnt: Sequence[str]
    ) -> Advice:
        assert self.router is not None
        names = list(families)[: len(LETTERS)]
        if len(names) < 2:
            return Advice(output=self._by_rule(families, learnt), recipes=self._add_estimates(_first(families)))
        lines = [f"Goal: {self.situation.goal}.", *learnt[:_MOST]]
        lines += [f"{LETTERS[index]}) {name}" for index, name in enumerate(names)]
        messages = [
            Message("system", "You compress language models. Answer in JSON with one letter."),
            Message("user", "\n".join([*lines, question])),
        ]
        answer = self.router.complete_sync(messages, task, pick_schema(len(names)), call_id=f"{self.scope}{task}")
        chosen = names[LETTERS.index(answer.value.choice)]  # type: ignore[attr-defined] # a schema of one field
        chosen_first = {chosen: families[chosen], **families}
        return Advice(
            output=f"{by} chose '{chosen}' from {', '.join(names)}. {self._by_rule(chosen_first, learnt)}",
            recipes=self._add_estimates(families[chosen]),
            by=by,
        )

    def _by_rule(self, families: Mapping[str, list[Params]], learnt: Sequence[str]) -> str:
        rows = self.situation.rows()
        if learnt:
            return f"Lessons from {len(rows)} measured recipes: {'; '.join(learnt[:_MOST])}."
        intro = f"{len(rows)} recipes of this base are already measured. " if rows else ""
        return f"{intro}Goal: {self.situation.goal}. Kinds of recipes to try: {', '.join(families) or 'none left'}."

    def _talk(self, task: str, request: str, last: Action) -> None:
        """A conversation with all tools and specialists. The action that ends it stands first."""
        assert self.router is not None
        router, situation = self.router, self.situation

        def ask(question: Question) -> str:
            if len(questions) >= _MOST:
                raise UsageError(f"{_MOST} questions were asked: decide.")
            prompt, functions = SPECIALISTS[question.specialist]
            answers: list[str] = []

            def reply(answer: Reply) -> str:
                answers.append(answer.answer)
                return "Passed on."

            actions = [Action("answer", "Answer whoever asked.", Reply, reply, ends=True)]
            actions += [action(function, situation) for function in functions]
            system = Message("system", f"{prompt} Use your tools, then answer in a few words.")
            messages = [system, Message("user", question.question)]
            scope = f"{self.scope}{task}/{question.specialist}/{len(questions)}"
            questions.append(question)
            converse(router, task, messages, actions, scope, turns=4)
            return answers[0] if answers else "no answer"

        questions: list[Question] = []
        tools = (show_front, query_experiments, get_best_config, estimate, compare_models)
        actions = [last, Action("ask_specialist", "Ask a specialist, who has tools of its own.", Question, ask)]
        actions += [action(tool, situation) for tool in tools]
        messages = [Message("system", SYSTEM), Message("user", f"{request}\n{self._describe_situation()}")]
        converse(router, task, messages, actions, f"{self.scope}{task}")

    def _describe_situation(self) -> str:
        space, overview = self.situation.rules.space, show_front(self.situation)
        lines = [f"{overview['measured']} recipes were measured; on the front:", *map(str, overview["front"])]
        lines += ["Settings:", *(f"{name}: {spec.describe()}" for name, spec in space.parameters.items())]
        return "\n".join(lines)

    def _can_try(self, recipe: Recipe, params: Params) -> bool:
        space = self.situation.rules.space
        was_tried = space.key(params) in _tried_keys(self.situation)
        return not (was_tried or _unsearched_settings(recipe, params) or space.problems(params))

    def _add_estimates(self, recipes: Sequence[Params]) -> list[dict[str, Any]]:
        forecast = self.situation.forecast()
        if not forecast.known:
            return [{"params": dict(recipe)} for recipe in recipes]
        pairs = zip(recipes, forecast.of(recipes) if recipes else [], strict=True)
        return [{"params": dict(params), "estimate": asdict(prediction)} for params, prediction in pairs]


def _unsearched_settings(recipe: Recipe, params: Params) -> list[str]:
    return [f"{name} is not searched here" for name in recipe.model_dump(exclude_defaults=True) if name not in params]


def _families(situation: Situation) -> dict[str, list[Params]]:
    """A few recipes that are left of each family: those that promise most, or where nothing was measured, a spread."""
    space, tried = situation.rules.space, _tried_keys(situation)
    untried: dict[str, list[Params]] = {}
    for params in space.points(_WALKED) or []:
        if space.key(params) not in tried:
            untried.setdefault(recipe_of(params).family, []).append(params)
    forecast, objectives = situation.forecast(), [(row["size"], row["kl"]) for row in situation.rows()]
    best_by_family: dict[str, list[Params]] = {}
    for family, points in untried.items():
        promising = best_first(points, forecast.of(points), objectives, _MOST) if forecast.known else []
        best_by_family[family] = promising or points[:: -(-len(points) // _MOST)]
    return best_by_family


def _tried_keys(situation: Situation) -> set[Hashable]:
    """The points that were measured, by the run or before it, or that have failed in it."""
    space = situation.rules.space
    measured_keys = {space.key(row["params"]) for row in situation.rows()}
    return measured_keys | {space.key(trial.proposal.params) for trial in situation.trials}


def _first(families: Mapping[str, list[Params]]) -> list[Params]:
    return [points[0] for points in families.values()][:_MOST]


@contextmanager
def open_agent_router(
    config: CompressConfig, context: Context, recorder: "RunRecorder | None" = None
) -> Iterator["Router | None"]:
    """The way to the agent's models; None where there is no agent."""
    if (config.planner != "agent" and config.control == "light") or not config.llm.candidates(TERMS.propose):
        yield None
        return
    with open_router(config.llm, context, recorder) as router:
        yield router


def alone(
    config: CompressConfig,
    context: Context,
    base: str,
    trials: Sequence[Trial],
    *,
    has_ended: bool,
    run: str | None = None,
) -> Advice:
    """The plan, or the reflection, outside a run: from these trials and what is remembered.

    Args:
        config: of a run that could follow, or of the one that has ended, whoever plans there.
        base: the name of its folder, as the memory has it.
        trials: of the run that has ended.
        has_ended: whether it reflects.
        run: the id of that run; see `on_one_text`.

    Raises:
        MissingKeyError: the model's key is not set.
    """
    config = config.model_copy(update={"planner": "agent"})
    check_optional(config.llm, context)
    memory, space = memory_of(config, context.workspace), SearchSpace.of(config.searched_space, config.rules)
    experiments = memory.within(space) if memory else ()
    finished = [experiment for experiment in experiments if experiment.status == "finished"]
    comparable, elsewhere = on_one_text(finished, base, run)
    situation = Situation(read_goal(config.goal), ScreenRules(space), trials, comparable, elsewhere)
    with open_agent_router(config, context) as router:
        agent = Agent(router, situation)
        advice = agent.reflect() if has_ended else agent.plan()
        return advice.model_copy(update={"goal": str(situation.goal)})


@dataclass(frozen=True, kw_only=True)
class AgentProposer(LLMProposer):
    """Proposes what was planned, then what the model asks for with its tools; a small model picks, as anywhere."""

    planned: Sequence[Params]
    situation: Callable[[Sequence[Trial]], Situation]  # what is known, given the history

    @classmethod
    def of(cls, llm: LLMProposer, planned: Sequence[Params], situation: Callable[[Sequence[Trial]], Situation]) -> Self:
        """One that asks as `llm` does where the model has no tools."""
        settings = {field.name: getattr(llm, field.name) for field in fields(llm)}
        return cls(**settings, planned=planned, situation=situation)

    def ask(self, history: Sequence[Trial], n: int, rng: "np.random.Generator") -> list[Proposal]:
        reasons = self.rules.against(history)
        if planned := [Proposal(params, self.name, "planned") for params in self.planned if not reasons(params)]:
            return planned[:n]
        return super().ask(history, n, rng)

    def _full(self, history: Sequence[Trial]) -> tuple[list[Proposal], str]:
        if not self.router.can(self.task, "tools"):
            return super()._full(history)
        agent = Agent(self.router, self.situation(history), f"{self.scope}{len(history)}/")
        proposal = agent.propose(self.rules.against(history))
        return ([Proposal(proposal[0], self.name, proposal[1])], "") if proposal else ([], "it proposed no recipe")
