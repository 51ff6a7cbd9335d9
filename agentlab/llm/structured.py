"""From a pydantic model to a schema for providers, and from a model's text back to a checked value. Pure.

A provider's promise to follow the schema is never trusted: every answer is validated here, whatever the rung of the
ladder, which says how the schema is asked for, from the strictest way to plain words:

    schema  the provider holds the answer to the schema (a grammar, for a local model)
    tool    the model has to call a tool whose parameters are the schema
    json    the provider holds the answer to JSON; the schema stands in the prompt
    prompt  the schema stands in the prompt, and nothing holds the model to it
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from agentlab.answers.extract import first_object, value_of
from agentlab.llm.provider_config import Cap
from agentlab.llm.types import Delta, Message, ModelRequest, Tool, ToolCall

M = TypeVar("M", bound=BaseModel)

_MOST_REPAIRED = 8_192  # characters of an answer whose syntax is mended
_MOST_PROBLEMS, _PROBLEM_WIDTH = 8, 200
_KEPT = 64  # compiled schemas
_QUOTED_ANSWER = 1_500  # characters of a bad answer that go back to the model
_NO_CONSTRAINT = {"title", "default", "discriminator"}
SchemaMode = Literal["schema", "tool", "json", "prompt"]

_TOOL = "answer"
_NEEDS: dict[SchemaMode, Cap | None] = {"schema": "schema", "tool": "tools", "json": "json", "prompt": None}


@dataclass(frozen=True, slots=True)
class Rejected:
    """Why an answer cannot be used, in lines that the model is shown."""

    problems: tuple[str, ...]


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of a model as providers and grammars take it; ValueError if the model contains itself.

    References are put in place, every property is required, and no other is allowed.
    """
    document = model.model_json_schema()
    flat = _inline(document, document.get("$defs", {}), ())
    assert isinstance(flat, dict)
    return flat


