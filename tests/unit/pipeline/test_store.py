"""The store: what was kept comes back, what is damaged is absent, nothing that is in use is removed."""

import json
import multiprocessing
import os
import stat
import time
from dataclasses import replace
from pathlib import Path

import pytest

from agentlab.errors import StorageError
from agentlab.pipeline import store as module
from agentlab.pipeline.answer import PipelineAnswer, PipelineQuestion, encode_text, key_of, sha_of
from agentlab.pipeline.store import Freed, Store, gc
from agentlab.runs.atomic import is_temporary

ASKED = PipelineQuestion((("user", "Why?"),), "small", "sha256:00", {"batch": 128}, 0.0, None, 16, 7)
ANSWER = PipelineAnswer("Because.", "stop", "small", prompt_tokens=9, completion_tokens=2, decode_seconds=0.25)
KEY = key_of(ASKED)
DAY = 86_400.0


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("sha", ["", "0" * 64, "../../../../etc/passwd", "0" * 63, "G" * 64, "0" * 64 + "\n"])
def test_a_name_that_is_nobodys_hash_is_absent(tmp_path: Path, sha: str) -> None:
    assert Store(tmp_path).text(sha) is None


def object_of(store: Store, text: str) -> Path:
    """A text as earlier versions kept it."""
    path = store.objects / sha_of(text)[:2] / sha_of(text)
    path.parent.mkdir(parents=True)
    path.write_bytes(encode_text(text))
    return path


def test_nothing_is_made_by_reading(tmp_path: Path) -> None:
    store = Store(tmp_path / "pipeline")
    assert store.text(sha_of("x")) is None
    assert store.recall(KEY) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", [b"", b"whol", b"whole ", b"Whole", b"\0" * 5, b"\xff\xfe", b"\xed\xa0"])
def test_a_text_of_an_older_run_is_read_and_a_damaged_one_absent(tmp_path: Path, damage: bytes) -> None:
    store = Store(tmp_path)
    path = object_of(store, "whole")
    assert store.text(sha_of("whole")) == "whole"
    path.write_bytes(damage)
    assert store.text(sha_of("whole")) is None


