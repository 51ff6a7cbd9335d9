"""The processes that `accelerate launch` or `torchrun` starts for one training: the first leads, the others follow.

The leader does all that one process would do. The others wait for its word, load the same base, take part in the
training and end with the leader's exit code. They hear of it through the key-value store of the launch and not through
collectives, which give up on a process that is late: the leader may import, score and write for as long as it takes.
"""

import contextlib
import ctypes
import importlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path
from typing import Any

from agentlab.errors import AgentlabError, Interrupted
from agentlab.runs.context import Context
from agentlab.runs.stop import StopFlag

_RUN, _BEGIN, _END, _LEFT = "run", "begin", "end", "left"
_PAUSE_SECONDS = 0.1
_PATIENCE_SECONDS = 5.0  # for a last word; the launcher kills what is left 30 s after a signal or a failure
_CONNECT_SECONDS = 300.0
_FAILED = 1
_LOST = "gloo/transport"  # how gloo says it, in a RuntimeError
_PR_SET_PDEATHSIG = 1
RESUME = "For the cause, see its output. Continue with --resume and the same number of processes."

TakePart = Callable[[Path, Callable[[], object]], object]
CapabilityPart = Callable[[Path, Callable[[], object], Context], object]
_leader: ContextVar["_Leader | None"] = ContextVar("leader", default=None)  # a launch is this process's own


def rank_and_size(env: Mapping[str, str]) -> tuple[int, int]:
    """This process's rank and how many there are, as launchers say it; (0, 1) where none has started it."""
    rank, size = env.get("RANK", ""), env.get("WORLD_SIZE", "")
    launched = rank.isdecimal() and size.isdecimal() and env.get("MASTER_ADDR") and env.get("MASTER_PORT")
    return (int(rank), int(size)) if launched else (0, 1)


def stop_with_launcher(env: Mapping[str, str], stop: StopFlag) -> None:
    """Stop, as after TERM, when the launcher is killed and can no longer say so (Linux, torch's launcher).

    The kernel tells it by a signal of its own: it sends one for each of the launcher's threads, and a second TERM would
    mean to leave at once.
    """
    if sys.platform == "linux" and "TORCHELASTIC_RUN_ID" in env:
        signal.signal(signal.SIGUSR1, lambda *_: stop.request(signal.SIGTERM))
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGUSR1)


def lost_another(error: BaseException) -> bool:
    """Whether an operation that takes all processes failed because another one has ended."""
    from torch import distributed

    return isinstance(error, distributed.DistError) or _LOST in str(error)


@contextlib.contextmanager
def one_leads(
    context: Context,
    load_take_part: Callable[[], CapabilityPart],
    watching: Callable[[], AbstractContextManager[object]],
) -> Iterator[None]:
    """Carry out the `with` block in one process of a launch. The others take part in its work, and exit in here.

    `watching`: what a process that takes part has around its work.
    """
    rank, size = rank_and_size(context.env)
    if size > 1:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # torch warns past Python of what is as it should be
        stop_with_launcher(context.env, context.stop)
    if rank > 0:
        take_part = load_take_part()
        with watching():
            sys.exit(follow(rank, lambda run, begin: take_part(run, begin, context), context.stop))
    with leading(size):
        yield


@contextlib.contextmanager
def leading(size: int) -> Iterator[None]:
    """What the process of rank 0 does inside the `with` block is all that is done; the others end with it."""
    if size == 1:
        yield
        return
    leader, code = _Leader(size), 0
    before = _leader.set(leader)
    try:
        yield
    except BaseException as error:
        code = getattr(error, "exit_code", _FAILED)
        raise
    finally:
        _leader.reset(before)
        leader.dismiss(code)


def call(run: Path) -> None:
    """Let the followers, if there are any, load what the config of the run in this folder names; all of it is there."""
    if leader := _leader.get():
        leader.say(_RUN, str(run))


def begin() -> None:
    """Let the followers, if there are any, begin the training."""
    if leader := _leader.get():
        leader.say(_BEGIN)


