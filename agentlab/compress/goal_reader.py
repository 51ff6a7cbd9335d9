"""A goal that rules do not understand: a language model puts it in words that they do, and somebody agrees to that."""

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from agentlab.compress.goal import EXAMPLES, Goal, UnreadGoalError, plain, read_goal, unknown
from agentlab.config.base import StrictModel
from agentlab.errors import UsageError
from agentlab.experiment import open_router
from agentlab.llm.config import LLMConfig
from agentlab.llm.load import check_optional
from agentlab.llm.options import Options
from agentlab.llm.provider_config import is_loopback
from agentlab.llm.types import Message
from agentlab.search.llm_proposer import LLM_FAILURES

if TYPE_CHECKING:
    from agentlab.runs.context import Context

TASK = "compress.goal"
_LEAST = 1e9  # parameters
_SIZE = re.compile(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)([bm])(?![a-z0-9])")
_AMOUNT = re.compile(r"(-?\d+(?:[.,]\d+)*) ?(%|[kmg]i?b\b)?")
_TWO_WAYS = re.compile(r"[.,]\d{3}(?!\d)|[.,].*[.,]")  # 1,500 is not the same everywhere
_PROMPT = f"""A sentence in some language says what the compression of a language model is for. Take it apart.
Each part quotes words of the sentence literally, and says the same in English, in one of these ways:
- objective: least size; most speed; least loss; least kl
- bounds: size at most 60 %; size at most 100 MB; speed at least 1.5x; loss at most 5 %; quality at least 95 %;
  kl at most 0.3; not noticeably worse (where the sentence has no number)
- data: on held-out text, or on and the name of what it names
- device: for edge devices (phones and embedded ones), or on and the name of what it names
Keep all numbers and units. Quotes do not overlap, and hold every word of the sentence. Whole goals are {EXAMPLES}."""


class GoalPart(StrictModel):
    """Words of a goal, and the same in words of the rules."""

    slot: Literal["objective", "bounds", "data", "device"]
    quote: str = Field(min_length=1, max_length=300)
    rule: str = Field(min_length=1, max_length=100)


class GoalParts(StrictModel):
    """A whole goal."""

    parts: list[GoalPart] = Field(min_length=1, max_length=16)


def refusal(goal: str, llm: LLMConfig) -> str:
    """Why nobody can read a goal; empty where rules or a model can."""
    try:
        read_goal(goal)
    except UnreadGoalError as error:
        return (
            ""
            if _readers(llm)
            else f"{error.message} {error.hint} Or use a language model with at least 1B parameters, which can "
            "interpret free text."
        )
    return ""


def _readers(llm: LLMConfig) -> list[str]:
    """Hosted models, and local ones that are large enough by their name, or by their tier where it says nothing."""

    def may_read(name: str) -> bool:
        model, provider = llm.models[name], llm.providers[llm.models[name].provider]
        size = _SIZE.search(f"{getattr(provider, 'model_path', '')} {model.id}".lower())
        large = model.tier != "pick" if size is None else float(size[1]) * {"b": 1e9, "m": 1e6}[size[2]] >= _LEAST
        return large or not is_loopback(getattr(provider, "base_url", "http://localhost"))

    return [name for name in llm.candidates(TASK) if may_read(name)]


def settle(config: Any, context: "Context") -> Any:
    """A `CompressConfig` with a goal in words of the rules; where a model had to read it, somebody has agreed.

    Raises:
        UsageError: the model's reading does not hold, or nobody agrees to it.
        MissingError: the model's key or file is not there.
    """
    try:
        read_goal(config.goal)
        return config
    except UnreadGoalError as error:
        unread = error
    check_optional(config.llm, context)
    name, messages = _readers(config.llm)[0], [Message("system", _PROMPT), Message("user", config.goal)]
    with open_router(config.llm, context) as router:
        try:
            options = Options(model=name, max_tokens=1024)
            parts = router.complete_sync(messages, TASK, GoalParts, options=options).value.parts
            goal = goal_of(config.goal, parts)
        except (*LLM_FAILURES, UsageError) as error:
            raise UsageError(
                f"{unread.message} {name} could not interpret it: {error.message}", hint=unread.hint
            ) from error
    quotes = "; ".join(f"{part.slot} {part.quote!r}: {part.rule}" for part in parts)
    reading = f"{name} interprets the goal {config.goal!r} as {str(goal)!r} ({quotes})."
    if context.ask_consent is None or not context.ask_consent(reading):
        statement = reading if context.ask_consent is None else "The interpretation was rejected."
        raise UsageError(f"{statement} It must be confirmed before the run.", hint=f'Use "{goal}", or add --yes.')
    return config.model_copy(update={"goal": str(goal)})


def goal_of(text: str, parts: Sequence[GoalPart]) -> Goal:
    """The goal that a model's reading of a sentence comes to. Pure.

    Raises:
        UsageError: a quote is not in the sentence, a word in no quote, a number not as it was, or rules refuse it.
    """
    remainder = plain(text)
    for part in parts:
        quote = plain(part.quote)
        if quote not in remainder or not re.search(r"\w", quote):
            raise UsageError(f"{part.quote!r} does not occur in the goal, or occurs in two parts.")
        remainder = remainder.replace(quote, ";" * len(quote), 1)
        quoted, stated = _amounts(quote), _amounts(plain(part.rule))
        if [number for number, _ in quoted] != [number for number, _ in stated] or any(
            unit not in ("", stated_unit) for (_, unit), (_, stated_unit) in zip(quoted, stated, strict=True)
        ):
            raise UsageError(f"The numbers in {part.quote!r} differ from those in {part.rule!r}.")
    if missing := unknown(remainder):
        raise UsageError(f"Words not covered by any part: {', '.join(map(repr, missing))}.")
    return read_goal(", ".join(part.rule for part in parts))


def _amounts(text: str) -> list[tuple[float, str]]:
    """Numbers and their units; what can be read in two ways equals nothing."""
    pairs = _AMOUNT.findall(text)
    return [(math.nan if _TWO_WAYS.search(digits) else float(digits.replace(",", ".")), unit) for digits, unit in pairs]
