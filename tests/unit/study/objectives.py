"""Factories that the processes of test_processes.py load by name: `objectives:FUNCTION`. None imports torch at once."""

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agentlab import errors
from agentlab.search.types import TrialResult
from agentlab.study.executor import Objective
from agentlab.study.state import StudyCandidate

Report = Callable[[str, str, dict[str, Any]], None]


def alone(measure: Callable[[StudyCandidate], TrialResult]) -> Objective:
    """Measures one candidate at a time."""
    return lambda batch: [measure(candidate) for candidate in batch]


def acts(setup: Mapping[str, Any], report: Report) -> Objective:
    """Does what `params` say, in the order of their names below, and measures `value`."""

    def objective(candidate: StudyCandidate) -> TrialResult:
        began = time.time()
        params = candidate.params
        for epoch in range(int(params.get("epochs", 0))):
            report("trial.epoch", candidate.name, {"epoch": epoch + 1})
        time.sleep(params.get("sleep", 0.0))
        _misbehave(params, Path(setup.get("folder", ".")) / candidate.name)
        if "allocate" in params:
            bytearray(int(params["allocate"]))
        if "raise" in params:
            raise getattr(errors, params["raise"])("As asked.", hint="Do not ask.")
        metrics = {"pid": os.getpid(), "began": began, "ended": time.time(), "seed": candidate.seed}
        return TrialResult("finished", params.get("value", 1.0), metrics)

    return alone(objective)


def _misbehave(params: Mapping[str, Any], mark: Path) -> None:
    """Die by a signal, as often as `deaths` says; `mark` remembers, for each death costs a process."""
    if "print" in params:
        print('{"event": "result", "status": "finished"}', flush=True)
        os.write(1, b"and C says so too\n")
        assert sys.stdin.read() == ""
    died = len(mark.read_text()) if mark.exists() else 0
    if died < params.get("deaths", 0):
        mark.write_text("x" * (died + 1))
        signal.raise_signal(params.get("signal", signal.SIGKILL))  # on this thread, as a fault of a library is


def unpleasant(setup: Mapping[str, Any], report: Report) -> Objective:
    """Returns what cannot be sent, or what is not there."""

    def objective(candidate: StudyCandidate) -> TrialResult:
        odd = {
            "nan": TrialResult("finished", float("nan"), {"epochs": 3}),
            "nothing": TrialResult("finished", None),
            "nan metric": TrialResult("finished", 1.0, {"loss": float("inf")}),
            "set": TrialResult("finished", 1.0, {"loss": {1}}),
            "huge": TrialResult("finished", 1.0, {"text": "x" * (1 << 21)}),
            "exit": None,
            "none": None,
        }[str(candidate.params["kind"])]
        if candidate.params["kind"] == "exit":
            sys.exit(3)
        return odd  # type: ignore[return-value] # None is the point

    return alone(objective)


def refuses(setup: Mapping[str, Any], report: Report) -> Objective:
    """Cannot be set up: raises the error that `setup` names, or ends the process."""
    if setup["kind"] == "exit":
        os._exit(9)
    if setup["kind"] == "UnknownNameError":
        raise errors.UnknownNameError("column", "wset", ["west"])
    raise getattr(errors, setup["kind"])("There is no series.", hint="Bring it.")


def leaves_a_child(setup: Mapping[str, Any], report: Report) -> Objective:
    """Each training forks a process that keeps all pipes open, and then dies."""

    def objective(candidate: StudyCandidate) -> TrialResult:
        if os.fork() == 0:
            Path(setup["folder"], f"{os.getppid()}-{os.getpid()}").touch()
            time.sleep(20)
            os._exit(0)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    return alone(objective)


def hangs(setup: Mapping[str, Any], report: Report) -> Objective:
    """Does not get through its set-up; a stopped process would not even take a signal to end."""
    os.kill(os.getpid(), signal.SIGSTOP)
    raise AssertionError


def tensors(setup: Mapping[str, Any], report: Report) -> Objective:
    """Allocates `mib` with torch, 1 MiB at a time, and works with them on all threads."""
    import torch

    torch.ones(100, 100) @ torch.ones(100, 100)  # starts the threads

    def objective(candidate: StudyCandidate) -> TrialResult:
        blocks = [torch.ones(2**18) for _ in range(int(candidate.params["mib"]))]
        total = sum(float(part.sum()) for part in blocks)
        return TrialResult("finished", total, {"threads": torch.get_num_threads()})

    return alone(objective)
