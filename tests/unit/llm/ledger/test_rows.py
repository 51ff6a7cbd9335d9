"""Batches: their size changes nothing, unknown stays unknown, answers make room."""

import sqlite3
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentlab.llm.ledger import rows
from agentlab.llm.ledger.arm import Arm, AttemptSample, Quality
from agentlab.llm.ledger.memory import encode_answer, fold_evidence
from agentlab.llm.ledger.rows import PendingAnswer, read_answer, read_arms, read_spent, write
from agentlab.llm.ledger.schema import open_database
from agentlab.llm.types import Usage

NOW = 1_800_000_000.0
AT = st.floats(NOW, NOW + 1e6)
NAMES = st.sampled_from(["a", "b"])
TOKENS = st.none() | st.integers(0, 2**40)
USAGE = st.builds(Usage, TOKENS, TOKENS, st.none() | st.floats(0, 100))
SAMPLE = st.builds(
    AttemptSample,
    AT,
    NAMES,
    NAMES,
    st.just("p"),
    st.sampled_from([None, None, "ServerFaultError", "LLMTimeoutError"]),
    USAGE,
    st.none() | st.floats(0, 10),
    st.floats(0, 100),
    st.just(""),
)
EVENTS = st.lists(SAMPLE | st.builds(Quality, AT, NAMES, NAMES, st.floats(0, 1)), max_size=30)


def _dump(path, batches) -> list[str]:
    with closing(open_database(path, 36_500, NOW)) as db:
        for batch in batches:
            write(db, batch)
        return list(db.iterdump())


@settings(max_examples=25, deadline=None)
@given(EVENTS, st.integers(1, 7))
def test_many_small_batches_are_one_big_batch(tmp_path_factory, events, size):
    folder = tmp_path_factory.mktemp("batches")
    small = [events[start : start + size] for start in range(0, len(events), size)]
    assert _dump(folder / "small", small) == _dump(folder / "big", [events])


@settings(max_examples=15, deadline=None)
@given(EVENTS)
def test_the_file_knows_what_the_evidence_says(tmp_path_factory, events):
    with closing(open_database(tmp_path_factory.mktemp("evidence") / "l", 36_500, NOW)) as db:
        write(db, events)
        arms, spending = read_arms(db), read_spent(db, NOW)
    for (task, model), arm in arms.items():
        assert arm == fold_evidence(Arm(), (event for event in events if (event.task, event.model) == (task, model)))
    costs = [event.usage.cost_usd for event in events if isinstance(event, AttemptSample)]
    prices = [cost for cost in costs if cost is not None]
    assert spending.total == (pytest.approx(sum(prices)) if prices else None if costs else 0.0)


def test_unknown_is_null_and_stays_so_until_something_is_known(tmp_path, sample):
    with closing(open_database(tmp_path / "l", 36_500, NOW)) as db:
        write(db, [sample(cost=None)])
        assert db.execute("SELECT cost_usd, unpriced FROM models").fetchone() == (None, 1)
        write(db, [sample(cost=0.5), sample(cost=None)])
        assert db.execute("SELECT cost_usd, unpriced FROM models").fetchone() == (0.5, 2)


def test_the_last_response_is_the_newest_answer_whoever_writes_it_last(tmp_path, sample):
    with closing(open_database(tmp_path / "l", 36_500, NOW)) as db:
        write(db, [sample(at=NOW + 5, total=7.0)])
        write(db, [sample(at=NOW, total=1.0), sample(at=NOW + 9, error="LLMTimeoutError", total=30.0)])
        assert db.execute("SELECT last_at, last_seconds FROM models").fetchone() == (NOW + 5, 7.0)


def test_old_answers_make_room_by_number_and_by_bytes(tmp_path, answer, monkeypatch):
    body = encode_answer(answer())
    monkeypatch.setattr(rows, "_MOST_ANSWERS", 20)
    with closing(open_database(tmp_path / "l", 36_500, NOW)) as db:
        for number in range(21):
            write(db, [PendingAnswer(str(number), NOW + number, body)])
        assert db.execute("SELECT count(*), min(at) FROM answers").fetchone() == (18, NOW + 3)
        monkeypatch.setattr(rows, "_MOST_ANSWER_BYTES", 10 * len(body))
        write(db, [PendingAnswer("20", NOW + 20, body)])  # the same key again
        assert db.execute("SELECT count(*), min(at) FROM answers").fetchone() == (9, NOW + 12)
        assert read_answer(db, "20") == body
        assert read_answer(db, "3") is None


def test_a_batch_is_whole_or_absent(tmp_path, sample):
    with closing(open_database(tmp_path / "l", 36_500, NOW)) as db:
        with pytest.raises((sqlite3.Error, OverflowError)):
            write(db, [sample(), AttemptSample(NOW, "t", "m", "p", None, Usage(2**70), None, 1.0)])
        assert read_spent(db, 0.0).calls == 0
        assert read_arms(db) == {}