def test_an_answer_comes_back_as_it_was(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.remember(KEY, ASKED, ANSWER)
    assert store.recall(KEY) == ANSWER
    assert store.recall(key_of(replace(ASKED, seed=8))) is None


def test_the_file_of_an_answer_tells_what_was_asked(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.remember(KEY, ASKED, ANSWER)
    content = json.loads((store.answers / KEY[:2] / f"{KEY}.json").read_text())
    assert content["asked"] == ASKED.summary()
    assert content["answer"]["prompt_tokens"] == 9


def test_the_newest_answer_holds(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.remember(KEY, ASKED, ANSWER)
    store.remember(KEY, ASKED, replace(ANSWER, text="half \ud83d of 日本"))
    assert store.recall(KEY) == replace(ANSWER, text="half \ud83d of 日本")


def test_an_answer_that_was_changed_anywhere_is_absent(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.remember(KEY, ASKED, ANSWER)
    path = store.answers / KEY[:2] / f"{KEY}.json"
    content = path.read_bytes()
    for offset in range(0, len(content), 9):
        path.write_bytes(content[:offset] + bytes([content[offset] ^ 1]) + content[offset + 1 :])
        assert store.recall(KEY) is None, content[offset : offset + 20]
    for torn in (b"", b"\0" * len(content), content[:-1], b"[]", b"null", b"{}", b"[" * 100_000):
        path.write_bytes(torn)
        assert store.recall(KEY) is None


def test_an_answer_under_another_questions_key_is_absent(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.remember(KEY, ASKED, ANSWER)
    other_key = KEY[:2] + "0" * 62
    (store.answers / KEY[:2] / f"{KEY}.json").rename(store.answers / KEY[:2] / f"{other_key}.json")
    assert store.recall(other_key) is None


def test_an_answer_costs_one_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    store.remember(KEY, ASKED, ANSWER)
    opened: list[Path] = []
    original = module.open_file
    monkeypatch.setattr(module, "open_file", lambda path: (opened.append(path), original(path))[1])
    assert store.recall(KEY) is not None
    assert opened == [store.answers / KEY[:2] / f"{KEY}.json"]


def test_a_file_above_the_limit_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    object_of(store, "x" * 101)
    store.remember(KEY, ASKED, ANSWER)
    monkeypatch.setattr(module, "_MOST_BYTES", 100)
    assert store.text(sha_of("x" * 101)) is None
    assert store.recall(KEY) is None


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="rights do not bind this user")
def test_a_store_that_may_only_be_read_is_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.remember(KEY, ASKED, ANSWER)
    folders = [path for path in tmp_path.rglob("*") if path.is_dir()]
    for folder in folders:
        folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        assert store.recall(KEY) == ANSWER
        with pytest.raises(StorageError, match="permission"):
            store.remember(KEY, ASKED, ANSWER)
    finally:
        for folder in folders:
            folder.chmod(stat.S_IRWXU)


def _write_all(root: Path) -> None:
    store = Store(root)
    for seed in range(40):
        question = replace(ASKED, seed=seed)
        store.remember(key_of(question), question, replace(ANSWER, text=f"answer {seed % 5}"))
        assert store.recall(key_of(question)) is not None


def test_processes_write_the_same_answers_at_once(tmp_path: Path) -> None:
    start = multiprocessing.get_context("spawn")
    processes = [start.Process(target=_write_all, args=(tmp_path,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(_files(tmp_path)) == 40


def _write_on(root: Path) -> None:
    store, seed = Store(root), 0
    while True:
        question = replace(ASKED, seed=seed)
        store.remember(key_of(question), question, replace(ANSWER, text=f"{seed} " * 10_000))
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
    assert len(written) >= 20
    assert all(store.recall(path.stem) is not None for path in written)


def _age(folder: Path, seconds: float, now: float) -> None:
    for path in _files(folder):
        os.utime(path, (now - seconds, now - seconds))


def test_gc_removes_what_nobody_used_of_late(tmp_path: Path) -> None:
    store, now = Store(tmp_path), 1_000_000_000.0
    store.remember(KEY, ASKED, ANSWER)
    size = _files(tmp_path)[0].stat().st_size
    _age(tmp_path, 2 * DAY, now)
    young = replace(ASKED, seed=8)
    store.remember(key_of(young), young, ANSWER)
    freed = gc(store, DAY, now)
    assert freed == Freed(answers=1, bytes=size)
    assert "Removed 1 answers" in str(freed.blocks()[0])
    assert store.recall(KEY) is None
    assert store.recall(key_of(young)) == ANSWER


def test_gc_leaves_the_texts_of_older_runs_which_have_no_other_copy(tmp_path: Path) -> None:
    store = Store(tmp_path)
    object_of(store, "the only copy")
    assert gc(store, 0.0, now=1e12) == Freed(answers=0, bytes=0)
    assert store.text(sha_of("the only copy")) == "the only copy"


def test_what_is_used_again_is_young_again(tmp_path: Path) -> None:
    store, now = Store(tmp_path), 1_000_000_000.0
    store.remember(KEY, ASKED, ANSWER)
    _age(tmp_path, 2 * DAY, now)
    assert store.recall(KEY) is not None
    assert gc(store, DAY, now) == Freed(answers=0, bytes=0)


def test_gc_removes_torn_files_and_what_a_kill_left(tmp_path: Path) -> None:
    store, now = Store(tmp_path), 1_000_000_000.0
    store.remember(KEY, ASKED, ANSWER)
    path = store.answers / KEY[:2] / f"{KEY}.json"
    path.write_bytes(b"torn")
    leftover = path.with_name(f".{path.name}.0123abcd.tmp")
    leftover.write_bytes(b"half")
    _age(tmp_path, 2 * DAY, now)
    assert gc(store, DAY, now) == Freed(answers=1, bytes=8)
    assert not leftover.exists()


def test_gc_removes_answers_alone(tmp_path: Path) -> None:
    """What lies there under another name is not ours, nor what a link leads to."""
    store, linked_folder = Store(tmp_path / "store"), tmp_path / "kept"
    store.remember(KEY, ASKED, ANSWER)
    linked_folder.mkdir()
    folder = store.answers / KEY[:2]
    foreign = [
        folder / "notes.txt",
        folder / "notes.json",
        folder / f"{KEY}.md",
        folder / ".notes.tmp",
        linked_folder / f"{KEY}.json",
    ]
    for path in foreign:
        path.write_text("mine")
    (store.answers / ("00" if KEY[:2] != "00" else "11")).symlink_to(linked_folder)
    assert gc(store, 0.0, now=1e12).answers == 1
    assert all(path.exists() for path in foreign)
