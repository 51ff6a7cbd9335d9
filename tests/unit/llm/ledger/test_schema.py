"""The file: made for its owner alone, refused when it is not ours, relieved of what is old."""

import sqlite3
import stat
from contextlib import closing

import pytest

from agentlab.errors import StorageError
from agentlab.llm.ledger import schema
from agentlab.llm.ledger.memory import encode_answer
from agentlab.llm.ledger.rows import PendingAnswer, write
from agentlab.llm.ledger.schema import SCHEMA, open_database

NOW = 1_800_000_000.0
DAY = 86_400.0


def test_calls_beyond_the_most_that_are_kept_go_unless_they_are_of_these_days(tmp_path, sample, monkeypatch):
    monkeypatch.setattr(schema, "_CALLS", 3)
    path = tmp_path / "l"
    with closing(open_database(path, 30, NOW)) as db:
        write(db, [sample(at=NOW - age * DAY) for age in (9, 8, 7, 6, 1, 1, 1, 1)])
    with closing(open_database(path, 30, NOW)) as db:
        assert db.execute("SELECT at FROM calls").fetchall() == [(NOW - DAY,)] * 4


def test_a_new_file_is_for_its_owner_alone_and_journals_ahead(tmp_path, sample):
    path = tmp_path / ".agentlab" / "llm.sqlite"
    with closing(open_database(path, 30, NOW)) as db:
        write(db, [sample()])
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert db.execute("PRAGMA synchronous").fetchone() == (1,)
        assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}
    assert [file.name for file in path.parent.iterdir()] == ["llm.sqlite"]


def test_a_file_is_opened_again_and_keeps_its_rows(tmp_path, sample):
    for calls in (1, 2):
        with closing(open_database(tmp_path / "l", 30, NOW)) as db:
            write(db, [sample()])
            assert db.execute("SELECT count(*) FROM calls").fetchone() == (calls,)
            assert not SCHEMA.is_empty(db, tmp_path / "l")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("CREATE TABLE theirs (x)", "another program"),
        (f"PRAGMA application_id = {0x61676C62}; PRAGMA user_version = {SCHEMA.version + 1}", "newer agentlab"),
    ],
)
def test_a_strangers_file_and_a_newer_one_are_refused_untouched(tmp_path, script, words):
    path = tmp_path / "l"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(script)
    before = path.read_bytes()
    with pytest.raises(StorageError, match=words):
        open_database(path, 30, NOW)
    assert path.read_bytes() == before


def test_old_calls_and_answers_go_and_counters_stay(tmp_path, sample, answer):
    path = tmp_path / "l"
    with closing(open_database(path, 30, NOW)) as db:
        body = encode_answer(answer())
        write(db, [sample(at=NOW - 31 * DAY), sample(at=NOW - 29 * DAY)])
        write(db, [PendingAnswer("old", NOW - 31 * DAY, body), PendingAnswer("new", NOW, body)])
    with closing(open_database(path, 30, NOW)) as db:
        assert db.execute("SELECT at FROM calls").fetchall() == [(NOW - 29 * DAY,)]
        assert db.execute("SELECT key FROM answers").fetchall() == [("new",)]
        assert db.execute("SELECT calls FROM outcomes").fetchall() == [(2,)]