def _inline(node: Any, definitions: Mapping[str, Any], above: tuple[str, ...]) -> Any:
    if isinstance(node, list):
        return [_inline(item, definitions, above) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        if name in above:
            raise ValueError(f"{name} contains itself; such a schema cannot be given to a model")
        siblings = {key: value for key, value in node.items() if key != "$ref"}
        return _inline({**definitions[name], **siblings}, definitions, (*above, name))
    flat = {k: v for k, v in node.items() if k not in _NO_CONSTRAINT and k not in ("$defs", "properties")}
    flat = {key: _inline(value, definitions, above) for key, value in flat.items()}
    if "properties" in node:
        # not through `flat`: a property may bear the name of a keyword
        flat["properties"] = {k: _inline(v, definitions, above) for k, v in node["properties"].items()}
        flat |= {"required": list(node["properties"]), "additionalProperties": False}
    return flat


def checker(model: type[M]) -> Callable[[str, bool], M | Rejected]:
    """Makes values of a model of answers."""
    return lambda text, cut: parse(text, model, cut=cut)


def schema_checker(schema: Mapping[str, Any]) -> Callable[[str, bool], dict[str, Any] | Rejected]:
    """Makes objects that follow a JSON schema of answers. The schema may be a stranger's: it reaches nothing.

    Raises:
        BadRequestError: it is no JSON schema, or refers to another document.
    """
    from agentlab.llm.schemas import validator_of  # for schemas that come as data only

    validator = validator_of(schema)

    def check(text: str, cut: bool) -> dict[str, Any] | Rejected:
        json_object = _find_object(text, cut)
        if json_object is None:
            return _rejection(("the answer holds no JSON object",), cut)
        problems = tuple(f"{where}: {problem}"[:_PROBLEM_WIDTH] for where, problem in validator(json_object))
        return _rejection(problems, cut) if problems else json_object

    return check


def fits(text: str, schema: Mapping[str, Any]) -> Any | Rejected:
    """The value of an answer that is JSON, alone or in a code fence, and follows a schema; or why it does not.

    Errors as of `schema_checker`.
    """
    try:
        value = value_of(text)
    except ValueError as error:
        return Rejected((f"the answer is not JSON: {error}"[:_PROBLEM_WIDTH],))
    problems = tuple(f"{where}: {problem}"[:_PROBLEM_WIDTH] for where, problem in _validator(json.dumps(schema))(value))
    return Rejected(problems) if problems else value


@lru_cache(_KEPT)
def _validator(schema: str) -> Callable[[Any], Iterator[tuple[str, str]]]:
    from agentlab.llm.schemas import validator_of

    return validator_of(json.loads(schema))


def object_checker(text: str, cut: bool) -> dict[str, Any] | Rejected:
    """Any JSON object will do."""
    json_object = _find_object(text, cut)
    return _rejection(("the answer holds no JSON object",), cut) if json_object is None else json_object


def parse(text: str, model: type[M], *, cut: bool = False) -> M | Rejected:
    """The value in an answer, or why there is none. `cut` says that the answer ended at its token limit."""
    json_object = _find_object(text, cut)
    if json_object is None:
        return _rejection(("the answer holds no JSON object",), cut)
    try:
        return model.model_validate(json_object)
    except ValidationError as error:
        return _rejection(tuple(_lines(error)), cut)


def _rejection(problems: tuple[str, ...], cut: bool) -> Rejected:
    return Rejected((*problems, "the answer was cut off at its token limit") if cut else problems)


def _find_object(text: str, cut: bool) -> dict[str, Any] | None:
    json_object = first_object(text)
    return _repair_object(text) if json_object is None and not cut else json_object


def _repair_object(text: str) -> dict[str, Any] | None:
    """The object of an answer with slips of syntax, such as a missing bracket. What it holds is checked as ever."""
    start, end = text.find("{"), text.rfind("}") + 1
    if not 0 <= start < end <= start + _MOST_REPAIRED:
        return None  # without its last bracket the answer is not whole, and nobody can know the rest
    import json_repair

    json_object = json_repair.loads(text[start:end], skip_json_loads=True)
    return json_object if isinstance(json_object, dict) and json_object else None


def _lines(error: ValidationError) -> Iterator[str]:
    for problem in error.errors(include_url=False, include_context=False, include_input=False)[:_MOST_PROBLEMS]:
        where = ".".join(str(part) for part in problem["loc"]) or "the object"
        yield f"{where}: {problem['msg']}"[:_PROBLEM_WIDTH]


def ask_again(answer: str, rejected: Rejected) -> tuple[Message, ...]:
    """What is added to the conversation after a bad answer: the start of it, and what is wrong with it."""
    problems = "\n".join(f"- {problem}" for problem in rejected.problems)
    return (
        Message("assistant", answer[:_QUOTED_ANSWER]),
        Message(
            "user", f"That answer cannot be used:\n{problems}\nAnswer again, with one JSON object and nothing else."
        ),
    )


def rungs(request: ModelRequest, caps: Iterable[Cap]) -> tuple[SchemaMode, ...]:
    """The ways in which a model with these capabilities can be asked, strictest first.

    A request that brings tools of its own cannot be asked through a tool.
    """
    able = {None, *caps}
    return tuple(rung for rung, need in _NEEDS.items() if need in able and not (rung == "tool" and request.tools))


def shape_request(request: ModelRequest, rung: SchemaMode) -> ModelRequest:
    """The request, with its schema asked for in the way of a rung."""
    if request.schema is None or rung == "schema":
        return request
    if rung == "tool":
        tool = Tool(_TOOL, "Gives the answer.", request.schema)
        return replace(request, schema=None, tools=(tool,), tool_choice=_TOOL)
    messages = _with_schema(request.messages, request.schema)
    return replace(request, schema=None, json_only=rung == "json", messages=messages)


def answer_of(rung: SchemaMode, text: str, calls: tuple[ToolCall, ...]) -> tuple[str, tuple[ToolCall, ...]]:
    """Text and tool calls as the caller sees them: the arguments of the rung's own tool are the text."""
    own_call = next((call for call in calls if call.name == _TOOL), None) if rung == "tool" else None
    if own_call is None:
        return text, calls
    return own_call.arguments, tuple(call for call in calls if call is not own_call)


def listener_delta(rung: SchemaMode, delta: Delta, own_indexes: set[int]) -> Delta:
    """A piece as a listener hears it: what the rung's own tool is given is text. `own_indexes` collects its indexes."""
    if rung != "tool" or not delta.tools:
        return delta
    own_indexes.update(piece.index for piece in delta.tools if piece.name == _TOOL)
    text = "".join(piece.arguments for piece in delta.tools if piece.index in own_indexes)
    tools = tuple(piece for piece in delta.tools if piece.index not in own_indexes)
    return replace(delta, text=delta.text + text, tools=tools)


def _with_schema(messages: tuple[Message, ...], schema: Mapping[str, Any]) -> tuple[Message, ...]:
    """The conversation, led by the schema. Small models follow what comes first better than what comes late."""
    words = (
        "Answer with one JSON object and nothing else. It follows this JSON schema:\n"
        f"{json.dumps(dict(schema), ensure_ascii=False)}"
    )
    if messages and messages[0].role == "system":
        return (Message("system", f"{messages[0].content}\n\n{words}"), *messages[1:])
    return (Message("system", words), *messages)
