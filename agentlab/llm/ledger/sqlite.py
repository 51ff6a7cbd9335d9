"""The ledger of a workspace: one SQLite file, shared by all its processes."""

import os
from collections.abc import Callable
from pathlib import Path

from agentlab.llm.ledger.arm import Arm
from agentlab.llm.ledger.memory import encoded
from agentlab.llm.ledger.rows import Remembered
from agentlab.llm.ledger.sample import CachedAnswer, Quality, Sample, name_of
from agentlab.llm.ledger.writer import Writer


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

    def record(self, sample: Sample) -> None:
        """As of `Ledger`."""
        if sample.is_sound():
            self._here().put(sample.cleaned())

    def quality(self, at: float, task: str, model: str, value: float) -> None:
        """As of `Ledger`."""
        verdict = Quality(at, name_of(task), name_of(model), value)
        if verdict.is_sound():
            self._here().put(verdict)

    def arm(self, task: str, model: str, now: float) -> Arm:
        """As of `Ledger`."""
        writer = self._here()
        writer.wait_until_read()
        return writer.memory.arm(task, model, now)

    def spent_since(self, when: float) -> float | None:
        """As of `Ledger`. It is quick while `when` stays the same; another moment is looked up in the file."""
        return self._here().spent_since(when)

    def answer(self, key: str) -> CachedAnswer | None:
        """As of `Ledger`."""
        return self._here().answer(key)

    def remember(self, key: str, answer: CachedAnswer) -> None:
        """As of `Ledger`; at most 10,000 answers and 64 MiB."""
        body = encoded(answer)
        if body is not None:
            self._here().keep(Remembered(key, answer.at, body))

    def close(self) -> None:
        """As of `Ledger`."""
        here = self._processes.get(os.getpid())
        if here is not None:
            here.close()

    def _here(self) -> Writer:
        pid = os.getpid()
        here = self._processes.get(pid)
        if here is None:
            new = Writer(self._path, self._keep_days, self._say)
            here = self._processes.setdefault(pid, new)  # one of several threads wins
            if here is new:
                here.start()
        return here
