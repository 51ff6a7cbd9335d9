"""A conversation in which a language model calls tools until it is done; what it writes is checked before use."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from agentlab.config.validation_messages import complaint
from agentlab.errors import AgentlabError
from agentlab.llm.options import Options
from agentlab.llm.types import Message, Tool, ToolCall

if TYPE_CHECKING:
    from agentlab.llm.router import Router

_CALLS = 8  # of one answer that are carried out
_LONGEST = 20_000  # characters of a call's arguments
_ROOM = 4_000  # characters of a tool's answer
_TOKENS = 1_024


@dataclass(frozen=True, slots=True)
class Action:
    """A tool with what it does: `run` takes a checked value of `takes`, and its text goes back to the model.

    An action that `ends` ends the conversation when it succeeds.
    """

    name: str
    description: str
    takes: type[BaseModel]
    run: Callable[[Any], str]
    ends: bool = False

    @property
    def tool(self) -> Tool:
        return Tool(self.name, self.description, self.takes.model_json_schema())


def converse(
    router: "Router", task: str, messages: Sequence[Message], actions: Sequence[Action], call_id: str, turns: int = 8
) -> list[Message]:
    """Ask until an action ends it, the model calls nothing, or the turns are over; what was said after `messages`.

    What is wrong with a call is told to the model, which may call again. Each turn is a call of the router of its own,
    so a run that was killed hears the same answers again. Errors as of `Router.complete_sync`.
    """
    by_name, new_messages = {action.name: action for action in actions}, list[Message]()
    options = Options(tools=tuple(action.tool for action in actions), tool_choice="required", max_tokens=_TOKENS)
    for turn in range(turns):
        answer = router.complete_sync([*messages, *new_messages], task, call_id=f"{call_id}/{turn}", options=options)
        new_messages.append(Message("assistant", answer.text, answer.tool_calls))
        is_over = not answer.tool_calls
        for position, call in enumerate(answer.tool_calls):
            action = by_name.get(call.name)
            text, worked = _carry_out(action, call) if position < _CALLS else ("error: too many calls at a time", False)
            new_messages.append(Message("tool", text[:_ROOM], tool_call_id=call.id))
            is_over = is_over or (worked and action is not None and action.ends)
        if is_over:
            break
    return new_messages


def _carry_out(action: Action | None, call: ToolCall) -> tuple[str, bool]:
    """What a call answers, and whether it worked."""
    if action is None:
        return f"error: there is no tool {call.name[:80]!r}", False
    if len(call.arguments) > _LONGEST:
        return f"error: arguments of over {_LONGEST} characters", False
    try:
        return action.run(action.takes.model_validate_json(call.arguments or "{}")), True
    except ValidationError as error:
        return f"error: {'; '.join(map(complaint, error.errors()[:_CALLS]))}", False
    except AgentlabError as error:
        return f"error: {error.message} {error.hint or ''}".strip(), False
