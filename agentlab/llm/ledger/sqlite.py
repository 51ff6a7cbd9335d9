"""The ledger of a workspace: one SQLite file, shared by all its processes."""

import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TypeVar

from agentlab.errors import StorageError
from agentlab.llm.ledger.arm import Arm, AttemptSample, CachedAnswer, Quality, name_of
from agentlab.llm.ledger.memory import MemoryLedger, decode_answer, encode_answer
from agentlab.llm.ledger.rows import Event, PendingAnswer, read_answer, read_arms, read_spent, write
from agentlab.llm.ledger.schema import connect_to_read, explain_error, open_database
from agentlab.runs.sqlite import is_busy

T = TypeVar("T")

_TICK_SECONDS = 0.25  # the longest that a note waits
_BATCH = 64  # notes that are written without waiting
_MOST_AT_ONCE = 256  # notes per transaction: others want to write, too
_QUEUE = 4096  # notes that may wait
_ANSWERS = 64  # answers among them: 16 MiB at most
_RENEW_SECONDS = 1.0
_LOCKED_SECONDS = 5.0  # how long others may keep the file from us
_READ_SECONDS = 1.0  # how long a reader waits for the file's first word
_CLOSE_SECONDS = 2.0

# The last three: rows of a type that this program never writes.
_BROKEN = (sqlite3.Error, StorageError, ValueError, TypeError, OverflowError)


class Writer:
    """The thread that writes one process's notes into the ledger's file, and looks what others have written.

    It owns the file's connection. When the file fails, it says so once, and `memory` is all there is from then on."""

    def __init__(self, path: Path, keep_days: int, say: Callable[[str], None]) -> None:
        self.memory = MemoryLedger()  # what the file knew a second ago, and what it does not know yet
        self.alive = True
        self._path, self._keep_days, self._say = path, keep_days, say
        self._lock = threading.Lock()
        self._asking = threading.Lock()
        self._reading = threading.Lock()
        self._answers_db: sqlite3.Connection | None = None
        self._queue: list[Event] = []
        self._answers = 0  # in the queue
        self._dropped = 0
        self._told = False
        self._when = float("inf")  # the moment since which spend is counted
        self._fresh = threading.Event()  # `memory` rests upon the file, or never will
        self._wake = threading.Event()
        self._closing = False
        # a daemon: a process that is told to leave at once must not wait for its notes
        self._thread = threading.Thread(target=self._run, name="agentlab-ledger", daemon=True)

    def start(self) -> None:
        """Open the file, in the thread."""
        try:
            self._thread.start()
        except RuntimeError as error:  # no more threads
            self._give_up(error)

    def put(self, event: AttemptSample | Quality) -> None:
        """Take note; never waits. What the queue cannot take is missing from the file."""
        with self._lock:
            self.memory.hear(event)
            if len(self._queue) < _QUEUE:
                self._append(event)
            else:
                self._dropped += 1

    def keep(self, answer: PendingAnswer) -> None:
        """Take an answer; never waits. What the queue cannot take is asked again one day."""
        with self._lock:
            self.memory.keep(answer.key, answer.body)
            if len(self._queue) < _QUEUE and self._answers < _ANSWERS:
                self._append(answer)
                self._answers += 1

    def _append(self, event: Event) -> None:
        if self.alive:
            self._queue.append(event)
            if len(self._queue) == _BATCH:
                self._wake.set()

    def answer(self, key: str) -> CachedAnswer | None:
        """The answer under a key. It is read in the thread that asks: in WAL mode no writer makes it wait."""
        cached_answer = self.memory.answer(key)
        if cached_answer is None and self.alive:
            self.wait_until_read()
            with self._reading:
                try:
                    self._answers_db = self._answers_db or connect_to_read(self._path)
                    body = read_answer(self._answers_db, key)
                except sqlite3.Error:
                    return None  # that the file cannot be read is told by the thread that writes
            cached_answer = None if body is None else decode_answer(body)
        return cached_answer

    def wait_until_read(self) -> None:
        """Until `memory` rests upon the file; a second at most, and only once when the file is slow."""
        if not self._fresh.wait(_READ_SECONDS):
            self._fresh.set()

    def spent_since(self, when: float) -> float | None:
        """As of `Ledger`. A moment that differs from the last one is looked up by the thread."""
        with self._asking:  # or two moments would take turns in `memory`
            with self._lock:
                if self.alive and when != self._when:
                    self._when = when
                    self._fresh.clear()
                    self._wake.set()
            self.wait_until_read()
            return self.memory.spent_since(when)

    def close(self) -> None:
        """Write what waits and end the thread, within two seconds."""
        with self._reading:
            if self._answers_db is not None:
                self._answers_db.close()  # before the thread's, which as the last connection tidies up
                self._answers_db = None
        self._closing = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(_CLOSE_SECONDS)
        with self._lock:
            self.alive = False
        self._fresh.set()

    def _run(self) -> None:
        try:
            open_file = partial(open_database, self._path, self._keep_days, time.time())
            with closing(self._patiently(open_file)) as db:
                self._serve(db)
        except _BROKEN as error:
            self._give_up(error)

    def _patiently(self, work: Callable[[], T]) -> T:
        """Do it, again if others hold the file, for five seconds. (Each try waits a second in SQLite, most times.)"""
        start = time.monotonic()
        while True:
            try:
                return work()
            except sqlite3.OperationalError as error:
                if not is_busy(error) or self._closing or time.monotonic() - start >= _LOCKED_SECONDS:
                    raise
            time.sleep(0.05)

    def _serve(self, db: sqlite3.Connection) -> None:
        renewed, seen = -_RENEW_SECONDS, -1
        while True:
            last = self._closing  # read before the queue: what came until then is written
            self._flush(db)
            if last:
                return
            # changes with every commit of others; our own are in `memory` already
            (version,) = db.execute("PRAGMA data_version").fetchone()
            due = version != seen and time.monotonic() - renewed >= _RENEW_SECONDS
            if due or not self._fresh.is_set():
                self._renew(db)
                renewed, seen = time.monotonic(), version
            self._wake.wait(_TICK_SECONDS)
            self._wake.clear()

    def _flush(self, db: sqlite3.Connection) -> None:
        while batch := self._queue[:_MOST_AT_ONCE]:
            self._patiently(partial(write, db, batch))
            with self._lock:
                del self._queue[: len(batch)]
                self._answers -= sum(isinstance(event, PendingAnswer) for event in batch)
        if self._dropped and not self._told:
            self._told = True
            self._say(f"The ledger {self._path} is too slow: at least {self._dropped} calls were not recorded.")

    def _renew(self, db: sqlite3.Connection) -> None:
        when = self._when
        arms, spending = read_arms(db), read_spent(db, when)
        with self._lock:
            # whatever waits now came after the last write
            self.memory.rebase(arms, spending, (event for event in self._queue if not isinstance(event, PendingAnswer)))
            if when == self._when:
                self._fresh.set()

    def _give_up(self, error: Exception) -> None:
        with self._lock:
            self.alive = False
            self._queue.clear()
        self._fresh.set()
        self._say(f"Language-model calls are recorded in memory only. {explain_error(error, self._path)}")


