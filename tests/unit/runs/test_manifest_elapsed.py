"""How long a run took: what its sessions wrote down, and for one that was killed what its events tell."""

import json
from pathlib import Path

import pytest

from agentlab.commands import COMMANDS
from agentlab.runs.events import Event
from agentlab.runs.run import OpenRun, RunEnvironment, RunOutcome, RunSpec
from agentlab.runs.store import find, list_runs
from agentlab.runs.views import RunList, RunView

SPEC = RunSpec(command="nas", config_yaml="seed: 0\n", source_yaml="{}\n", config_hash="abc", seed=0, name="mine")


class Clock:
    """Moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def killed(folder: Path, clock: Clock, *seconds: float) -> Path:
    """A run that ended without a word so many seconds after its start, with an event at each of these."""
    with OpenRun.create(folder, SPEC, RunEnvironment(clock=clock)) as run:
        run.start({})
        start_time = clock.now
        for moment in seconds:
            clock.now = start_time + moment
            run.emit("trial.epoch", "run_0000")
    clock.now += 1000  # nobody was there
    return run.path


def shown(folder: Path) -> str:
    view = RunView.of(find(folder, "mine"), None)
    return dict(row for block in view.blocks() if hasattr(block, "rows") for row in block.rows)["time"]


def test_a_killed_run_took_as_long_as_its_events_tell(tmp_path: Path) -> None:
    killed(tmp_path, Clock(), 2.0, 7.5)
    assert find(tmp_path, "mine").seconds == 7.5
    assert shown(tmp_path) == "7.5 s up to the last event"
    assert [line.seconds for line in RunList.of(list_runs(tmp_path), command=None, status=None).runs] == [7.5]


def test_going_on_adds_the_session_that_was_killed(tmp_path: Path) -> None:
    clock = Clock()
    path = killed(tmp_path, clock, 7.5)
    with OpenRun.resume(path, RunEnvironment(clock=clock)) as resumed:
        resumed.start({})
        clock.now += 3
        resumed.emit("trial.epoch", "run_0000")
        assert find(tmp_path, "mine").seconds == 10.5
        clock.now += 1
        resumed.complete(RunOutcome())
    assert json.loads((path / "manifest.json").read_text())["seconds"] == 11.5
    assert shown(tmp_path) == "11.5 s, resumed 1x"


def test_a_resume_killed_before_it_could_say_so_counts_nothing_twice(tmp_path: Path) -> None:
    clock = Clock()
    path = killed(tmp_path, clock, 7.5)
    with OpenRun.resume(path, RunEnvironment(clock=clock)) as resumed:
        resumed.start({})
    events = (path / "events.jsonl").read_bytes()
    (path / "events.jsonl").write_bytes(b"".join(events.splitlines(keepends=True)[:-1]))  # without `run.resumed`
    assert find(tmp_path, "mine").seconds == 7.5


def test_a_run_killed_before_its_first_event_took_no_time(tmp_path: Path) -> None:
    OpenRun.create(tmp_path, SPEC, RunEnvironment()).close()
    assert (find(tmp_path, "mine").seconds, shown(tmp_path)) == (0.0, "0.0 s")


@pytest.mark.parametrize("damage", [b"nonsense\n" * 2, b""])
def test_a_run_whose_events_tell_nothing_is_listed_all_the_same(tmp_path: Path, damage: bytes) -> None:
    path = killed(tmp_path, Clock(), 5.0)
    (path / "events.jsonl").write_bytes(damage)
    assert [line.seconds for line in RunList.of(list_runs(tmp_path), command=None, status=None).runs] == [0.0]
    assert not COMMANDS["nas"].was_reviewed(find(tmp_path, "mine").known_events())


def test_a_clock_that_was_put_back_takes_nothing_away(tmp_path: Path) -> None:
    killed(tmp_path, Clock(), -60.0)
    assert find(tmp_path, "mine").seconds == 0.0


@pytest.mark.parametrize("moment", ["NaN", "Infinity", "1" + "0" * 400, '"soon"', "null"])
def test_an_event_without_a_moment_is_none(moment: str) -> None:
    with pytest.raises(ValueError, match="not an event"):
        Event.from_json(f'{{"v":1,"seq":0,"t":{moment},"type":"a.b","id":"","data":{{}}}}')


@pytest.mark.parametrize("wrong", [{"v": [1]}, {"seq": "0"}, {"seq": True}, {"type": None}, {"id": []}, {"data": []}])
def test_an_event_with_a_field_of_another_kind_is_none(wrong: dict[str, object]) -> None:
    fields = {"v": 1, "seq": 0, "t": 0, "type": "a.b", "id": "", "data": {}}
    assert Event.from_json(json.dumps(fields)).seq == 0
    with pytest.raises(ValueError, match="wrong type"):
        Event.from_json(json.dumps(fields | wrong))
