"""How good an open answer is: a judge compares it with the item's reference answer, in both orders."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentlab.errors import AgentlabError, BudgetExceededError, Interrupted
from agentlab.llm import judge
from agentlab.llm.config import LLMConfig
from agentlab.llm.options import Options
from agentlab.llm.types import Message
from agentlab.tasks.items import Item

if TYPE_CHECKING:
    from agentlab.llm.router import Router

TASK = "bench.judge"


@dataclass(frozen=True, slots=True)
class Judgement:
    """`score`: 1 preferred to the reference in both orders, 0 in neither, 0.5 if the judge contradicted itself.

    None, with the reason, if the judge gave no usable verdict.
    """

    score: float | None
    agreed: bool | None
    reason: str


def judge_of(chosen: str | None, llm: LLMConfig) -> str | None:
    """The judging model: the one that is named, else the first duplicate; None leaves open answers unscored."""
    return chosen or next(iter(llm.roles.duplicate), None)


def judgement(first: str, second: str) -> Judgement:
    """From the letters a judge gave, the answer shown as A in the first order and as B in the second. Pure."""
    best = judge.agreed(first, second, 2)
    if best is None:
        return Judgement(0.5, agreed=False, reason="the judge preferred a place, not an answer")
    return Judgement(1.0 - best, agreed=True, reason="" if best == 0 else "the reference was preferred")


async def judge_answer(router: "Router", model: str, item: Item, text: str, call_id: str) -> Judgement:
    """Ask `model` twice. An error of the judge is a judgement without score, never an exception.

    Raises:
        Interrupted: a stop was requested.
        BudgetExceededError: the judge was not asked, because it may cost too much.
    """
    question = (Message("user", item.prompt),)
    letters: list[str] = []
    for order, answers in enumerate(([text, str(item.expected)], [str(item.expected), text])):
        try:
            verdict = await router.complete(
                judge.prompt(question, answers),
                TASK,
                judge.Verdict,
                call_id=f"{call_id}/{order}",
                options=Options(model=model, temperature=0.0, cache=False),
            )
        except (Interrupted, BudgetExceededError):
            raise
        except AgentlabError as error:
            return Judgement(None, None, error.message)
        letters.append(verdict.value.best)
    if set(letters) - {"A", "B"}:
        return Judgement(None, None, f"the judge named an answer that was not shown: {', '.join(letters)}")
    return judgement(letters[0], letters[1])
