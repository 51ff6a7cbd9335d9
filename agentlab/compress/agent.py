"""The agent of a compression: it plans, proposes with tools, and says in the end what it makes of it.

How it is asked follows the model. One that can call tools talks with specialists until it is done; a large one without
tools answers in one piece; a small one picks a letter, and the rest is written by rule. Without a model all of it is.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field

from agentlab.compress.config import CompressConfig, point
from agentlab.compress.goal import read_goal
from agentlab.compress.memory import memory_of, on_one_text, statements
from agentlab.compress.recipe import Recipe, recipe_of
from agentlab.compress.result import WORDS, Advice
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
from agentlab.llm.load import check_optional
from agentlab.llm.tool_loop import Action, converse
from agentlab.llm.types import Message
from agentlab.runs.context import Context
from agentlab.search.llm_proposer import LLM_FAILURES, LLMProposer, one_line, pick_schema
from agentlab.search.prompts import LETTERS
from agentlab.search.screen import Rules
from agentlab.search.space import SearchSpace
from agentlab.search.types import Params, Proposal, Trial

if TYPE_CHECKING:
    import numpy as np

    from agentlab.llm.recorder import RunRecorder
    from agentlab.llm.router import Router

PLAN, REFLECT = f"{WORDS.command}.plan", f"{WORDS.command}.reflect"
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
        """What to look at, as steps and as recipes to try."""
        families = _families(self.situation)
        asked = "Which kind of recipe should be looked at first, after the known ones?"
        return self._advice(
            PLAN,
            f"Make a plan for this goal: {self.situation.goal}. At most {_MOST} recipes beyond the known ones.",
            asked,
            families,
        )

    def reflect(self) -> Advice:
        """What was learnt, and what a further run should try."""
        lines = statements_of(self.situation)
        told = "\n".join(lines[:_MOST])
        return self._advice(
            REFLECT,
            f"The run is over. Goal: {self.situation.goal}. Say what was learnt, and at most {_MOST} recipes that a "
            f"further run should try.\n{told}",
            "Which kind of recipe should a further run look at?",
            _families(self.situation),
            learnt=lines,
        )

    def propose(self, reasons: Callable[[Params], list[str]]) -> tuple[Params, str] | None:
        """A recipe that passes, with a reason; None if the model names none.

        Raises:
            AgentlabError: the model cannot be asked; see `LLM_FAILURES`.
        """
        wished: list[tuple[Params, str]] = []

        def execute(wish: Wish) -> str:
            place = point(wish.recipe, self.situation.rules.space)
            if wrong := [said for _, said in wish.recipe.problems()] or _lost(wish.recipe, place) or reasons(place):
                raise UsageError(f"It cannot be tried: {'; '.join(wrong)}.")
            wished.append((place, one_line(wish.reason)))
            return "It is carried out next."

        said = "Measure a recipe: a whole one, that was not measured yet."
        self._talk(
            WORDS.propose,
            f"Goal: {self.situation.goal}. Ask for the next recipe to measure.",
            Action("execute_experiment", said, Wish, execute, ends=True),
        )
        return wished[0] if wished else None

    def _advice(
        self, task: str, request: str, asked: str, families: Mapping[str, list[Params]], learnt: Sequence[str] = ()
    ) -> Advice:
        """By the largest means that the models have; by rule where they have none, or fail."""
        tier = self.router.tier(task) if self.router else None
        why, answer, by = "", None, ""
        if self.router is not None and tier is not None:
            by = ", ".join(self.router.config.candidates(task))
            try:
                if tier == "pick" or (tier == "edit" and len(families) > 1):
                    return self._picked(task, asked, families, by, learnt)
                answer = self._answered(task, request)
                why = "" if answer else " The model was asked, and said nothing that can be used."
            except LLM_FAILURES as error:
                why = f" The model gave no usable answer ({one_line(error.message)})."
        if answer is None:
            return Advice(output=f"{self._by_rule(families, learnt)}{why}", recipes=self._expected(_first(families)))
        places = [(each, point(each, self.situation.rules.space)) for each in answer.recipes]
        fit = [place for recipe, place in places if not (_lost(recipe, place) or self._refused(place))]
        dropped, good = len(places) - len(fit), [each for at, each in enumerate(fit) if each not in fit[:at]]
        note = f" {dropped} of its recipes cannot be tried." if dropped else ""
        return Advice(
            output=" ".join(answer.output.split())[:_LONG].lstrip("#>-+*= ") + note,
            todos=[line for each in answer.todos if (line := one_line(each))],
            recipes=self._expected(good),
            by=by,
        )

    def _answered(self, task: str, request: str) -> Answer | None:
        assert self.router is not None
        if not self.router.can(task, "tools"):
            told = [Message("system", SYSTEM), Message("user", f"{request}\n{self._told()}")]
            return self.router.complete_sync(told, task, Answer, call_id=f"{self.scope}{task}").value
        given: list[Answer] = []

        def finish(answer: Answer) -> str:
            given.append(answer)
            return "Done."

        said = "The end: the plan or the lessons, the steps, and recipes to try."
        self._talk(task, request, Action("finish", said, Answer, finish, ends=True))
        return given[0] if given else None

    def _picked(
        self, task: str, asked: str, families: Mapping[str, list[Params]], by: str, learnt: Sequence[str]
    ) -> Advice:
        """A letter, and the rest by rule."""
        assert self.router is not None
        names = list(families)[: len(LETTERS)]
        if len(names) < 2:
            return Advice(output=self._by_rule(families, learnt), recipes=self._expected(_first(families)))
        lines = [f"Goal: {self.situation.goal}.", *learnt[:_MOST]]
        lines += [f"{LETTERS[place]}) {name}" for place, name in enumerate(names)]
        told = [
            Message("system", "You compress language models. Answer in JSON with one letter."),
            Message("user", "\n".join([*lines, asked])),
        ]
        answer = self.router.complete_sync(told, task, pick_schema(len(names)), call_id=f"{self.scope}{task}")
        chosen = names[LETTERS.index(answer.value.choice)]  # type: ignore[attr-defined] # a schema of one field
        wanted = {chosen: families[chosen], **families}
        return Advice(
            output=f"{by} chose {chosen} of {', '.join(names)}. {self._by_rule(wanted, learnt)}",
            recipes=self._expected(families[chosen]),
            by=by,
        )

    def _by_rule(self, families: Mapping[str, list[Params]], learnt: Sequence[str]) -> str:
        rows = self.situation.rows()
        if learnt:
            return f"Learnt from {len(rows)} measured recipes: {'; '.join(learnt[:_MOST])}."
        known = f"{len(rows)} recipes of this base are known. " if rows else ""
        return f"{known}Goal: {self.situation.goal}. Kinds of recipes to look at: {', '.join(families) or 'none left'}."

    def _talk(self, task: str, request: str, last: Action) -> None:
        """A conversation with all tools and specialists. The action that ends it stands first."""
        assert self.router is not None
        router, situation = self.router, self.situation

        def ask(question: Question) -> str:
            if len(asked) >= _MOST:
                raise UsageError(f"{_MOST} questions were asked: decide.")
            prompt, functions = SPECIALISTS[question.specialist]
            said: list[str] = []

            def reply(answer: Reply) -> str:
                said.append(answer.answer)
                return "Passed on."

            actions = [Action("answer", "Answer whoever asked.", Reply, reply, ends=True)]
            actions += [action(each, situation) for each in functions]
            told = [
                Message("system", f"{prompt} Use your tools, then answer in a few words."),
                _user(question.question),
            ]
            scope = f"{self.scope}{task}/{question.specialist}/{len(asked)}"
            asked.append(question)
            converse(router, task, told, actions, scope, turns=4)
            return said[0] if said else "no answer"

        asked: list[Question] = []
        said = "Ask a specialist, who has tools of its own."
        tools = (show_front, query_experiments, get_best_config, estimate, compare_models)
        actions = [last, Action("ask_specialist", said, Question, ask), *(action(each, situation) for each in tools)]
        told = [Message("system", SYSTEM), _user(f"{request}\n{self._told()}")]
        converse(router, task, told, actions, f"{self.scope}{task}")

    def _told(self) -> str:
        space, found = self.situation.rules.space, show_front(self.situation)
        lines = [f"{name}: {spec.describe()}" for name, spec in space.parameters.items()]
        return "\n".join(
            [
                f"{found['measured']} recipes were measured; on the front:",
                *map(str, found["front"]),
                "Settings:",
                *lines,
            ]
        )

    def _refused(self, params: Params) -> list[str]:
        known = ["it was tried"] if self.situation.rules.space.key(params) in _tried(self.situation) else []
        return known or self.situation.rules.space.problems(params)

    def _expected(self, recipes: Sequence[Params]) -> list[dict[str, Any]]:
        forecast = self.situation.forecast()
        if not forecast.known:
            return [{"params": dict(each)} for each in recipes]
        found = zip(recipes, forecast.of(recipes) if recipes else [], strict=True)
        return [
            {"params": dict(params), "estimate": {"size": each.size, "kl": each.kl, "joules": each.joules}}
            for params, each in found
        ]


def _user(text: str) -> Message:
    return Message("user", text)


def _lost(recipe: Recipe, place: Params) -> list[str]:
    """What of a recipe the space does not hold."""
    asked = recipe.model_dump(exclude_defaults=True)
    return [f"{name} is not searched here" for name in asked if name not in place]


def _families(situation: Situation) -> dict[str, list[Params]]:
    """A few recipes that are left of each family: those that promise most, or where nothing was measured, a spread."""
    space, tried = situation.rules.space, _tried(situation)
    left: dict[str, list[Params]] = {}
    for params in space.points(_WALKED) or []:
        if space.key(params) not in tried:
            left.setdefault(recipe_of(params).family, []).append(params)
    forecast, there = situation.forecast(), [(row["size"], row["kl"]) for row in situation.rows()]
    found: dict[str, list[Params]] = {}
    for family, points in left.items():
        promising = best_first(points, forecast.of(points), there, _MOST) if forecast.known else []
        found[family] = promising or points[:: -(-len(points) // _MOST)]
    return found


def _tried(situation: Situation) -> set[Hashable]:
    """The points that were measured, by the run or before it, or that have failed in it."""
    space = situation.rules.space
    return {space.key(row["params"]) for row in situation.rows()} | {
        space.key(each.proposal.params) for each in situation.trials
    }


def _first(families: Mapping[str, list[Params]]) -> list[Params]:
    """The first of each family."""
    return [each[0] for each in families.values()][:_MOST]


def statements_of(situation: Situation) -> list[str]:
    """What was measured of this base, as statements with count and interval."""
    return statements([(recipe_of(row["params"]), (row["size"], row["kl"]), "") for row in situation.rows()])


@contextmanager
def advised(
    config: CompressConfig, context: Context, recorder: "RunRecorder | None" = None
) -> Iterator["Router | None"]:
    """The way to the agent's models; None where there is no agent."""
    if (config.planner != "agent" and config.control == "light") or not config.llm.candidates(WORDS.propose):
        yield None
        return
    from agentlab.llm.router import Router

    place = context.workspace
    with Router(config.llm, env=context.env, workspace=place, recorder=recorder, stop=context.stop) as router:
        yield router


