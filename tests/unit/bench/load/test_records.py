"""A request is a line, and a line is a request."""

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.bench.load.records import Record, from_lines, record_of, slim, to_lines
from agentlab.llm.types import Usage

times = st.floats(0, 1e5).map(lambda value: round(value, 6))
counts = st.none() | st.integers(0, 10**6)
records = st.builds(
    Record,
    index=st.integers(0, 10**6),
    scheduled=times,
    sent=times,
    stamps=st.lists(times, max_size=5).map(lambda values: array("d", values)),
    output=st.none() | times,
    ended=st.none() | times,
    characters=st.integers(0, 10**6),
    usage=st.builds(Usage, counts, counts, st.none() | st.floats(0, 10)),
    exact=counts,
    error=st.none() | st.just("RateLimitedError"),
    message=st.text(max_size=40),  # whatever a server says, line separators included
)


@given(st.lists(records, max_size=4))
def test_what_is_written_is_read(records: list[Record]) -> None:
    assert list(from_lines(to_lines(records))) == records


def test_times_count_from_the_start_of_the_stage() -> None:
    reading = Record(2, scheduled=100.0, sent=100.25, stamps=array("d", [101.0, 101.5]), output=101.0, ended=101.5)
    record = record_of(reading, began=100.0, exact=9)
    assert (record.scheduled, record.sent, record.first, record.last, record.ended) == (0.0, 0.25, 1.0, 1.5, 1.5)
    assert (record.exact, record.is_answered) == (9, True)


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"index": 1}'])
def test_a_damaged_line_is_an_error(line: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        from_lines(line)


def test_a_slim_record_keeps_its_first_and_last_time() -> None:
    reading = Record(0, scheduled=0.0, sent=0.0, stamps=array("d", [1.0, 2.0, 3.0]), ended=3.0)
    full_record = record_of(reading, began=0.0, exact=None)
    assert (slim(full_record).first, slim(full_record).last, len(slim(full_record).stamps)) == (1.0, 3.0, 2)
