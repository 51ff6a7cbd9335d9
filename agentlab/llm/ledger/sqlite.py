"""The ledger of a workspace: one SQLite file, shared by all its processes."""

import os
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agentlab.llm.ledger.answers import decoded, encoded
from agentlab.llm.ledger.arm import Arm
from agentlab.llm.ledger.protocol import Ledger
from agentlab.llm.ledger.rows import Remembered, read_answer
from agentlab.llm.ledger.sample import CachedAnswer, Quality, Sample, name_of
from agentlab.llm.ledger.schema import connect_to_read
from agentlab.llm.ledger.writer import Writer


def open_ledger(path: Path, keep_days: int, say: Callable[[str], None]) -> Ledger:
    """The ledger in a file, which is made when it is first used; so is its folder, in a folder that exists.

    Single calls and answers older than `keep_days` are forgotten. If the file cannot be used, `say` hears one sentence,
    in a thread of the ledger's, and all goes on in memory.
    """
    return SqliteLedger(path, keep_days, say)


class SqliteLedger:
    """Implements `Ledger`. Each process, a forked one too, opens the file when it first asks or tells something."""

    def __init__(self, path: Path, keep_days: int, say: Callable[[str], None]) -> None:
        self._path, self._keep_days, self._say = path, keep_days, say
        # By process. What a fork inherits has no thread; and it is held, as its connections must not be closed there.
        self._processes: dict[int, _Process] = {}

    def record(self, sample: Sample) -> None:
        """As of `Ledger`."""
        if sample.is_sound():
            self._here().writer.put(sample.cleaned())

    def quality(self, at: float, task: str, model: str, value: float) -> None:
        """As of `Ledger`."""
        verdict = Quality(at, name_of(task), name_of(model), value)
        if verdict.is_sound():
            self._here().writer.put(verdict)

    def arm(self, task: str, model: str, now: float) -> Arm:
        """As of `Ledger`."""
        writer = self._here().writer
        writer.wait_until_read()
        return writer.memory.arm(task, model, now)

    def spent_since(self, when: float) -> float | None:
        """As of `Ledger`. It is quick while `when` stays the same; another moment is looked up in the file."""
        return self._here().writer.spent_since(when)

    def answer(self, key: str) -> CachedAnswer | None:
        """As of `Ledger`."""
        here = self._here()
        answer = here.writer.memory.answer(key)
        if answer is None and here.writer.alive:
            here.writer.wait_until_read()
            answer = here.answers.get(key)
        return answer

    def remember(self, key: str, answer: CachedAnswer) -> None:
        """As of `Ledger`; at most 10,000 answers and 64 MiB."""
        body = encoded(answer)
        if body is not None:
            self._here().writer.keep(Remembered(key, answer.at, body))

    def close(self) -> None:
        """As of `Ledger`."""
        here = self._processes.get(os.getpid())
        if here is not None:
            here.answers.close()
            here.writer.close()  # the last connection tidies up

    def _here(self) -> "_Process":
        pid = os.getpid()
        here = self._processes.get(pid)
        if here is None:
            new = _Process(Writer(self._path, self._keep_days, self._say), _StoredAnswers(self._path))
            here = self._processes.setdefault(pid, new)  # one of several threads wins
            if here is new:
                here.writer.start()
        return here


class _StoredAnswers:
    """Reads answers in the thread that asks: in WAL mode no writer makes it wait."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None

    def get(self, key: str) -> CachedAnswer | None:
        """The answer under a key; None, too, when the file cannot be read: that is the writer's to tell."""
        with self._lock:
            try:
                if self._db is None:
                    self._db = connect_to_read(self._path)
                body = read_answer(self._db, key)
            except sqlite3.Error:
                return None
        return None if body is None else decoded(body)

    def close(self) -> None:
        """Close the connection, if there is one."""
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None


@dataclass(frozen=True, slots=True)
class _Process:
    writer: Writer
    answers: _StoredAnswers
