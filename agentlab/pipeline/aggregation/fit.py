"""Whether a text is JSON of a wanted form, and its value. Pure."""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NoReturn

from agentlab.llm.schemas import validator_of
from agentlab.llm.structured import Rejected
from agentlab.tasks.extract import MOST_TEXT, code, final_part

_WIDTH = 200  # characters of a problem
_KEPT = 64  # compiled schemas


def fits(text: str, schema: Mapping[str, Any]) -> Any | Rejected:
    """The value of an answer, alone or in a code fence, that a schema accepts; or why there is none.

    Raises:
        BadRequestError: the schema is none.
    """
    try:
        value = value_of(text)
    except ValueError as error:
        return Rejected((f"the answer is not JSON: {error}"[:_WIDTH],))
    found = _validator(json.dumps(schema))(value)
    problems = tuple(f"{where}: {what}"[:_WIDTH] for where, what in found)
    return Rejected(problems) if problems else value


def value_of(text: str) -> Any:
    """The JSON value of an answer, alone or in a code fence.

    Raises:
        ValueError: it has none, or one that is too long or nested too deeply.
    """
    if len(text) > MOST_TEXT:
        raise ValueError(f"longer than {MOST_TEXT:,} characters")
    try:
        return _parsed(text)
    except ValueError:
        return _parsed(code(final_part(text)))


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


@lru_cache(_KEPT)
def _validator(schema: str) -> Any:
    return validator_of(json.loads(schema))
