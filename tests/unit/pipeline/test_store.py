"""The store: what was kept comes back, what is damaged is absent, nothing that is in use is removed."""

import json
import multiprocessing
import os
import stat
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from agentlab.errors import StorageError
from agentlab.pipeline import store as module
from agentlab.pipeline.answer import Answer, Asked, key_of, sha_of
from agentlab.pipeline.store import Freed, Store, gc
from agentlab.runs.atomic import is_temporary

ASKED = Asked((("user", "Why?"),), "small", "sha256:00", {"batch": 128}, 0.0, None, 16, 7)
ANSWER = Answer("Because.", "stop", "small", prompt_tokens=9, completion_tokens=2, decode_seconds=0.25)
KEY = key_of(ASKED)
DAY = 86_400.0


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("text", ["", "plain", "naïve 日本 \U0001f600", "half \ud83d", "a\r\nb\x00c", "x" * 100_000])
def test_a_text_comes_back_as_it_was(tmp_path: Path, text: str) -> None:
    store = Store(tmp_path / "pipeline")
    sha = store.put(text)
    assert sha == sha_of(text)
    assert store.text(sha) == text
    assert _files(tmp_path) == [tmp_path / "pipeline" / "objects" / sha[:2] / sha]


def test_a_text_is_kept_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = store.objects / store.put("same")[:2] / sha_of("same")
    written = path.stat().st_ino
    store.put("same")
    assert path.stat().st_ino == written


@pytest.mark.parametrize("sha", ["", "0" * 64, "../../../../etc/passwd", "0" * 63, "G" * 64, "0" * 64 + "\n"])
def test_a_name_that_is_nobodys_hash_is_absent(tmp_path: Path, sha: str) -> None:
    assert Store(tmp_path).text(sha) is None


def test_nothing_is_made_by_reading(tmp_path: Path) -> None:
    store = Store(tmp_path / "pipeline")
    assert store.text(sha_of("x")) is None
    assert store.recall(KEY) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", [b"", b"whol", b"whole ", b"Whole", b"\0" * 5, b"\xff\xfe", b"\xed\xa0"])
def test_a_damaged_object_is_absent_and_mended_by_the_next_put(tmp_path: Path, damage: bytes) -> None:
    store = Store(tmp_path)
    sha = store.put("whole")
    (store.objects / sha[:2] / sha).write_bytes(damage)
    assert store.text(sha) is None
    assert store.put("whole") == sha
    assert store.text(sha) == "whole"


def test_an_answer_comes_back_as_it_was(tmp_path: Path) -> None:
    store = Store(tmp_path)
    sha = store.remember(KEY, ASKED, ANSWER)
    assert store.recall(KEY) == (ANSWER, sha)
    assert store.text(sha) == "Because."
    assert store.recall(key_of(replace(ASKED, seed=8))) is None


def test_the_file_of_an_answer_tells_what_was_asked(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.remember(KEY, ASKED, ANSWER)
    kept = json.loads((store.answers / KEY[:2] / f"{KEY}.json").read_text())
    assert kept["asked"] == ASKED.summary()
    assert kept["answer"]["prompt_tokens"] == 9


def test_the_newest_answer_holds_and_the_older_text_stays_for_the_runs_that_name_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    old = store.remember(KEY, ASKED, ANSWER)
    new = store.remember(KEY, ASKED, replace(ANSWER, text="Therefore."))
    assert store.recall(KEY) == (replace(ANSWER, text="Therefore."), new)
    assert store.text(old) == "Because."


def test_an_answer_that_was_changed_anywhere_is_absent(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.remember(KEY, ASKED, ANSWER)
    path = store.answers / KEY[:2] / f"{KEY}.json"
    whole = path.read_bytes()
    for place in range(0, len(whole), 9):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert store.recall(KEY) is None, whole[place : place + 20]
    for torn in (b"", b"\0" * len(whole), whole[:-1], b"[]", b"null", b"{}", b"[" * 100_000):
        path.write_bytes(torn)
        assert store.recall(KEY) is None


def test_an_answer_under_another_questions_key_is_absent(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.remember(KEY, ASKED, ANSWER)
    other = KEY[:2] + "0" * 62
    (store.answers / KEY[:2] / f"{KEY}.json").rename(store.answers / KEY[:2] / f"{other}.json")
    assert store.recall(other) is None


def test_an_answer_brings_its_object_back(tmp_path: Path) -> None:
    store = Store(tmp_path)
    sha = store.remember(KEY, ASKED, ANSWER)
    (store.objects / sha[:2] / sha).unlink()
    assert store.recall(KEY) == (ANSWER, sha)
    assert store.text(sha) == "Because."


def test_an_answer_costs_one_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    store.remember(KEY, ASKED, ANSWER)
    opened: list[Path] = []
    original = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *how: (opened.append(path), original(path, *how))[1])
    assert store.recall(KEY) is not None
    assert opened == [store.answers / KEY[:2] / f"{KEY}.json"]


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc which files they are")
def test_a_run_syncs_its_texts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "pipeline")
    synced: list[Path] = []
    original = os.fsync

    def noting(file: int) -> None:
        synced.append(Path(f"/proc/self/fd/{file}").readlink())
        original(file)

    monkeypatch.setattr(os, "fsync", noting)
    sha = store.remember(KEY, ASKED, ANSWER)
    assert synced == []
    store.sync([sha, sha, "0" * 64, "no hash"])
    path = store.objects / sha[:2] / sha
    assert synced == [path, path.parent, store.objects, tmp_path / "pipeline", tmp_path]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it may return before the writing is done")
def test_many_texts_are_synced_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    shas = [store.put(str(number)) for number in range(60)]
    called: list[bool] = []
    monkeypatch.setattr(os, "sync", lambda: called.append(True))
    store.sync(shas)
    assert called == [True]
    store.sync(shas[:10])
    assert called == [True]


def test_a_text_above_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 100)
    with pytest.raises(StorageError, match="too large"):
        Store(tmp_path).put("x" * 101)


