import base64
import struct

import pytest

from agentlab.llm.serve.embeddings import document, read_embedding
from agentlab.llm.serve.faults import RefusedError
from agentlab.llm.types import Embeddings, Usage

FOUND = Embeddings(((3.0, -4.0, 12.0), (2.0, 0.0, 0.25)), Usage(4, 0))


def asked(**fields):
    return read_embedding({"model": "m", "input": "a", **fields})


def test_one_text_or_many():
    assert asked().input == ["a"]
    assert asked(input=["a", "b"], encoding_format="base64", user="me").input == ["a", "b"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": [1, 2]}, "input[0]"),
        ({"input": []}, "input"),
        ({"input": ""}, "input[0]"),
        ({"dimensions": 0}, "dimensions"),
        ({"colour": 1}, "colour"),
    ],
)
def test_what_is_not_supported(fields, param):
    with pytest.raises(RefusedError) as caught:
        asked(**fields)
    assert caught.value.param == param


def test_numbers():
    response = document(FOUND, "m", asked())
    assert [row["embedding"] for row in response["data"]] == [[3.0, -4.0, 12.0], [2.0, 0.0, 0.25]]
    assert [row["index"] for row in response["data"]] == [0, 1]
    assert response["usage"] == {"prompt_tokens": 4, "total_tokens": 4}


def test_base64():
    packed = document(FOUND, "m", asked(encoding_format="base64"))["data"][0]["embedding"]
    assert struct.unpack("<3f", base64.b64decode(packed)) == (3.0, -4.0, 12.0)


def test_fewer_dimensions_are_the_first_ones_at_length_1():
    assert document(FOUND, "m", asked(dimensions=2))["data"][0]["embedding"] == [0.6, -0.8]
    assert document(FOUND, "m", asked(dimensions=3))["data"][0]["embedding"] == [3.0, -4.0, 12.0]
    with pytest.raises(RefusedError, match="3 dimensions"):
        document(FOUND, "m", asked(dimensions=4))


@pytest.mark.parametrize("encoding", ["base64", "float"])
def test_unknown_usage(encoding):
    assert document(Embeddings((), Usage()), "m", asked(encoding_format=encoding))["usage"] is None
