"""A language model that is none: it follows a script. For demonstrations, tests and the control of an agent.

`random` and `adversarial` answer every question validly but without sense, so a run with them shows what an agent's
frame is worth without an agent.
"""

import asyncio
import hashlib
import json
import random
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from agentlab.errors import LLMConnectionError, LLMTimeoutError
from agentlab.llm.provider_config import ScriptedProvider
from agentlab.llm.providers import ProviderContext
from agentlab.llm.types import Delta, ModelRequest, Tool, ToolPiece, Usage

_GARBAGE = "Sure! Here is my answer: {choice = B or maybe C, because"
_PROSE = "This is a scripted answer."
_FAR = 1_000_000_000  # stands for infinity where a schema sets no bound
_MOST = 10_000  # characters of a text, and items, that an answer has to have

# Chooses one of several values; a range is offered as its two ends.
Choose = Callable[[Sequence[Any]], Any]


def build(name: str, provider: ScriptedProvider, surroundings: ProviderContext) -> "ScriptedModel":
    """The factory of the table in `agentlab.llm.providers`."""
    del name
    return ScriptedModel(provider, patience=surroundings.timeout.first_token)


class ScriptedModel:
    """Follows `ScriptedProvider.mode`. Every mode but `replies` depends on the request alone, not on earlier ones."""

    def __init__(self, script: ScriptedProvider, *, patience: float = 30.0) -> None:
        """`patience` is the number of seconds after which a stuck model is given up."""
        self._script = script
        self._patience = patience
        self.requests: list[ModelRequest] = []

    async def stream(self, request: ModelRequest) -> AsyncIterator[Delta]:
        self.requests.append(request)
        if self._script.mode == "refuse":
            raise LLMConnectionError("The scripted model refused the connection.")
        if self._script.mode == "stuck":
            await asyncio.sleep(self._patience)
            raise LLMTimeoutError(f"The scripted model sent nothing for {self._patience:g} seconds.")
        prompt_words = sum(len(message.content.split()) for message in request.messages)
        tool = _demanded_tool(request)
        if tool is not None and self._script.mode != "replies":
            yield Delta(tools=(ToolPiece(0, "call_0", tool.name, self._json(tool.parameters, request)),))
            yield Delta(finish="tool_calls", usage=Usage(prompt_words, 1))
            return
        text = self._text(request)
        if request.tools and (call := _scripted_call(text)) is not None:
            yield Delta(tools=(ToolPiece(0, f"call_{len(request.messages)}", *call),))
            yield Delta(finish="tool_calls", usage=Usage(prompt_words, 1))
            return
        words = re.findall(r"\S+\s*|\s+", text)
        for word in words:
            yield Delta(text=word)
        yield Delta(finish="stop", usage=Usage(prompt_words, len(words)))

    async def close(self) -> None:
        """Nothing is held."""

    def _text(self, request: ModelRequest) -> str:
        mode = self._script.mode
        if mode == "replies":
            return self._script.replies[(len(self.requests) - 1) % len(self._script.replies)]
        if mode == "garbage":
            return _GARBAGE
        if request.schema is not None:
            return self._json(request.schema, request)
        return json.dumps({"answer": _PROSE}) if request.json_only else _PROSE

    def _json(self, schema: Mapping[str, Any], request: ModelRequest) -> str:
        if self._script.mode == "garbage":
            return _GARBAGE
        return json.dumps(instance(schema, self._choice(request)), ensure_ascii=False)

    def _choice(self, request: ModelRequest) -> Choose:
        if self._script.mode == "first":
            return lambda options: options[0]
        if self._script.mode == "adversarial":
            return lambda options: options[-1]
        # from the request, not from a running generator: a resumed run gets the answers of an uninterrupted one
        seed_bytes = repr((self._script.seed, request.seed, request.messages)).encode("utf-8", "surrogatepass")
        return random.Random(hashlib.sha256(seed_bytes).digest()).choice  # noqa: S311 - a script, not a secret


def _scripted_call(text: str) -> tuple[str, str] | None:
    """The name and the arguments of the tool that a scripted reply calls, if it does."""
    try:
        call = json.loads(text)
        return call["tool"], json.dumps(call["arguments"])
    except (ValueError, KeyError, TypeError):
        return None


def _demanded_tool(request: ModelRequest) -> Tool | None:
    if request.tool_choice in ("auto", "none"):
        return None
    return next((tool for tool in request.tools if request.tool_choice in ("required", tool.name)), None)


def instance(schema: Mapping[str, Any], choose: Choose, room: int = _MOST) -> Any:
    """A value that a schema allows; where it leaves a choice, `choose` makes it.

    What has to be longer than `room`, items within items counted together, is cut, and fits the schema no more.
    """
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return choose(schema["enum"])
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return instance(choose(schema[union]), choose, room)
    kind = schema.get("type")
    if kind == "object":
        return {name: instance(part, choose, room) for name, part in schema.get("properties", {}).items()}
    if kind == "array":
        count = int(min(schema.get("minItems", 0), room))
        return [instance(schema.get("items", {}), choose, room // count) for _ in range(count)]
    if kind in ("integer", "number"):
        return choose(_ends(schema, step=1 if kind == "integer" else 1e-6))
    if kind == "boolean":
        return choose((False, True))
    if kind == "string":
        return "x" * int(max(min(schema.get("minLength", 0), room), min(1, schema.get("maxLength", 1))))
    return None


def _ends(schema: Mapping[str, Any], step: float) -> tuple[float, float]:
    low = schema.get("minimum", schema["exclusiveMinimum"] + step if "exclusiveMinimum" in schema else -_FAR)
    high = schema.get("maximum", schema["exclusiveMaximum"] - step if "exclusiveMaximum" in schema else _FAR)
    return low, high