def test_a_file_above_the_limit_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    sha = store.put("x" * 101)
    monkeypatch.setattr(module, "MOST_BYTES", 100)
    assert store.text(sha) is None


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="rights do not bind this user")
def test_a_store_that_may_only_be_read_is_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    sha = store.remember(KEY, ASKED, ANSWER)
    folders = [path for path in tmp_path.rglob("*") if path.is_dir()]
    for folder in folders:
        folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        assert store.recall(KEY) == (ANSWER, sha)
        with pytest.raises(StorageError, match="permission"):
            store.put("new")
    finally:
        for folder in folders:
            folder.chmod(stat.S_IRWXU)


def _write_all(root: Path) -> None:
    store = Store(root)
    for seed in range(40):
        asked = replace(ASKED, seed=seed)
        store.remember(key_of(asked), asked, replace(ANSWER, text=f"answer {seed % 5}"))
        assert store.recall(key_of(asked)) is not None


def test_processes_write_the_same_answers_at_once(tmp_path: Path) -> None:
    start = multiprocessing.get_context("spawn")
    processes = [start.Process(target=_write_all, args=(tmp_path,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(_files(tmp_path)) == 40 + 5


def _write_on(root: Path) -> None:
    store, seed = Store(root), 0
    while True:
        asked = replace(ASKED, seed=seed)
        store.remember(key_of(asked), asked, replace(ANSWER, text=f"{seed} " * 10_000))
        seed += 1


def test_a_kill_leaves_whole_files_or_none(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_write_on, args=(tmp_path,))
    process.start()
    deadline = time.monotonic() + 30
    while len(list(tmp_path.glob("answers/??/*.json"))) < 20 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.join()
    store = Store(tmp_path)
    written = [path for path in _files(tmp_path) if not is_temporary(path)]
    assert len(written) >= 40
    for path in written:
        found = store.recall(path.stem) if path.suffix else store.text(path.name)
        assert found is not None


def _age(folder: Path, seconds: float, now: float) -> None:
    for path in _files(folder):
        os.utime(path, (now - seconds, now - seconds))


def test_gc_removes_what_is_old_and_in_no_run(tmp_path: Path) -> None:
    store, now = Store(tmp_path), 1_000_000_000.0
    kept, gone = store.put("kept"), store.put("gone")
    answered = store.remember(KEY, ASKED, ANSWER)
    bytes_before = sum(path.stat().st_size for path in _files(tmp_path))
    _age(tmp_path, 2 * DAY, now)
    freed = gc(store, {kept}, DAY, now)
    assert freed == Freed(objects=2, answers=1, bytes=bytes_before - len("kept"))
    assert "2 texts and 1 answers" in str(freed.blocks()[0])
    assert store.text(kept) == "kept"
    assert store.text(gone) is None
    assert store.text(answered) is None
    assert store.recall(KEY) is None


def test_folders_of_runs_are_remembered_once(tmp_path: Path) -> None:
    store = Store(tmp_path / "pipeline")
    assert store.users() == []
    for name in ("one", "two", "one", "half \udcff", "two/../one"):
        store.used_by(tmp_path / name)
    assert sorted(store.users()) == sorted(tmp_path / name for name in ("one", "two", "half \udcff"))
    assert gc(store, set(), 0.0, now=1e12) == Freed(objects=0, answers=0, bytes=0)
    assert len(store.users()) == 3


def test_a_damaged_note_of_a_folder_is_written_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "pipeline")
    store.used_by(tmp_path / "one")
    (note,) = _files(tmp_path)
    note.write_bytes(b"torn")
    assert store.users() == []
    store.used_by(tmp_path / "one")
    assert store.users() == [tmp_path / "one"]


def test_gc_keeps_what_a_run_names_and_what_is_young(tmp_path: Path) -> None:
    store, now = Store(tmp_path), 1_000_000_000.0
    named = store.remember(KEY, ASKED, ANSWER)
    _age(tmp_path, 2 * DAY, now)
    young = store.put("young")
    os.utime(store.objects / young[:2] / young, (now - 10, now - 10))
    assert gc(store, {named}, DAY, now) == Freed(objects=0, answers=0, bytes=0)


def test_what_is_used_again_is_young_again(tmp_path: Path) -> None:
    """A run that just found an old text or answer names it a moment later."""
    store, now = Store(tmp_path), 1_000_000_000.0
    store.remember(KEY, ASKED, ANSWER)
    again = store.put("again")
    _age(tmp_path, 2 * DAY, now)
    store.put("again")
    assert store.recall(KEY) is not None
    assert gc(store, set(), DAY, now) == Freed(objects=0, answers=0, bytes=0)
    assert store.text(again) == "again"


def test_gc_removes_torn_files_and_what_a_kill_left(tmp_path: Path) -> None:
    store, now = Store(tmp_path), 1_000_000_000.0
    named = store.remember(KEY, ASKED, ANSWER)
    (store.answers / KEY[:2] / f"{KEY}.json").write_bytes(b"torn")
    left = store.objects / named[:2] / f".{named}.0123abcd.tmp"
    left.write_bytes(b"half")
    _age(tmp_path, 2 * DAY, now)
    assert gc(store, {named}, DAY, now) == Freed(objects=0, answers=1, bytes=8)
    assert not left.exists()
