"""Messages survive the wire, whatever characters they hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.workers.wire import decode, encode

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), VALUES))
def test_a_message_comes_back_from_exactly_one_line(message: dict[str, object]) -> None:
    line = encode(message)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert decode(line) == message


@pytest.mark.parametrize(
    "line", [b"", b"[1]\n", b"llama_model_loader: loaded\n", b'{"event": \n', b"\xff\n", b'{"value": NaN}\n']
)
def test_anything_but_an_object_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the kind is the contract, json words the message
        decode(line)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [-float("inf")]])
def test_what_json_has_no_word_for_is_not_sent(value: object) -> None:
    with pytest.raises(ValueError, match="JSON"):
        encode({"value": value})
