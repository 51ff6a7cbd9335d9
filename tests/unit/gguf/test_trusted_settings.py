"""Fast settings are used where they were seen to be sound, on real files with the real library or a faulty one."""

import json
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agentlab.config.workspace import Workspace
from agentlab.errors import LLMCancelledError, WorkerDiedError
from agentlab.gguf import trusted_settings as module
from agentlab.gguf.engine import EngineConfig
from agentlab.gguf.process import WorkerEngine
from agentlab.gguf.trusted_settings import Proofs, disagreement, name_of, plain
from agentlab.workers.chat import EngineRequest
from tests.unit.gguf.generated import break_library, write_qwen2

ASK = EngineRequest([{"role": "user", "content": "Why?"}], max_tokens=4)
BOTH, REPACK, FLASH = "repacked weights and flash attention", "repacked weights", "flash attention"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_qwen2(tmp_path_factory.mktemp("models") / "qwen2.gguf")


@pytest.fixture
def wish(model: Path) -> EngineConfig:
    return EngineConfig(model, context=256, flash=True, repack=True)


@pytest.fixture
def proofs(tmp_path: Path) -> Proofs:
    return Proofs(tmp_path / "kept")


@pytest.fixture
def engine(wish: EngineConfig, proofs: Proofs) -> Iterator[WorkerEngine]:
    engine = WorkerEngine(wish, proofs)
    yield engine
    engine.close()


