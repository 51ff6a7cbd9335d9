import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.llm.serve.faults import RefusedError
from agentlab.llm.serve.gate import MOST_PARTS, _parse_body, parts

TREES = st.recursive(
    st.none() | st.integers() | st.text(st.sampled_from('a"\\[{,]}\n')),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(st.sampled_from('k"\\,[')), inner, max_size=5),
)


def objects(tree) -> int:
    if isinstance(tree, dict):
        return 1 + sum(1 + objects(value) for value in tree.values())
    return 1 + sum(map(objects, tree)) if isinstance(tree, list) else 1


@given(TREES)
def test_no_document_becomes_more_objects_than_are_counted(tree):
    body = json.dumps(tree).encode()
    assert objects(tree) <= parts(body) * 2 + 1
    assert parts(body) <= objects(tree) * 2 + 1


def test_what_stands_in_a_text_is_no_part():
    assert parts(json.dumps({"a": '[{",\\",' * 1000}).encode()) == 3


@pytest.mark.parametrize("many", [b"[" + b"[]," * MOST_PARTS + b"[]]", b'["' + b'","' * MOST_PARTS + b'"]'])
def test_too_many_parts(many):
    with pytest.raises(RefusedError) as caught:
        _parse_body(bytearray(many))
    assert (caught.value.status, caught.value.code) == (413, "too_many_parts")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b'{"a": NaN}', b"[" * 10_000, b'{"model": "\\ud800"}', b"9" * 10_000]
)
def test_no_document(body):
    with pytest.raises(RefusedError) as caught:
        _parse_body(bytearray(body))
    assert caught.value.status == 400