def alone(
    config: CompressConfig,
    context: Context,
    base: str,
    trials: Sequence[Trial],
    *,
    ended: bool,
    run: str | None = None,
) -> Advice:
    """The plan, or the reflection, outside a run: from these trials and what is remembered.

    Args:
        config: of a run that could follow, or of the one that has ended, whoever plans there.
        context: workspace and environment.
        base: the name of its folder, as the memory has it.
        trials: of the run that has ended.
        ended: whether it reflects.
        run: the id of that run; see `on_one_text`.

    Raises:
        MissingKeyError: the model's key is not set.
    """
    config = config.model_copy(update={"planner": "agent"})
    check_optional(config.llm, context)
    memory, space = memory_of(config, context.workspace), SearchSpace.of(config.searched, config.rules)
    done = [each for each in (memory.within(space) if memory else ()) if each.status == "finished"]
    here, elsewhere = on_one_text(done, base, run)
    situation = Situation(read_goal(config.goal), Rules(space), trials, here, elsewhere)
    with advised(config, context) as router:
        agent = Agent(router, situation)
        advice = agent.reflect() if ended else agent.plan()
        return advice.model_copy(update={"goal": str(situation.goal)})


@dataclass(frozen=True, kw_only=True)
class AgentProposer(LLMProposer):
    """Proposes what was planned, then what the model asks for with its tools; a small model picks, as anywhere.

    `planned`: recipes of the plan; `situation`: what is known, given the history.
    """

    planned: Sequence[Params]
    situation: Callable[[Sequence[Trial]], Situation]

    @classmethod
    def of(
        cls, plain: LLMProposer, planned: Sequence[Params], situation: Callable[[Sequence[Trial]], Situation]
    ) -> Self:
        """One that asks as `plain` does where the model has no tools."""
        return cls(
            **{each.name: getattr(plain, each.name) for each in fields(plain)}, planned=planned, situation=situation
        )

    def ask(self, history: Sequence[Trial], n: int, rng: "np.random.Generator") -> list[Proposal]:
        """Up to `n` candidates."""
        reasons = self.rules.against(history)
        if planned := [Proposal(each, self.name, "planned") for each in self.planned if not reasons(each)]:
            return planned[:n]
        return super().ask(history, n, rng)

    def _full(self, history: Sequence[Trial]) -> tuple[list[Proposal], str]:
        if not self.router.can(self.task, "tools"):
            return super()._full(history)
        agent = Agent(self.router, self.situation(history), f"{self.scope}{len(history)}/")
        found = agent.propose(self.rules.against(history))
        return ([Proposal(found[0], self.name, found[1])], "") if found else ([], "it asked for no recipe")