class SqliteLedger:
    """Implements `Ledger`. Each process, a forked one too, opens the file when it first asks or tells something."""

    def __init__(self, path: Path, keep_days: int, say: Callable[[str], None]) -> None:
        """The file is made when it is first used; so is its folder, in a folder that exists.

        Single calls and answers older than `keep_days` are forgotten. If the file cannot be used, `say` hears one
        sentence, in a thread of the ledger's, and all goes on in memory.
        """
        self._path, self._keep_days, self._say = path, keep_days, say
        # By process. What a fork inherits has no thread; and it is held, as its connections must not be closed there.
        self._processes: dict[int, Writer] = {}

    def record(self, sample: AttemptSample) -> None:
        if sample.is_sound():
            self._current_writer().put(sample.with_clean_names())

    def quality(self, at: float, task: str, model: str, value: float) -> None:
        verdict = Quality(at, name_of(task), name_of(model), value)
        if verdict.is_sound():
            self._current_writer().put(verdict)

    def arm(self, task: str, model: str, now: float) -> Arm:
        writer = self._current_writer()
        writer.wait_until_read()
        return writer.memory.arm(task, model, now)

    def spent_since(self, when: float) -> float | None:
        """As of `Ledger`. It is quick while `when` stays the same; another moment is looked up in the file."""
        return self._current_writer().spent_since(when)

    def answer(self, key: str) -> CachedAnswer | None:
        return self._current_writer().answer(key)

    def remember(self, key: str, answer: CachedAnswer) -> None:
        """As of `Ledger`; at most 10,000 answers and 64 MiB."""
        body = encode_answer(answer)
        if body is not None:
            self._current_writer().keep(PendingAnswer(key, answer.at, body))

    def close(self) -> None:
        writer = self._processes.get(os.getpid())
        if writer is not None:
            writer.close()

    def _current_writer(self) -> Writer:
        pid = os.getpid()
        writer = self._processes.get(pid)
        if writer is None:
            new = Writer(self._path, self._keep_days, self._say)
            writer = self._processes.setdefault(pid, new)  # one of several threads wins
            if writer is new:
                writer.start()
        return writer
