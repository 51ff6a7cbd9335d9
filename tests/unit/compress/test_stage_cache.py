"""Files that recipes share: built once, again when damaged, and not for ever."""

import os
from pathlib import Path

import pytest
from safetensors.numpy import save_file

from agentlab.compress import stage_cache
from agentlab.compress.stage_cache import StageCache

DAY = 86_400.0


def write_tensors(path: Path) -> None:
    save_file({}, path)


def test_a_file_is_built_once_and_again_when_it_is_damaged(tmp_path: Path) -> None:
    cache, builds = StageCache(tmp_path, "base"), list[Path]()

    def build(file: Path) -> None:
        builds.append(file)
        write_tensors(file)

    for _ in range(2):
        assert cache.get("teacher.safetensors", build) == tmp_path / "base/teacher.safetensors"
    assert len(builds) == 1
    builds[0].write_bytes(b"half of i")
    cache.get("teacher.safetensors", build)
    assert len(builds) == 2
    cache.get("teacher.safetensors", build, tmp_path / "run")
    assert builds[-1] == tmp_path / "run/teacher.safetensors"


def test_a_base_whose_files_are_asked_for_is_in_use(tmp_path: Path) -> None:
    cache = StageCache(tmp_path, "base")
    cache.get("teacher.safetensors", write_tensors)
    os.utime(cache.folder, (0, 0))
    cache.get("teacher.safetensors", write_tensors)
    assert cache.folder.stat().st_mtime > DAY


def make_base(root: Path, key: str, size: int, last_use: float) -> None:
    (root / key / "statistics").mkdir(parents=True)
    (root / key / "statistics/layer").write_bytes(bytes(size))
    os.utime(root / key, (last_use, last_use))


def test_the_least_recently_used_bases_go_first_and_only_as_many_as_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_cache, "OTHERS_LIMIT", 100)
    now = 100 * DAY
    for key, size, days in (("newest", 60, 2), ("oldest", 60, 9), ("older", 60, 5), ("mine", 500, 50)):
        make_base(tmp_path, key, size, now - days * DAY)
    (tmp_path / "intensity.json").write_text("{}")
    assert StageCache(tmp_path, "mine").evict_others(now) == (2, 120)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["intensity.json", "mine", "newest"]
    assert (tmp_path / "mine").stat().st_mtime == now
    assert StageCache(tmp_path, "mine").evict_others(now) == (0, 0)


def test_what_was_used_within_a_day_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_cache, "OTHERS_LIMIT", 10)
    make_base(tmp_path, "other", 60, 99.5 * DAY)
    assert StageCache(tmp_path, "mine").evict_others(100 * DAY) == (0, 0)
    assert StageCache(tmp_path, "mine").evict_others(101 * DAY) == (1, 60)
    assert StageCache(tmp_path / "absent", "mine").evict_others(0.0) == (0, 0)
