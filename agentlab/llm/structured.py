"""From a pydantic model to a schema for providers, and from a model's text back to a checked value. Pure.

A provider's promise to follow the schema is never trusted: every answer is validated here.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from agentlab.answers.extract import first_object, value_of
from agentlab.llm.types import Message

M = TypeVar("M", bound=BaseModel)

_MOST_REPAIRED = 8_192  # characters of an answer whose syntax is mended
_MOST_PROBLEMS, _PROBLEM_WIDTH = 8, 200
_KEPT = 64  # compiled schemas
_QUOTED_ANSWER = 1_500  # characters of a bad answer that go back to the model
_NO_CONSTRAINT = {"title", "default", "discriminator"}


@dataclass(frozen=True, slots=True)
class Rejected:
    """Why an answer cannot be used, in lines that the model is shown."""

    problems: tuple[str, ...]


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of a model as providers and grammars take it.

    References are put in place, every property is required, and no other is allowed.

    Raises:
        ValueError: the model contains itself.
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
        found = _found(text, cut)
        if found is None:
            return _rejected(("the answer holds no JSON object",), cut)
        problems = tuple(f"{where}: {what}"[:_PROBLEM_WIDTH] for where, what in validator(found))
        return _rejected(problems, cut) if problems else found

    return check


def fits(text: str, schema: Mapping[str, Any]) -> Any | Rejected:
    """The value of an answer that is JSON, alone or in a code fence, and follows a schema; or why it does not.

    Raises:
        BadRequestError: as of `schema_checker`.
    """
    try:
        value = value_of(text)
    except ValueError as error:
        return Rejected((f"the answer is not JSON: {error}"[:_PROBLEM_WIDTH],))
    problems = tuple(f"{where}: {what}"[:_PROBLEM_WIDTH] for where, what in _validator(json.dumps(schema))(value))
    return Rejected(problems) if problems else value


@lru_cache(_KEPT)
def _validator(schema: str) -> Callable[[Any], Iterator[tuple[str, str]]]:
    from agentlab.llm.schemas import validator_of

    return validator_of(json.loads(schema))


def object_checker(text: str, cut: bool) -> dict[str, Any] | Rejected:
    """Any JSON object will do."""
    found = _found(text, cut)
    return _rejected(("the answer holds no JSON object",), cut) if found is None else found


def parse(text: str, model: type[M], *, cut: bool = False) -> M | Rejected:
    """The value in an answer, or why there is none. `cut` says that the answer ended at its token limit."""
    found = _found(text, cut)
    if found is None:
        return _rejected(("the answer holds no JSON object",), cut)
    try:
        return model.model_validate(found)
    except ValidationError as error:
        return _rejected(tuple(_lines(error)), cut)


def _rejected(problems: tuple[str, ...], cut: bool) -> Rejected:
    return Rejected((*problems, "the answer was cut off at its token limit") if cut else problems)


def _found(text: str, cut: bool) -> dict[str, Any] | None:
    found = first_object(text)
    return _repaired(text) if found is None and not cut else found


def _repaired(text: str) -> dict[str, Any] | None:
    """The object of an answer with slips of syntax, such as a missing bracket. What it holds is checked as ever."""
    start, end = text.find("{"), text.rfind("}") + 1
    if not 0 <= start < end <= start + _MOST_REPAIRED:
        return None  # without its last bracket the answer is not whole, and nobody can know the rest
    import json_repair

    found = json_repair.loads(text[start:end], skip_json_loads=True)
    return found if isinstance(found, dict) and found else None


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
