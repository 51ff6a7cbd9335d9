"""Event streams arrive in pieces of any size; what comes out must not depend on them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.errors import MalformedReplyError
from agentlab.llm.sse import LARGEST_EVENT, SseDecoder


def decode(*blocks):
    decoder = SseDecoder()
    return [event for block in blocks for event in decoder.feed(block)]


def test_what_counts_and_what_does_not():
    stream = b"\xef\xbb\xbf: a comment\nevent: x\nid: 7\ndata: one\ndata:two\n\n\n\nretry: 5\n\ndata: [DONE]\n\n"
    assert decode(stream) == ["one\ntwo", "[DONE]"]


def test_an_event_that_never_ended_is_not_delivered():
    assert decode(b"data: one\n\ndata: two\n") == ["one"]


lines = st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), min_size=1, max_size=30)


@given(st.lists(lines, max_size=8), st.sampled_from(["\n", "\r\n"]), st.lists(st.integers(0, 400), max_size=12))
def test_cuts_change_nothing(data, end, cuts):
    wire = "".join(f"data: {line}{end}{end}" for line in data).encode()
    bounds = sorted({min(cut, len(wire)) for cut in cuts})
    blocks = [wire[a:b] for a, b in zip([0, *bounds], [*bounds, len(wire)], strict=True)]
    assert decode(*blocks) == data


@given(st.binary(max_size=300))
def test_any_bytes_give_events_or_one_error(blob):
    try:
        assert all(isinstance(event, str) for event in decode(blob, b"\n\n"))
    except MalformedReplyError:
        with pytest.raises(UnicodeDecodeError):
            blob.decode()


@pytest.mark.parametrize("piece", [b"data: xxxxxxxxxxxx\n", b"data: xxxxxxxxxxx", b": xxxxxxxxxxxxxxxx"])
def test_an_event_or_line_without_end_is_refused(piece):
    blocks = [piece * 5000] * (LARGEST_EVENT // len(piece * 5000) * 2 + 2)
    with pytest.raises(MalformedReplyError, match="larger than"):
        decode(*blocks)