def follow(rank: int, take_part: TakePart, stop: StopFlag) -> int:
    """What every other process does.

    `take_part`: is given the folder of the leader's run, and a function to be called before the training, which returns
    when the leader begins it. It writes nothing. `stop`: once it is set, the leader is waited for no longer than it
    takes to stop.

    Returns:
        The leader's exit code.

    Raises:
        AgentlabError: what went wrong in this process alone; what befalls all of them is the leader's to tell.
    """
    leader = _RemoteLeader(rank, stop)
    try:
        with contextlib.suppress(_Dismissed):
            take_part(Path(leader.hear(_RUN)), lambda: leader.hear(_BEGIN))
        code = int(leader.hear(_END))
    except Exception as error:  # noqa: BLE001 - whatever it was, the leader may be about to tell it
        try:
            code = int(leader.hear(_END, _PATIENCE_SECONDS))
        except AgentlabError:
            if isinstance(error, AgentlabError):
                error.message = f"Process {rank}: {error.message}"
            raise error from None
    leader.leave()
    _close_group(code)
    return code


class _Leader:
    def __init__(self, size: int) -> None:
        self._size, self._store = size, _store()

    def say(self, word: str, text: str = "") -> None:
        self._store.set(word, text)

    def dismiss(self, code: int) -> None:
        """Say how it ended, and let the others leave first: they may be hearing it from this very process."""
        until = time.monotonic() + _PATIENCE_SECONDS
        with contextlib.suppress(RuntimeError):  # the launcher has gone, and the store with it
            self._store.set(_END, str(code))
            while not self._store.check([f"{_LEFT}/{rank}" for rank in range(1, self._size)]):
                if time.monotonic() > until:
                    return
                time.sleep(_PAUSE_SECONDS)
        _close_group(code)


class _Dismissed(Exception):  # noqa: N818 - a word of the leader's, not a fault
    """The leader has ended."""


class _RemoteLeader:
    """The leader, as a follower hears it."""

    def __init__(self, rank: int, stop: StopFlag) -> None:
        self._rank, self._stop, self._store = rank, stop, _store()

    def hear(self, word: str, patience: float | None = None) -> str:
        """Wait for this word of the leader's: for so many seconds, or as long as nobody stops this process.

        Raises:
            _Dismissed: the leader has ended and did not say it.
            AgentlabError: it is silent, or gone.
        """
        until = None if patience is None else time.monotonic() + patience
        while (message := self._read_word(word)) is None:
            if self._read_word(_END) is not None:
                raise _Dismissed
            if until is None and self._stop.is_requested:
                until = time.monotonic() + _PATIENCE_SECONDS
            if until is not None and time.monotonic() > until:
                raise Interrupted("The first process does not respond.", signal=self._stop.signal or signal.SIGTERM)
            time.sleep(_PAUSE_SECONDS)
        return message

    def leave(self) -> None:
        """Let the leader know that it need not wait."""
        with contextlib.suppress(RuntimeError):  # it did not
            self._store.set(f"{_LEFT}/{self._rank}", "")

    def _read_word(self, word: str) -> str | None:
        try:
            return str(self._store.get(word), "utf-8") if self._store.check([word]) else None
        except RuntimeError as error:
            raise AgentlabError("The first process has exited.", hint=RESUME) from error


def _store() -> Any:
    """Where the processes of a launch leave each other words; the launcher or the first process keeps it."""
    distributed: Any = importlib.import_module("torch.distributed")  # its types leave these two out
    try:
        store, _, _ = next(distributed.rendezvous("env://", timeout=timedelta(seconds=_CONNECT_SECONDS)))
    except (RuntimeError, ValueError) as error:
        raise AgentlabError(
            f"Cannot reach the launcher of these processes: {str(error).splitlines()[0]}",
            hint="RANK and WORLD_SIZE are set; unset them to train in a single process.",
        ) from error
    return distributed.PrefixStore("agentlab", store)


def _close_group(code: int) -> None:
    """Take leave of the other processes; after a failure they may not answer."""
    from torch import distributed

    if code == 0 and distributed.is_initialized():
        distributed.destroy_process_group()
