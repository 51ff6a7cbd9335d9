"""The process that runs trainings, one after the other: `python -m agentlab.study.worker PARENT_PID`.

`processes.py` is the other end. Both speak JSON lines, requests on stdin, replies on stdout:

    {"op": "open", "factory": "module:function", "setup": {...}, "memory_bytes": null}              first, once
    {"op": "train", "name": "run_0007", "turn": 0, "params": {...}, "rung": 0, "seed": 3}           one at a time

    {"event": "ready"}                                                                              answers open
    {"event": "report", "type": "trial.epoch", "id": "run_0007", "data": {...}}                     any number
    {"event": "result", "status": "finished", "value": 0.3, "metrics": {...}, "error": "", "objectives": [],
     "items": [], "out_of_memory": false}
    {"event": "error", "kind": "DataError", "message": "...", "hint": null}                         ends the worker

Every training ends with exactly one of result or error. End of input ends the process, in the middle of a step if need
be. stderr is a log for humans: whatever a library prints.
"""

import gc
import queue
import sys
import time
from dataclasses import asdict, replace
from typing import Any

from agentlab import machine
from agentlab.errors import AgentlabError, MissingError
from agentlab.plugins import imported
from agentlab.search.types import TrialResult
from agentlab.study.executor import Objective, failure, finite
from agentlab.study.state import StudyCandidate
from agentlab.workers import child, faults, memory
from agentlab.workers.wire import encode


class _TrainingWorker:
    """Listens on the main thread; sets up and trains on another."""

    def __init__(self, pipes: child.Pipes) -> None:
        self._pipes = pipes
        self._jobs: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def run(self) -> None:
        self._pipes.serve(self._jobs.put, self._work)

    def _work(self) -> None:
        """The training thread: the only one that calls the factory and its objective."""
        opening = self._jobs.get()
        try:
            objective: Objective = imported(opening["factory"])(opening["setup"], self._report)
            is_bounded = "torch" not in sys.modules or machine.device() != "cuda"  # CUDA maps far more than it uses
            limit = opening["memory_bytes"] if is_bounded else None
            gc.collect()
            base = memory.mapped_bytes()
            ceiling = None if limit is None or base is None else base + limit
            self._pipes.reply({"event": "ready"})
            while True:
                self._pipes.send(_train(objective, self._jobs.get(), ceiling, limit))
        except AgentlabError as error:
            self._pipes.reply({"event": "error", **faults.as_message(error)})

    def _report(self, type: str, id: str, data: dict[str, Any]) -> None:  # noqa: A002 - the names of an event's fields
        self._pipes.reply({"event": "report", "type": type, "id": id, "data": data})


def _train(objective: Objective, job: dict[str, Any], ceiling: int | None, limit: int | None) -> bytes:
    """Run a training; its reply, ready to send."""
    job.pop("op")
    began = time.perf_counter()
    try:
        with memory.at_most(ceiling):
            (result,) = objective([StudyCandidate(**job)])
        return _line(finite(result))  # here too: metrics that JSON cannot hold are the objective's failure
    except MissingError:  # what every trial needs is absent, or the disk is full: no failure of this one
        raise
    except Exception as error:  # noqa: BLE001 - the contract: a crash is a failed trial, with its traceback kept
        failed = failure(error, time.perf_counter() - began)
        if limit is None or not memory.ran_out(error):
            return _line(failed)
        error_text = f"MemoryError: the training needs more than {limit / 2**20:.0f} MiB."
        return _line(replace(failed, error=error_text), out_of_memory=True)


def _line(result: TrialResult, *, out_of_memory: bool = False) -> bytes:
    return encode({"event": "result", **asdict(result), "out_of_memory": out_of_memory})


if __name__ == "__main__":
    _TrainingWorker(child.attach(int(sys.argv[1]))).run()
