"""Leader and followers of a launch: who is who, what they tell each other, how they end. The store is torch's own."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from torch.distributed import HashStore

from agentlab.errors import AgentlabError, DataError, Interrupted
from agentlab.runs.stop import StopFlag
from agentlab.workers import launched
from agentlab.workers.launched import follow, leading, lost_another, rank_and_size

LAUNCHED = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
Begin = Callable[[], object]


@pytest.fixture(autouse=True)
def _store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sides in this process, and little patience."""
    store = HashStore()
    monkeypatch.setattr(launched, "_store", lambda: store)
    monkeypatch.setattr(launched, "_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(launched, "_PATIENCE_SECONDS", 0.3)


class Follower:
    """Follows as rank 1 on a thread, and keeps what came of it."""

    def __init__(self, take_part: Callable[[Path, Begin], object], stop: StopFlag | None = None) -> None:
        self.code: int | None = None
        self.error: Exception | None = None
        self._take_part, self._flag = take_part, stop or StopFlag()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        try:
            self.code = follow(1, self._take_part, self._flag)
        except AgentlabError as error:
            self.error = error

    def ends_within(self, seconds: float) -> bool:
        self._thread.join(seconds)
        return not self._thread.is_alive()


def lead(error: Exception, *, called: bool = True, until: threading.Event | None = None) -> None:
    """A leader that fails."""
    with leading(2):
        if called:
            launched.call(Path("run"))
        assert until is None or until.wait(5)
        raise error


def test_launchers_say_who_is_who() -> None:
    assert rank_and_size(LAUNCHED) == (1, 2)
    assert rank_and_size({}) == (0, 1)
    for name in LAUNCHED:
        assert rank_and_size({**LAUNCHED, name: ""}) == (0, 1), f"{name} alone does not make a launch"


def test_one_process_has_nobody_to_call() -> None:
    with leading(1):
        launched.call(Path("run"))
        launched.begin()
    assert launched._store().num_keys() == 0


def test_followers_load_when_called_train_when_it_begins_and_end_with_the_leader() -> None:
    seen: list[object] = []
    loaded, trained = threading.Event(), threading.Event()

    def take_part(run: Path, begin: Begin) -> None:
        seen.append(run)
        loaded.set()
        begin()
        seen.append("trains")
        trained.set()

    follower = Follower(take_part)
    with leading(2):
        assert not loaded.wait(0.05)
        launched.call(Path("/runs/one"))
        assert loaded.wait(5)
        assert not trained.wait(0.05)
        launched.begin()
        assert trained.wait(5)
        assert not follower.ends_within(0.05), "it stays until the leader has ended"
    assert follower.ends_within(5)
    assert seen == [Path("/runs/one"), "trains"]
    assert follower.code == 0


@pytest.mark.parametrize("called", [False, True])
def test_what_ends_the_leader_is_told_by_it_alone(called: bool) -> None:
    follower = Follower(lambda _, begin: begin())
    with pytest.raises(DataError):
        lead(DataError("line 1 is not JSON"), called=called)
    assert follower.ends_within(5)
    assert (follower.code, follower.error) == (DataError.exit_code, None)


def test_what_befalls_both_is_told_by_the_leader_alone() -> None:
    failed = threading.Event()

    def take_part(run: Path, begin: Begin) -> None:
        failed.set()
        raise Interrupted("Stopped on request.")

    follower = Follower(take_part)
    with pytest.raises(Interrupted):
        lead(Interrupted("Stopped on request.", signal=15), until=failed)
    assert follower.ends_within(5)
    assert (follower.code, follower.error) == (143, None)


def test_what_befalls_a_follower_alone_is_told_by_it() -> None:
    def take_part(run: Path, begin: Begin) -> None:
        raise AgentlabError("Training ran out of memory.")

    follower = Follower(take_part)
    with leading(2):
        launched.call(Path("run"))
        assert follower.ends_within(5)
    assert isinstance(follower.error, AgentlabError)
    assert follower.error.message == "Process 1: Training ran out of memory."


def test_a_stopped_follower_does_not_wait_for_a_silent_leader() -> None:
    stop = StopFlag()
    follower = Follower(lambda _, begin: begin(), stop)
    with leading(2):
        assert not follower.ends_within(0.1)
        stop.request(15)
        assert follower.ends_within(5)
    assert isinstance(follower.error, Interrupted)
    assert follower.error.exit_code == 143


def test_a_leader_does_not_wait_for_followers_that_are_dead() -> None:
    with leading(2):
        launched.begin()


def test_a_lost_process_is_told_from_other_errors() -> None:
    assert lost_another(RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed"))
    assert not lost_another(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
