"""A file that several processes share is made by one of them, whichever comes first."""

import multiprocessing
import sqlite3
from contextlib import closing
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from agentlab.runs.sqlite import ForeignFileError, Schema, is_busy

SCHEMA = Schema(0x74657374, 3, [f"CREATE TABLE t{number} (x)" for number in range(8)])
_FILES = 60


def _open_all(folder: Path, start: Barrier) -> None:
    for number in range(_FILES):
        start.wait(30)
        while True:
            try:
                SCHEMA.open(folder / str(number), 1.0).close()
                break
            except sqlite3.OperationalError as error:
                if not is_busy(error):
                    raise


def test_a_file_that_another_process_is_making_is_never_taken_for_a_strangers(tmp_path: Path) -> None:
    """Whose file it is and what it holds are looked at in one moment: between two the tables may have come."""
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(3)
    processes = [context.Process(target=_open_all, args=(tmp_path, start)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]


@pytest.mark.parametrize("foreign_schema", [Schema(0x6E6F7065, 3, ["CREATE TABLE x (y)"]), Schema(0x74657374, 4, [])])
def test_a_strangers_file_and_one_of_another_version_stay_as_they_were(tmp_path: Path, foreign_schema: Schema) -> None:
    foreign_schema.open(tmp_path / "l", 1.0).close()
    before = (tmp_path / "l").read_bytes()
    with pytest.raises(ForeignFileError):
        SCHEMA.open(tmp_path / "l", 1.0)
    assert (tmp_path / "l").read_bytes() == before


def test_a_second_opening_finds_the_rows_of_the_first() -> None:
    with closing(SCHEMA.open(None, 1.0)) as db:
        assert not SCHEMA.is_empty(db, None)
        assert db.execute("SELECT count(*) FROM t7").fetchone() == (0,)
