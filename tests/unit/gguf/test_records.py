"""What loads were measured to take is kept, in bounds, and read back without trust."""

import json
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentlab.gguf.memory import MemoryShape
from agentlab.gguf.records import LoadHistory

SHAPE = MemoryShape(2048, 128, flash=True)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "loads.json"


def test_nothing_is_known_of_what_was_never_loaded(file: Path) -> None:
    assert LoadHistory(file).learned_peak("a", SHAPE) is None
    assert not file.exists()


def test_a_load_is_known_to_the_next_command(file: Path) -> None:
    LoadHistory(file).add("a", SHAPE, measured=200, estimated=190)
    assert LoadHistory(file).learned_peak("a", SHAPE) == 200
    assert LoadHistory(file).learned_peak("b", SHAPE) is None  # another file, or another build of the engine
    assert LoadHistory(file).learned_peak("a", MemoryShape(4096, 128, flash=True)) is None


def test_the_95th_percentile_leaves_out_one_freak_in_twenty_and_not_two(file: Path) -> None:
    history = LoadHistory(file)
    for peak in [*range(101, 120), 900]:
        history.add("a", SHAPE, peak, 100)
    assert history.learned_peak("a", SHAPE) == 119
    history.add("a", SHAPE, 900, 100)
    assert history.learned_peak("a", SHAPE) == 900


def test_old_loads_are_forgotten(file: Path) -> None:
    history = LoadHistory(file)
    for peak in range(1000, 900, -1):
        history.add("a", SHAPE, peak, 1)
    assert history.learned_peak("a", SHAPE) == 931  # 32 are kept, 901 to 932
    assert file.stat().st_size < 4096


def test_only_so_many_models_are_kept_and_the_oldest_goes(file: Path) -> None:
    file.parent.mkdir()
    names = [f"model{number} 2048 128 True f16 0 True" for number in range(600)]
    file.write_text(json.dumps({name: [[5, 5]] for name in names}))
    LoadHistory(file).add("new", SHAPE, 7, 7)
    entries = json.loads(file.read_text())
    assert len(entries) == 512
    assert LoadHistory(file).learned_peak("model0", SHAPE) is None
    assert LoadHistory(file).learned_peak("model599", SHAPE) == 5
    assert LoadHistory(file).learned_peak("new", SHAPE) == 7


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode), st.just(b"[" * 100_000)))
def test_a_damaged_file_is_an_empty_one(file: Path, content: bytes) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    assert LoadHistory(file).learned_peak("a", SHAPE) is None
    LoadHistory(file).add("a", SHAPE, 3, 3)
    assert LoadHistory(file).learned_peak("a", SHAPE) == 3


@pytest.mark.parametrize("value", [7, "x", None, {}, [7], [[1]], [[1, "2"]], [[True, 2]], [[-1, 2]], [[1.5, 2]]])
def test_what_is_no_load_is_left_out(file: Path, value: object) -> None:
    file.parent.mkdir()
    file.write_text(json.dumps({"a 2048 128 True f16 0 True": value}))
    assert LoadHistory(file).learned_peak("a", SHAPE) is None


def test_several_writers_never_leave_a_torn_file(file: Path) -> None:
    def write(name: str) -> None:
        for peak in range(1, 20):
            LoadHistory(file).add(name, SHAPE, peak, 1)

    writers = [threading.Thread(target=write, args=(name,)) for name in "abc"]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        if file.exists():
            assert isinstance(json.loads(file.read_text()), dict)
    for writer in writers:
        writer.join()
    assert any(LoadHistory(file).learned_peak(name, SHAPE) for name in "abc")


def test_a_place_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file is in the way")
    history = LoadHistory(tmp_path / "state" / "loads.json")
    history.add("a", SHAPE, 1, 1)
    assert history.learned_peak("a", SHAPE) is None