def test_a_sound_library_is_tried_once_and_used_as_fast_as_it_is(
    wish: EngineConfig, proofs: Proofs, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert proofs.known_settings(wish) == plain(wish)  # until it is proven
    settings = proofs.settle(wish)
    assert proofs.verdicts(wish)[name_of(settings)] == ""
    monkeypatch.setattr(module, "Channel", None)  # nobody is asked again
    assert proofs.settle(wish) == proofs.known_settings(wish) == settings


def test_what_dies_is_not_used_and_the_answer_comes_all_the_same(
    wish: EngineConfig, proofs: Proofs, engine: WorkerEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_library(tmp_path / "amx", monkeypatch, "dies")
    assert list(engine.chat(ASK))[-1].completion_tokens == 4
    assert name_of(engine.used) == FLASH
    assert proofs.verdicts(wish) == {BOTH: "it dies (SIGILL)", REPACK: "it dies (SIGILL)", FLASH: ""}
    without = replace(wish, flash=False)
    assert proofs.settle(without) == plain(without)


def test_what_answers_nonsense_to_short_prompts_is_not_used(
    wish: EngineConfig, proofs: Proofs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_library(tmp_path / "nonsense", monkeypatch, "nonsense")
    assert name_of(proofs.settle(wish)) == REPACK
    assert "disagrees with the plain settings" in proofs.verdicts(wish)[BOTH]


def test_a_death_in_use_is_told_remembered_and_followed_by_an_answer(
    wish: EngineConfig, proofs: Proofs, engine: WorkerEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flag = break_library(tmp_path / "later", monkeypatch, "dies later")
    before = "".join(chunk.text for chunk in engine.chat(ASK))
    assert before
    assert engine.used.repack
    flag.touch()
    with pytest.raises(WorkerDiedError, match="SIGILL") as caught:
        list(engine.chat(ASK))
    assert "plain settings from now on" in (caught.value.hint or "")
    assert list(engine.chat(ASK))[-1].finish
    assert engine.used == plain(wish)
    assert proofs.settle(wish) == proofs.known_settings(wish) == plain(wish)
    assert set(proofs.verdicts(wish).values()) == {"it died in use (SIGILL)"}


def test_a_library_that_always_dies_proves_nothing_and_names_a_build_that_helps(
    wish: EngineConfig, proofs: Proofs, engine: WorkerEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_library(tmp_path / "broken", monkeypatch, "always dies")
    with pytest.raises(WorkerDiedError, match="SIGILL") as caught:
        list(engine.chat(ASK))
    assert "-DGGML_NATIVE=off" in (caught.value.hint or "")
    assert "--no-cache-dir" in (caught.value.hint or "")
    assert proofs.verdicts(wish) == {}


def test_what_cannot_be_tried_is_tried_once(
    wish: EngineConfig, proofs: Proofs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_library(tmp_path / "broken", monkeypatch, "always dies")
    started: list[str] = []

    class Counted(module.Channel):
        def __init__(self, name: str, variables: Mapping[str, str]) -> None:
            started.append(name)
            super().__init__(name, variables)

    monkeypatch.setattr(module, "Channel", Counted)
    assert proofs.settle(wish) == plain(wish)
    assert len(started) == 1


def test_a_cache_of_fewer_bits_keeps_flash_attention(wish: EngineConfig) -> None:
    assert plain(replace(wish, kv_type="q8_0")) == replace(wish, kv_type="q8_0", repack=False)


def test_trying_can_be_cancelled_and_is_no_verdict(wish: EngineConfig, proofs: Proofs) -> None:
    with pytest.raises(LLMCancelledError):
        proofs.settle(wish, lambda: True)
    assert proofs.verdicts(wish) == {}


def test_what_takes_too_long_is_not_used(wish: EngineConfig, proofs: Proofs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SECONDS", 0.01)
    began = time.monotonic()
    assert proofs.settle(wish) == plain(wish)
    assert time.monotonic() - began < 3


def test_two_at_once_leave_a_whole_record(wish: EngineConfig, proofs: Proofs) -> None:
    threads = [threading.Thread(target=proofs.settle, args=(wish,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert proofs.verdicts(wish)
    assert json.loads((proofs.folder / "proofs.json").read_text())


def test_another_file_or_batch_is_another_proof(wish: EngineConfig, proofs: Proofs, tmp_path: Path) -> None:
    proofs.distrust(wish, "it died in use (SIGSEGV)")
    assert set(proofs.verdicts(wish)) == {BOTH, REPACK, FLASH}
    assert proofs.verdicts(replace(wish, batch=64)) == {}
    longer_file = tmp_path / "other.gguf"
    longer_file.write_bytes(wish.path.read_bytes() + b"\0")
    assert proofs.verdicts(replace(wish, path=longer_file)) == {}


@pytest.mark.parametrize("content", ["", "[]", '{"x": 1}', "\0", '{"nothing": {"a": []}}'])
def test_a_damaged_record_is_none(wish: EngineConfig, proofs: Proofs, content: str) -> None:
    proofs.folder.mkdir()
    (proofs.folder / "proofs.json").write_text(content)
    assert proofs.known_settings(wish) == plain(wish)


def test_it_is_kept_in_the_users_cache_or_else_in_the_workspace(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert Proofs.of(Workspace(home, tmp_path / "cache")).folder == tmp_path / "cache" / ".agentlab" / "gguf"
    assert Proofs.of(Workspace(home, Path("/proc/1/cache"))).folder == home / ".agentlab" / "gguf"


ROW = np.random.default_rng(1).standard_normal(1000).astype(np.float32) * 3


def test_rounding_is_no_disagreement() -> None:
    noise = np.random.default_rng(2).standard_normal(1000).astype(np.float32)
    assert disagreement(ROW, ROW + noise * 0.1) is None
    near = ROW.copy()
    near[[3, 4]] = ROW.max() + 1
    swapped = near.copy()
    swapped[4] += 0.2  # another token leads, by less than a tiny gap
    assert disagreement(near, swapped) is None
    assert disagreement(ROW, ROW + 1000) is None  # what all logits share means nothing


@pytest.mark.parametrize(
    "logits",
    [ROW[::-1], np.zeros_like(ROW), np.full_like(ROW, np.nan), -ROW, np.where(ROW.max() == ROW, np.inf, ROW)],
    ids=["turned", "flat", "nan", "negated", "infinite"],
)
def test_other_words_are_a_disagreement(logits: "np.ndarray[tuple[int], np.dtype[np.float32]]") -> None:
    assert disagreement(ROW, logits.astype(np.float32))
