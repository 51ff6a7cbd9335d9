"""Runs each training in a worker process: several at a time, each bounded in memory, none able to end the search."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from agentlab import machine
from agentlab.errors import AgentlabError
from agentlab.search.types import TrialResult
from agentlab.study.executor import Report, finite
from agentlab.study.state import StudyCandidate
from agentlab.workers import exit_status, faults
from agentlab.workers.channel import Channel, wait_for_any

_POLL_SECONDS = 0.05
_SEND_SECONDS = 10.0  # a pipe holds 64 KiB, so only a huge set-up waits, until the new interpreter reads it

_Ended = tuple[StudyCandidate, TrialResult]
_Fields = dict[str, tuple[type, ...]]
_Number = (int, float, type(None))
_EVENTS: dict[str, _Fields] = {  # what a worker may say; `worker.py` describes it
    "ready": {},
    "report": {"type": (str,), "id": (str,), "data": (dict,)},
    "result": {"status": (str,), "value": _Number, "metrics": (dict,), "error": (str,), "out_of_memory": (bool,)}
    | {"objectives": (list,), "items": (list,)},
    "error": {"kind": (str,), "message": (str,), "hint": (str, type(None))},
}


@dataclass(slots=True)
class _Training:
    candidate: StudyCandidate
    began: float = 0.0
    deaths: int = 0


@dataclass(slots=True)
class _WorkerProcess:
    channel: Channel
    training: _Training | None = None
    ready: bool = False
    trained: int = 0


class ProcessExecutor:
    """A trial executor with `workers` processes, each started when it is first needed and kept for the next training.

    What a candidate provokes is a failed trial, as with `LocalExecutor`, even if it takes its process along: such a
    training is given to a fresh process once, which `trial.retried` reports. So is one that runs out of memory in a
    process that has trained before, for such a process holds what libraries cache: whether a training fits is judged
    in a fresh one, and repeats. A process that ran out of memory is not used again.

    There is no time limit on a training. Metrics come back as JSON has them: tuples are lists.
    """

    in_batches = False

    def __init__(
        self,
        factory: str,
        setup: Mapping[str, Any],
        *,
        workers: int,
        threads: int,
        memory_bytes: int | None,
        report: Report,
        check: Callable[[], None],
    ) -> None:
        """Nothing is started yet.

        Args:
            factory: `module:function`, called once in each worker as `function(setup, report) -> Objective`. What
                `report(type, id, data)` gets there is handed to `report` here. What the first training would load or
                allocate for good it should load itself (torch's optimisers import 70 MB when one is first made): the
                memory limit counts from its end.
            setup: plain data. Relative paths would not mean the caller's folder.
            memory_bytes: what a training may allocate on top of what its process holds after the factory; None for
                no limit. It bounds heap, tensors in main memory and thread stacks on Linux; it is not applied on
                other systems, which do not count mapped memory, nor with CUDA, which maps far more than it uses.
            report: called from within `next_completed`, on its thread, in the order of each training's events.
            check: called every 0.1 s or sooner while `next_completed` waits. What it raises ends it; no training is
                harmed before `close`.
        """
        self.capacity = workers
        self._opening = {"op": "open", "factory": factory, "setup": dict(setup), "memory_bytes": memory_bytes}
        self._variables = machine.worker_environment(threads)
        self._report, self._check = report, check
        self._queue: deque[_Training] = deque()
        self._workers: list[_WorkerProcess] = []

    def submit(self, candidate: StudyCandidate) -> None:
        """Start a training, or queue it when all workers are busy.

        Raises:
            AgentlabError: no process can be started.
        """
        self._queue.append(_Training(candidate))
        self._hand_out()

    def next_completed(self) -> tuple[StudyCandidate, TrialResult]:
        """Wait for the next training to end, whichever it is.

        Raises:
            IndexError: there is none to wait for.
            MissingError: something every trial needs is absent, or the disk is full.
            AgentlabError: what the factory raised, under its own class; or no worker gets through it alive.
            Whatever `check` and `report` raise.
        """
        while True:
            self._check()
            self._hand_out()
            busy = [worker for worker in self._workers if worker.training]
            if not busy:
                raise IndexError("no training run is in progress")
            for worker in busy:
                ending = self._listen(worker)
                if ending:
                    self._hand_out()
                    return ending
            wait_for_any([worker.channel for worker in self._workers if worker.training], _POLL_SECONDS)

    def close(self) -> None:
        """Kill the workers, whatever they do, and forget what was not run. Takes less than 2 seconds."""
        self._queue.clear()
        for worker in self._workers:
            worker.channel.kill()
        for worker in list(self._workers):
            self._discard(worker)

    def _hand_out(self) -> None:
        """Give queued trainings to idle workers, and to new ones up to the capacity."""
        while self._queue:
            worker = self._idle()
            if worker is None:
                return
            self._give(worker, self._queue.popleft())

    def _idle(self) -> _WorkerProcess | None:
        for worker in [worker for worker in self._workers if not worker.training]:
            if worker.channel.alive():
                return worker
            self._discard(worker)  # it died between two trainings, which costs nobody anything
        return self._start() if len(self._workers) < self.capacity else None

    def _start(self) -> _WorkerProcess:
        try:
            worker = _WorkerProcess(Channel("agentlab.study.worker", self._variables))
        except OSError as error:
            raise AgentlabError(
                f"Cannot start a training process: {error.strerror or error}.",
                hint="Close other programs, or use fewer workers.",
            ) from error
        self._workers.append(worker)
        self._send(worker, self._opening)
        return worker

    def _give(self, worker: _WorkerProcess, training: _Training) -> None:
        training.began = training.began or time.monotonic()
        worker.training = training
        self._send(worker, {"op": "train", **asdict(training.candidate)})

    def _send(self, worker: _WorkerProcess, message: Mapping[str, Any]) -> None:
        """Write to a worker. One that is gone or does not read is found dead when it is listened to."""
        try:
            if not worker.channel.send(message, _SEND_SECONDS):
                worker.channel.kill()
        except EOFError:
            worker.channel.kill()

    def _listen(self, worker: _WorkerProcess) -> _Ended | None:
        """Take in what a worker has said; the end of its training if that is among it."""
        while True:
            self._check()  # also in a flood of events
            alive = worker.channel.alive()  # asked first: what a dead worker said is all there
            try:
                message = worker.channel.receive(0)
                if message is not None:
                    _require_protocol(message)
            except EOFError:
                return self._handle_death(worker)
            except ValueError as error:
                return self._handle_garbled(worker, error)
            if message is None:
                return None if alive else self._handle_death(worker)
            ending = self._take(worker, message)
            if ending or worker not in self._workers:
                return ending

    def _take(self, worker: _WorkerProcess, message: dict[str, Any]) -> _Ended | None:
        if message["event"] == "ready":
            worker.ready = True
        elif message["event"] == "report":
            self._report(message["type"], message["id"], message["data"])
        elif message["event"] == "error":
            self._discard(worker)
            raise faults.from_message(message)
        else:
            return self._end_training(worker, message)
        return None

    def _end_training(self, worker: _WorkerProcess, message: dict[str, Any]) -> _Ended | None:
        training = _at_work(worker)
        fields: dict[str, Any] = {name: message[name] for name in ("status", "value", "metrics", "error")}
        result = TrialResult(**fields, objectives=tuple(message["objectives"]), items=tuple(message["items"]))
        worker.training, worker.trained = None, worker.trained + 1
        if message["out_of_memory"]:
            self._discard(worker)
            if worker.trained > 1:
                self._retry(training, "out of memory in a reused process")
                return None
        return training.candidate, finite(result)

    def _handle_death(self, worker: _WorkerProcess) -> _Ended | None:
        training = _at_work(worker)
        status, log = self._discard(worker)
        cause, hint = exit_status.describe(status)
        if not training.deaths:
            training.deaths += 1
            self._retry(training, f"the process died: {cause}")
            return None
        if not worker.ready:
            message = f"A training process died during set-up: {cause}.\n{exit_status.last_words(log)}"
            raise AgentlabError(message.strip(), hint=hint)
        return training.candidate, _lost_result(training, f"the process died twice: {cause}", log)

    def _handle_garbled(self, worker: _WorkerProcess, error: ValueError) -> _Ended:
        training = _at_work(worker)
        _, log = self._discard(worker)
        return training.candidate, _lost_result(training, f"the process violated the protocol: {error}", log)

    def _retry(self, training: _Training, reason: str) -> None:
        self._give(self._start(), training)
        self._report("trial.retried", training.candidate.name, {"reason": reason})

    def _discard(self, worker: _WorkerProcess) -> tuple[int, str]:
        self._workers.remove(worker)
        return worker.channel.dispose()


def _at_work(worker: _WorkerProcess) -> _Training:
    assert worker.training is not None
    return worker.training


def _lost_result(training: _Training, reason: str, log: str) -> TrialResult:
    """The result of a training whose process cannot tell it; `log` is the end of what that printed."""
    seconds = round(time.monotonic() - training.began, 3)
    return TrialResult("failed", metrics={"seconds": seconds, "log": exit_status.last_words(log)}, error=reason[:300])


def _require_protocol(message: Mapping[str, Any]) -> None:
    """Raise ValueError unless a message is one that a worker may send."""
    fields = _EVENTS.get(str(message.get("event")))
    if fields is None or message.keys() != {"event", *fields}:
        raise ValueError("unknown message type")
    wrong = [name for name, kinds in fields.items() if not isinstance(message[name], kinds)]
    if wrong or message.get("status", "finished") not in ("finished", "failed"):
        raise ValueError(f"a {message['event']} message with an invalid {' and '.join(wrong) or 'status'}")
