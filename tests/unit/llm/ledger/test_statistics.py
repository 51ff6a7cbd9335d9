"""The rows of `agentlab llm stats`."""

import sqlite3
from contextlib import closing

import pytest

from agentlab.errors import StorageError
from agentlab.llm.ledger.statistics import read_statistics

NOW = 1_800_000_000.0


def test_each_model_has_its_counts_speed_and_spend(opened, path, sample):
    ledger = opened()
    for second in range(100):
        ledger.record(sample(at=NOW + second, first=0.1 + second / 100, total=1.0 + second / 10))
    ledger.record(sample(at=NOW + 200, error="LLMTimeoutError", first=None, total=60.0, cost=None))
    ledger.record(sample(model="free", cost=None, first=None))
    ledger.close()
    free, paid = read_statistics(path).models
    assert (free.model, free.unpriced, free.first_p50, free.first_p90) == ("free", 1, None, None)
    assert (free.input_tokens, free.output_tokens, free.cost_usd) == (100, 40, None)
    assert (paid.provider, paid.answered, paid.errors, paid.unpriced) == ("p", 100, {"LLMTimeoutError": 1}, 1)
    assert (paid.failed, paid.input_tokens, paid.output_tokens, paid.cost_usd) == (1, 10_100, 4_040, 25.0)
    assert (paid.last_at, paid.last_seconds) == ("2027-01-15 08:01:39", pytest.approx(10.9))
    assert (paid.first_p50, paid.first_p90) == (pytest.approx(0.59, rel=0.046), pytest.approx(0.99, rel=0.046))
    assert (paid.total_p50, paid.total_p90) == (pytest.approx(5.9, rel=0.046), pytest.approx(9.9, rel=0.046))


def test_without_a_file_there_is_nothing_to_tell_and_none_is_made(path):
    assert read_statistics(path).models == []
    assert not path.exists()


def test_an_empty_file_tells_nothing(path):
    path.parent.mkdir()
    path.touch()
    assert read_statistics(path).models == []


def test_a_newer_file_is_refused(opened, path, sample):
    ledger = opened()
    ledger.record(sample())
    ledger.close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(StorageError, match="newer agentlab"):
        read_statistics(path)


def test_a_broken_file_is_a_clear_error(path):
    path.parent.mkdir()
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(StorageError, match="damaged"):
        read_statistics(path)
