"""A conversation with tools: what a model calls is checked, mistakes are told to it, and it comes to an end."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from pydantic import Field

from agentlab.config.base import StrictModel
from agentlab.config.workspace import Workspace
from agentlab.errors import AllModelsFailedError, UsageError
from agentlab.llm.config import LLMConfig
from agentlab.llm.router import Router
from agentlab.llm.tool_loop import Action, converse
from agentlab.llm.types import Message

ASK = [Message("user", "Add, then end.")]


class Pair(StrictModel):
    a: int
    b: int = Field(1, le=10)


class Nothing(StrictModel):
    pass


def add(pair: Pair) -> str:
    if pair.a < 0:
        raise UsageError("Negative numbers are not added.", hint="Use others.")
    return str(pair.a + pair.b)


ADD = Action("add", "Adds.", Pair, add)
END = Action("end", "Ends.", Nothing, lambda _: "Done.", ends=True)


def call(tool: str, **arguments: object) -> str:
    return json.dumps({"tool": tool, "arguments": arguments})


def said(tmp_path: Path, replies: Sequence[str], turns: int = 8, **script: object) -> list[Message]:
    script = script or {"mode": "replies", "replies": list(replies)}
    config = LLMConfig.model_validate(
        {
            "providers": {"script": {"kind": "scripted", **script}},
            "models": {"m": {"provider": "script", "id": "m", "tier": "full"}},
            "roles": {"primary": ["m"]},
            "ledger": {"enabled": False},
            "defaults": {"retries": 0, "timeout": {"first_token": 0.1}},
        }
    )
    with Router(config, env={}, workspace=Workspace(tmp_path, tmp_path)) as router:
        return converse(router, "test", ASK, [END, ADD], "c", turns)


def test_arguments_without_end_are_not_read(tmp_path: Path) -> None:
    messages = said(tmp_path, [call("add", a="9" * 30_000), call("end")])
    assert "arguments of over 20000 characters" in messages[1].content


def test_tools_answer_until_one_of_them_ends_it(tmp_path: Path) -> None:
    messages = said(tmp_path, [call("add", a=2, b=3), call("end"), call("add", a=1)])
    assert [message.role for message in messages] == ["assistant", "tool", "assistant", "tool"]
    assert [message.content for message in messages if message.role == "tool"] == ["5", "Done."]
    assert messages[1].tool_call_id == messages[0].tool_calls[0].id


@pytest.mark.parametrize(
    ("reply", "prefix"),
    [
        (call("add", a="x"), "error: a: Input should be a valid integer"),
        (call("add", a=1, b=11), "error: b: "),
        (call("add", a=1, c=1), "error: c: Extra inputs"),
        (call("add", a=-1), "error: Negative numbers are not added. Use others."),
        (call("rm -rf /"), "error: there is no tool 'rm -rf /'"),
    ],
)
def test_what_is_wrong_with_a_call_is_told_and_another_may_follow(tmp_path: Path, reply: str, prefix: str) -> None:
    answers = [m.content for m in said(tmp_path, [reply, call("end")]) if m.role == "tool"]
    assert answers[0].startswith(prefix)
    assert answers[1] == "Done."


def test_a_model_that_calls_nothing_ends_it(tmp_path: Path) -> None:
    assert [message.content for message in said(tmp_path, ["I would rather talk."])] == ["I would rather talk."]


def test_a_model_that_never_ends_is_ended(tmp_path: Path) -> None:
    assert len(said(tmp_path, [call("add", a=1)], turns=3)) == 6


def test_a_model_that_cannot_be_asked_says_so(tmp_path: Path) -> None:
    with pytest.raises(AllModelsFailedError):
        said(tmp_path, [], mode="refuse")
