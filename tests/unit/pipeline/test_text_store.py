"""The texts of a run: one line each, whole or absent, and those of older runs from the store."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.errors import StorageError
from agentlab.pipeline import text_store as module
from agentlab.pipeline.answer import encode_text, sha_of
from agentlab.pipeline.store import Store
from agentlab.pipeline.text_store import FILE, RunTexts


def texts(folder: Path) -> RunTexts:
    return RunTexts(folder, Store(folder / "store"))


@given(st.lists(st.text(st.characters(codec=None, categories=None)), max_size=5))
def test_texts_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, strings: list[str]) -> None:
    folder = tmp_path_factory.mktemp("run")
    store = texts(folder)
    shas = [store.put(text) for text in [*strings, *strings]]
    assert shas == [sha_of(text) for text in [*strings, *strings]]
    for reader in (store, texts(folder)):
        assert [reader.text(sha) for sha in shas] == [*strings, *strings]
    assert len((folder / FILE).read_bytes().splitlines() if strings else []) == len(set(strings))


def test_halves_of_a_character_stay_halves(tmp_path: Path) -> None:
    halves = "\ud83d" + "\ude00"
    sha = texts(tmp_path).put(halves)
    assert texts(tmp_path).text(sha) == halves


def test_nothing_is_made_by_reading(tmp_path: Path) -> None:
    store = texts(tmp_path)
    for sha in (sha_of("x"), "", "../../etc/passwd"):
        assert store.text(sha) is None
    store.sync()
    assert list(tmp_path.iterdir()) == []


def test_what_is_torn_is_absent_and_written_again(tmp_path: Path) -> None:
    shas = [texts(tmp_path).put(text) for text in ("one", "two")]
    content = (tmp_path / FILE).read_bytes()
    for end in range(len(content)):
        (tmp_path / FILE).write_bytes(content[:end])
        store = texts(tmp_path)
        assert [store.text(sha) for sha in shas] in ([None, None], ["one", None])
        for text in ("two", "one", "three"):
            store.put(text)
        for reader in (store, texts(tmp_path)):
            assert [reader.text(sha_of(text)) for text in ("one", "two", "three")] == ["one", "two", "three"]


def test_a_line_that_was_changed_is_absent(tmp_path: Path) -> None:
    sha = texts(tmp_path).put("whole")
    for damage in (b"[]", b"null", b"0", b'"whale"', b"[" * 100_000, b"\xff", b'"whole"} {"a": 1'):
        (tmp_path / FILE).write_bytes(b'{"sha":"%s","text":%s}\n' % (sha.encode(), damage))
        assert texts(tmp_path).text(sha) is None
        assert texts(tmp_path).put("whole") == sha
        assert texts(tmp_path).text(sha) == "whole"


def test_lines_of_other_programs_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"# mine\n\n\xff\xfe\n" + b"x" * 10_000 + b"\n")
    sha = texts(tmp_path).put("here")
    assert texts(tmp_path).text(sha) == "here"
    assert json.loads((tmp_path / FILE).read_bytes().splitlines()[-1])["text"] == "here"


def test_a_text_of_an_older_run_is_read_from_the_store(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    sha = sha_of("as it was")
    (store.objects / sha[:2]).mkdir(parents=True)
    (store.objects / sha[:2] / sha).write_bytes(encode_text("as it was"))
    assert RunTexts(tmp_path, store).text(sha) == "as it was"
    RunTexts(tmp_path, store).put("as it was")  # a resumed one moves in
    assert RunTexts(tmp_path, Store(tmp_path / "gone")).text(sha) == "as it was"


def test_a_text_above_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 100)
    with pytest.raises(StorageError, match="too large") as caught:
        texts(tmp_path).put("x" * 101)
    assert "max_tokens" in str(caught.value.hint)


@pytest.mark.skipif(os.name == "nt", reason="has no limit of file sizes")
def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    import resource

    store = texts(tmp_path)
    sha = store.put("before")
    unbounded = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / FILE).stat().st_size + 40, unbounded[1]))
    try:
        with pytest.raises(StorageError, match="the disk is full"):
            store.put("half of it only")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unbounded)
    for reader in (store, texts(tmp_path)):
        assert reader.text(sha) == "before"
        assert reader.text(sha_of("half of it only")) is None
    after = store.put("after")
    assert texts(tmp_path).text(after) == "after"


def test_a_run_syncs_its_texts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    original = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (synced.append(file), original(file))[1])
    store = texts(tmp_path)
    for number in range(60):
        store.put(str(number))
    assert synced == []
    store.sync()
    assert len(synced) == 2  # the file and its folder
