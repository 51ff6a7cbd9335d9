"""The ledger in a file, as one process sees it: what it said counts at once; no trouble of the file reaches a call."""

import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from agentlab.llm.ledger import sqlite
from agentlab.llm.ledger.arm import Arm
from agentlab.llm.ledger.schema import open_database
from agentlab.llm.ledger.statistics import read_statistics

NOW = 1_800_000_000.0


def _until(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    assert condition()


def _works_in_memory(ledger, sample, answer):
    ledger.record(sample(cost=0.5))
    ledger.quality(NOW, "t", "m", 1.0)
    ledger.remember("key", answer())
    assert ledger.spent_since(NOW) == 0.5
    assert ledger.arm("t", "m", NOW).successes == 1
    assert ledger.answer("key") == answer()
    ledger.close()


def test_what_was_said_counts_at_once_and_after_reopening(opened, warnings, sample, answer):
    ledger = opened()
    assert (ledger.spent_since(NOW), ledger.arm("t", "m", NOW), ledger.answer("key")) == (0.0, Arm(), None)
    ledger.record(sample(cost=0.5))
    ledger.quality(NOW, "t", "m", 0.75)
    ledger.remember("key", answer())
    for is_reopened in (False, True):
        assert ledger.spent_since(NOW) == 0.5
        arm = ledger.arm("t", "m", NOW)
        assert (arm.successes, arm.quality_sum, arm.quality_count) == (1, 0.75, 1)
        assert ledger.answer("key") == answer()
        ledger.close()
        ledger = ledger if is_reopened else opened()
    assert warnings == []


def test_spend_of_another_moment_is_looked_up_and_counts_what_waits(opened, sample):
    ledger = opened()
    for second in range(10):
        ledger.record(sample(at=NOW + second, cost=1.0))
        assert ledger.spent_since(NOW) == second + 1
        assert ledger.spent_since(NOW + 5) == max(0, second - 4)


def test_unknown_costs_are_not_zero_in_the_file_either(opened, sample):
    ledger = opened()
    ledger.record(sample(cost=None))
    ledger.close()
    assert opened().spent_since(NOW) is None


def test_another_ledger_of_the_file_is_heard_within_a_second(opened, sample, answer):
    one, second = opened(), opened()
    assert (one.spent_since(NOW), second.spent_since(NOW)) == (0.0, 0.0)
    one.record(sample(cost=0.5))
    one.remember("key", answer())
    second.record(sample(cost=0.25))
    _until(lambda: second.spent_since(NOW) == one.spent_since(NOW) == 0.75, 2.0)
    assert second.arm("t", "m", NOW).successes == pytest.approx(2, rel=0.01)
    assert second.answer("key") == answer()


def test_answers_older_than_the_days_to_keep_are_forgotten(opened, answer):
    ledger = opened()
    ledger.remember("old", answer(at=time.time() - 3 * 86_400))
    ledger.remember("new", answer(at=time.time()))
    ledger.close()
    later = opened(keep_days=2)
    assert later.answer("old") is None
    assert later.answer("new") is not None


def test_threads_may_tell_and_ask_at_the_same_time(opened, sample):
    ledger = opened()
    threads = [
        threading.Thread(
            target=lambda: [(ledger.record(sample(cost=1.0)), ledger.arm("t", "m", NOW)) for _ in range(200)]
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.spent_since(NOW) == 800.0
    ledger.close()
    assert opened().spent_since(NOW) == 800.0


def test_a_ledger_that_nobody_uses_makes_no_file(tmp_path, opened):
    opened().close()
    assert list(tmp_path.iterdir()) == []


def test_what_is_said_after_the_end_stays_in_memory(opened, warnings, sample):
    ledger = opened()
    ledger.record(sample(cost=0.5))
    ledger.close()
    ledger.close()
    ledger.record(sample(cost=0.5))
    assert ledger.spent_since(NOW) == 1.0
    assert opened().spent_since(NOW) == 0.5
    assert warnings == []


def test_a_queue_that_is_full_drops_and_says_so_once(path, opened, warnings, sample, monkeypatch):
    monkeypatch.setattr(sqlite, "_QUEUE", 10)
    ledger = opened()
    ledger.spent_since(NOW)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        for _ in range(100):
            ledger.record(sample())
        connection.execute("COMMIT")
    ledger.close()
    assert len(warnings) == 1
    assert "not recorded" in warnings[0]
    (row,) = read_statistics(path).models
    assert 10 <= row.answered < 100


def test_more_answers_than_can_wait_are_no_reason_to_complain(opened, warnings, answer):
    ledger = opened()
    for number in range(200):
        ledger.remember(str(number), answer("x" * 200_000))
    ledger.close()
    reopened = opened()
    count = sum(reopened.answer(str(number)) is not None for number in range(200))
    assert 64 <= count <= 200
    assert warnings == []


@pytest.mark.parametrize("content", [b"no database at all" * 1000, b"SQLite format 3\0" + b"\xff" * 8000])
def test_a_corrupt_file_is_left_as_it_is(path, opened, warnings, sample, answer, content):
    path.parent.mkdir()
    path.write_bytes(content)
    _works_in_memory(opened(), sample, answer)
    assert path.read_bytes() == content
    assert len(warnings) == 1
    assert "in memory only" in warnings[0]


def test_rows_of_a_type_that_nobody_wrote_are_corruption_too(path, opened, warnings, sample, answer):
    ledger = opened()
    ledger.record(sample())
    ledger.close()
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE arms SET first_mean = 'words'")
    _works_in_memory(opened(), sample, answer)
    assert len(warnings) == 1


@pytest.mark.parametrize("relative_path", ["a file/llm.sqlite", "no folder/.agentlab/llm.sqlite", "folder"])
def test_a_place_that_cannot_hold_a_file_is_told_once(tmp_path, opened, warnings, sample, answer, relative_path):
    (tmp_path / "a file").touch()
    (tmp_path / "folder").mkdir()
    _works_in_memory(opened(tmp_path / relative_path), sample, answer)
    assert len(warnings) == 1


@pytest.fixture
def read_only_folder(tmp_path):
    """A folder that this process may read and not write; root gives its powers up, after pytest made its own folder."""
    with tempfile.TemporaryDirectory() as name:
        folder, root = Path(name), os.geteuid() == 0
        file = folder / "llm.sqlite"
        with closing(open_database(file, 30, NOW)):
            file.chmod(0o444)
        folder.chmod(0o555)
        if root:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            if root:
                os.seteuid(0)
            folder.chmod(0o700)


@pytest.mark.skipif(os.name == "nt", reason="folders have no such permissions on Windows")
@pytest.mark.parametrize("name", ["llm.sqlite", "new.sqlite"])
def test_a_read_only_folder_is_told_once(read_only_folder, opened, warnings, sample, answer, name):
    _works_in_memory(opened(read_only_folder / name), sample, answer)
    assert len(warnings) == 1


def test_a_file_that_another_process_holds_is_given_up(path, opened, warnings, sample, monkeypatch):
    monkeypatch.setattr(sqlite, "_LOCKED_SECONDS", 0.5)
    first = opened()
    first.record(sample(cost=2.0))
    first.close()
    code = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None); db.execute('BEGIN EXCLUSIVE')"
    command = [sys.executable, "-c", code + "; print('held', flush=True); sys.stdin.read()", str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        ledger = opened()
        start = time.perf_counter()
        ledger.record(sample(cost=0.5))
        assert time.perf_counter() - start < 0.5
        _until(lambda: warnings)
        assert ledger.spent_since(NOW) == 0.5
        holder.communicate()
    assert len(warnings) == 1
    assert "locked" in warnings[0]
    assert opened().spent_since(NOW) == 2.0


def test_the_end_does_not_wait_for_another_process(path, opened, warnings, sample):
    ledger = opened()
    ledger.spent_since(NOW)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        ledger.record(sample(cost=0.5))
        start = time.perf_counter()
        ledger.close()
        assert time.perf_counter() - start < 2.5
        connection.execute("ROLLBACK")
    assert len(warnings) == 1
    assert ledger.spent_since(NOW) == 0.5


_FULL = """
import resource, sys, time
from pathlib import Path
from agentlab.llm.ledger.arm import AttemptSample
from agentlab.llm.ledger.sqlite import SqliteLedger
from agentlab.llm.types import Usage
ledger = SqliteLedger(Path(sys.argv[1]), 30, print)
now = time.time()
ledger.spent_since(now)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
for n in range(3000):
    ledger.record(AttemptSample(now, "t", "m", "p", None, Usage(1, 1, 1.0), None, 1.0, "run"))
ledger.close()
ledger.record(AttemptSample(now, "t", "m", "p", None, Usage(1, 1, 1.0), None, 1.0, "run"))
print(ledger.spent_since(now))
"""


@pytest.mark.skipif(os.name == "nt", reason="no limit on the size of files")
def test_a_file_that_cannot_grow_is_told_once_and_stays_whole(path, opened):
    process = subprocess.run([sys.executable, "-c", _FULL, str(path)], capture_output=True, text=True, timeout=60)
    warning, total = process.stdout.splitlines()
    assert process.stderr == ""
    assert "in memory only" in warning
    assert total == "3001.0"
    written = opened().spent_since(0.0)
    assert 0 < written < 3000
    assert written % 1 == 0


def test_a_name_that_cannot_be_written_hides_no_cost(opened, warnings, sample):
    ledger = opened()
    ledger.record(sample(task="lone \ud83d", cost=0.5))
    ledger.close()
    reopened = opened()
    assert reopened.spent_since(NOW) == 0.5
    assert reopened.arm("lone \ud83d", "m", NOW).successes == 1
    assert warnings == []
