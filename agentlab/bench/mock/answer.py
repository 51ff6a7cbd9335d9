"""What is said: the words or the tool calls of an answer, before any protocol puts them into bytes. Pure."""

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from agentlab.bench.mock.question import Question
from agentlab.bench.mock.script import Scene

_PIECE = 4  # characters of JSON in a token
_NO_SENSE = {"unexpected": ["nobody asked for this"]}


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call, its JSON arguments in pieces."""

    id: str
    name: str
    pieces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """`finish` is stop, length or tool_calls, as OpenAI calls it; `usage` says whether a stream reports it."""

    model: str
    pieces: tuple[str, ...]
    calls: tuple[Call, ...]
    finish: str
    prompt_tokens: int
    cost: float | None
    usage: bool

    @property
    def text(self) -> str:
        """The whole answer."""
        return "".join(self.pieces)

    @property
    def tokens(self) -> int:
        """Tokens of the answer."""
        return len(self.pieces) + sum(len(call.pieces) for call in self.calls)


@lru_cache(maxsize=64)
def numbers(count: int) -> tuple[str, ...]:
    """The tokens "0", " 1", " 2"...: a text put together from two answers gives itself away."""
    return tuple(f" {number}" if number else "0" for number in range(count))


def answer_to(question: Question, scene: Scene) -> Answer:
    """What a scene says to a question; where it is cut is decided elsewhere."""
    pieces, calls, finish = _said(question, scene)
    return Answer(question.model, pieces, calls, finish, question.prompt_tokens, scene.cost, question.usage)


def _said(question: Question, scene: Scene) -> tuple[tuple[str, ...], tuple[Call, ...], str]:
    if scene.act == "empty":
        return (), (), "stop"
    if scene.act == "wrong-schema":
        return _cut(_NO_SENSE), (), "stop"
    if scene.act == "tool" or question.forced:
        return (), _calls(question, scene.calls), "tool_calls"
    if question.schema is not None:
        return _cut(_instance(question.schema)), (), "stop"
    if question.max_tokens is not None and question.max_tokens < scene.tokens:
        return numbers(question.max_tokens), (), "length"
    return numbers(scene.tokens), (), "stop"


def _calls(question: Question, count: int) -> tuple[Call, ...]:
    tools = question.tools or (("lookup", {"type": "object"}),)
    first = next((tool for tool in tools if tool[0] == question.forced), None)
    wanted = [first] if first else [tools[number % len(tools)] for number in range(count)]
    return tuple(Call(f"call_{k}", name, _cut(_instance(schema))) for k, (name, schema) in enumerate(wanted))


def _cut(value: Any) -> tuple[str, ...]:
    text = json.dumps(value, ensure_ascii=False)
    return tuple(text[start : start + _PIECE] for start in range(0, len(text), _PIECE))


def _instance(schema: Any) -> Any:
    from agentlab.llm.providers.scripted import instance  # brings pydantic, which a plain answer does not need

    return instance(schema, lambda options: options[0])
