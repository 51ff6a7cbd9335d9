"""OpenAI's embeddings: the request, and vectors as its document. Pure."""

import base64
import math
import sys
from array import array
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from agentlab.llm.embedding import MOST_TEXTS
from agentlab.llm.serve.call import LABELS, RequestDocument, Texts, param_refusal, validate_document
from agentlab.llm.types import Embeddings


class EmbeddingRequest(RequestDocument):
    """The body of POST /v1/embeddings."""

    ignored = LABELS
    model: str
    input: Annotated[
        list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=MOST_TEXTS, fail_fast=True), Texts
    ]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(None, ge=1)


def read_embedding(tree: Any) -> EmbeddingRequest:
    """A request for vectors. Raises RefusedError for the first parameter that is unknown, unsupported or wrong."""
    return validate_document(EmbeddingRequest, tree)


def document(embeddings: Embeddings, name: str, request: EmbeddingRequest) -> dict[str, Any]:
    """Vectors in the order of the texts; in base64 as little-endian numbers of 4 bytes.

    Raises:
        RefusedError: the model's vectors have fewer than `dimensions` numbers.
    """
    as_base64 = request.encoding_format == "base64"
    shortened = (_shorten_vector(vector, request.dimensions) for vector in embeddings.vectors)
    data = [
        {"object": "embedding", "index": index, "embedding": _pack_base64(vector) if as_base64 else list(vector)}
        for index, vector in enumerate(shortened)
    ]
    tokens = embeddings.usage.input_tokens
    consumed = None if tokens is None else {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": name, "usage": consumed}


def _shorten_vector(vector: Sequence[float], dimensions: int | None) -> Sequence[float]:
    """The first numbers, scaled to length 1, which is what OpenAI's parameter means."""
    if dimensions is None or dimensions == len(vector):
        return vector
    if dimensions > len(vector):
        raise param_refusal("dimensions", f"the model's vectors have only {len(vector)} dimensions")
    length = math.hypot(*vector[:dimensions]) or 1.0
    return [number / length for number in vector[:dimensions]]


def _pack_base64(vector: Iterable[float]) -> str:
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode("ascii")
