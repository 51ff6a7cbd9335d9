"""OpenAI's embeddings: what is sent, and what comes back, checked. Pure."""

import math
from collections.abc import Sequence
from typing import Any

from agentlab.errors import MalformedReplyError
from agentlab.llm.providers import faults
from agentlab.llm.providers.untrusted import amount, count, json_object, mapping
from agentlab.llm.types import Embeddings, Usage

# Texts of one request: 128 vectors of 4,096 numbers are some 11 MB of JSON, a third of what a reply may have.
BATCH = 128
MOST_TEXTS = 1 << 16
_LONGEST_VECTOR = 1 << 16

Vector = tuple[float, ...]


def request_body(model: str, texts: Sequence[str]) -> dict[str, Any]:
    """The JSON to send."""
    return {"model": model, "input": list(texts)}


def check_one_length(vectors: Sequence[Vector]) -> None:
    """Refuse vectors that cannot be compared with each other.

    Raises:
        MalformedReplyError: they are not of one length.
    """
    if len({len(vector) for vector in vectors}) > 1:
        raise MalformedReplyError("The reply's vectors are not of one length.")


def parse(body: bytes, wanted: int) -> Embeddings:
    """The vectors of a reply, in the order of the texts.

    Raises:
        MalformedReplyError: not `wanted` vectors of finite numbers.
        RemoteError: the reply reports an error.
    """
    document = json_object(body.decode(errors="replace"))
    if document.get("error"):
        raise faults.reported(document["error"])
    rows = document.get("data")
    if not isinstance(rows, list) or len(rows) != wanted:
        found = len(rows) if isinstance(rows, list) else 0
        raise MalformedReplyError(f"The reply holds {found} vectors for {wanted} texts.")
    vectors: dict[int, Vector] = {}
    for place, row in enumerate(rows):
        index = mapping(row).get("index", place)
        if not isinstance(index, int) or not 0 <= index < wanted or index in vectors:
            raise MalformedReplyError("The reply's vectors are not numbered from 0 on, each once.")
        vectors[index] = _vector(mapping(row).get("embedding"))
    usage = mapping(document.get("usage"))
    cost = amount(usage.get("cost")) or None
    return Embeddings(tuple(vectors[i] for i in range(wanted)), Usage(count(usage.get("prompt_tokens")), None, cost))


def _vector(numbers: object) -> Vector:
    if not isinstance(numbers, list) or not 0 < len(numbers) <= _LONGEST_VECTOR:
        raise MalformedReplyError(f"A vector of the reply is no list of 1 to {_LONGEST_VECTOR} numbers.")
    try:
        vector = tuple(float(number) for number in numbers if type(number) in (int, float))
    except OverflowError:  # JSON knows whole numbers of any size
        vector = ()
    if len(vector) != len(numbers) or not all(map(math.isfinite, vector)):
        raise MalformedReplyError("A vector of the reply holds something that is no finite number.")
    return vector
