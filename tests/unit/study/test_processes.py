"""Trainings in real processes: side by side, bounded, mortal, and none of that ends the search."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from agentlab import errors
from agentlab.errors import AgentlabError, Interrupted
from agentlab.search.types import TrialResult, Value
from agentlab.study.executor import OBJECTIVES
from agentlab.study.processes import ProcessExecutor
from agentlab.study.state import StudyCandidate

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[2]
MIB = 2**20

Event = tuple[str, str, dict[str, Any]]


class Bench:
    """Makes executors, and remembers what they report."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events: list[Event] = []
        self.made: list[ProcessExecutor] = []

    def executor(
        self,
        factory: str = "acts",
        *,
        workers: int = 1,
        threads: int = 1,
        memory_bytes: int | None = None,
        check: Callable[[], None] = lambda: None,
        **setup: Any,
    ) -> ProcessExecutor:
        executor = ProcessExecutor(
            f"objectives:{factory}",
            {"folder": str(self.folder), **setup},
            workers=workers,
            threads=threads,
            memory_bytes=memory_bytes,
            report=lambda type_, id_, data: self.events.append((type_, id_, data)),
            check=check,
        )
        self.made.append(executor)
        return executor


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    before = set(psutil.Process().children())
    bench = Bench(tmp_path)
    yield bench
    for executor in bench.made:
        executor.close()
    assert not set(psutil.Process().children()) - before


def submit(executor: ProcessExecutor, name: str = "a", **params: Value) -> None:
    executor.submit(StudyCandidate(name, 0, params, seed=3))


def run(executor: ProcessExecutor, name: str = "a", **params: Value) -> TrialResult:
    submit(executor, name, **params)
    candidate, result = executor.next_completed()
    assert candidate == StudyCandidate(name, 0, params, seed=3)
    return result


def workers() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "agentlab.study.worker" in child.cmdline()]


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def wait_until(holds: Callable[[], bool], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


SQUARE = """
from agentlab.search.types import TrialResult

def objective(setup, report):
    def measure(x):
        errors = tuple((x - target) ** 2.0 for target in setup["targets"])
        return TrialResult("finished", sum(errors), {"uses": 1}, "", (sum(errors), float(x)), errors)

    return lambda batch: [measure(candidate.params["x"]) for candidate in batch]
"""


def test_a_package_brings_an_objective_that_worker_processes_find(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plug_in: Callable[[str, str, str], None]
) -> None:
    plug_in("agentlab.objectives", "square = plugged_square:objective", SQUARE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))
    executor = ProcessExecutor(
        OBJECTIVES.where("square"),
        {"targets": [3, 4]},
        workers=1,
        threads=1,
        memory_bytes=None,
        report=lambda *_: None,
        check=lambda: None,
    )
    try:
        assert run(executor, x=5) == TrialResult("finished", 5.0, {"uses": 1}, "", (5.0, 5.0), (4.0, 1.0))
    finally:
        executor.close()


# -- side by side -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2])
def test_as_many_trainings_overlap_as_there_are_workers(bench: Bench, count: int) -> None:
    executor = bench.executor(workers=count)
    assert executor.capacity == count
    for name in "ab":
        submit(executor, name, sleep=0.7)
    (_, first), (_, second) = executor.next_completed(), executor.next_completed()
    overlap = min(first.metrics["ended"], second.metrics["ended"]) - max(
        first.metrics["began"], second.metrics["began"]
    )
    assert (overlap > 0) == (count == 2)
    assert len({first.metrics["pid"], second.metrics["pid"]}) == count


def test_results_come_as_trainings_end_and_a_free_worker_takes_the_next(bench: Bench) -> None:
    executor = bench.executor(workers=2)
    for name, seconds in {"long": 1.5, "short": 0.1, "middle": 0.3}.items():
        submit(executor, name, sleep=seconds, value=seconds)
    completions = [executor.next_completed() for _ in range(3)]
    assert [(candidate.name, result.value) for candidate, result in completions] == [
        ("short", 0.1),
        ("middle", 0.3),
        ("long", 1.5),
    ]
    assert completions[0][1].metrics["pid"] == completions[1][1].metrics["pid"]
    assert completions[0][1].metrics["seed"] == 3


def test_a_queued_training_starts_before_the_caller_asks_again(bench: Bench) -> None:
    executor = bench.executor()
    submit(executor, "a")
    submit(executor, "b", sleep=0.2)
    executor.next_completed()
    handed_over = time.time()
    time.sleep(0.5)
    _, second = executor.next_completed()
    assert second.metrics["ended"] < handed_over + 0.5


def test_workers_start_when_they_are_needed(bench: Bench) -> None:
    executor = bench.executor(workers=2)
    assert workers() == []
    run(executor)
    run(executor)
    assert len(workers()) == 1


def test_nothing_submitted_is_nothing_to_wait_for(bench: Bench) -> None:
    with pytest.raises(IndexError):
        bench.executor().next_completed()


def test_numbers_arrive_to_the_last_bit(bench: Bench) -> None:
    assert run(bench.executor(), value=0.1 + 0.2).value == 0.1 + 0.2


def test_a_set_up_may_be_larger_than_a_pipe(bench: Bench) -> None:
    assert run(bench.executor(names=["column"] * 30_000)).status == "finished"


# -- events -----------------------------------------------------------------------------------------------------


def test_events_come_in_order_on_the_callers_thread_before_their_result(bench: Bench) -> None:
    executor = bench.executor(workers=2)
    submit(executor, "a", epochs=50)
    submit(executor, "b", epochs=50)
    time.sleep(0.5)
    assert bench.events == []  # only `next_completed` hands them on
    done, _ = executor.next_completed()
    epochs = [data["epoch"] for _, name, data in bench.events if name == done.name]
    assert epochs == list(range(1, 51))
    executor.next_completed()
    assert len(bench.events) == 100


def test_what_report_raises_reaches_the_caller(bench: Bench) -> None:
    def full(*_: object) -> None:
        raise errors.StorageError("The disk is full.")

    executor = ProcessExecutor(
        "objectives:acts", {}, workers=1, threads=1, memory_bytes=None, report=full, check=lambda: None
    )
    bench.made.append(executor)
    with pytest.raises(errors.StorageError):
        run(executor, epochs=1)


def test_prints_and_reads_of_libraries_do_not_enter_the_protocol(bench: Bench) -> None:
    assert run(bench.executor(), print=True).status == "finished"


# -- failures that are results ----------------------------------------------------------------------------------


def test_a_crash_is_a_failed_trial_and_the_worker_goes_on(bench: Bench) -> None:
    executor = bench.executor()
    pid = run(executor).metrics["pid"]
    failed = run(executor, **{"raise": "DivergedError"})
    assert (failed.status, failed.error) == ("failed", "DivergedError: As asked.")
    assert "in objective" in failed.metrics["traceback"]
    assert failed.metrics["seconds"] >= 0
    assert run(executor).metrics["pid"] == pid


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("nan", "the objective returned nan"),
        ("nothing", "the objective returned no value"),
        ("nan metric", "ValueError"),
        ("set", "TypeError"),
        ("none", "AttributeError"),
        ("huge", "violated the protocol: a line is too long"),
        ("exit", "died twice: it exited with status 70"),
    ],
)
def test_what_cannot_be_a_result_is_a_failed_trial(bench: Bench, kind: str, message: str) -> None:
    result = run(bench.executor("unpleasant"), kind=kind)
    assert (result.status, result.value) == ("failed", None)
    assert message in result.error


# -- deaths -----------------------------------------------------------------------------------------------------


def test_a_killed_training_is_given_to_a_fresh_worker_and_others_go_on(bench: Bench) -> None:
    executor = bench.executor(workers=2)
    submit(executor, "other", sleep=1.0)
    submit(executor, "killed", deaths=1)
    (first, survivor), (second, killed) = sorted(
        (executor.next_completed() for _ in range(2)), key=lambda end: end[0].name, reverse=True
    )
    assert (first.name, second.name) == ("other", "killed")
    assert survivor.status == killed.status == "finished"
    assert survivor.metrics["ended"] - survivor.metrics["began"] < 1.5
    ((type_, id_, data),) = bench.events
    assert (type_, id_) == ("trial.retried", "killed")
    assert "SIGKILL" in data["reason"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_training_that_kills_two_workers_has_failed(bench: Bench, number: signal.Signals) -> None:
    executor = bench.executor(workers=2)
    submit(executor, "other", sleep=1.0)
    submit(executor, "deadly", deaths=2, signal=number)
    results = {context.name: result for context, result in (executor.next_completed() for _ in range(2))}
    assert results["deadly"].status == "failed"
    assert number.name in results["deadly"].error
    assert results["deadly"].metrics["seconds"] > 0
    assert results["other"].status == "finished"
    assert [event[:2] for event in bench.events] == [("trial.retried", "deadly")]
    assert run(executor, "next").status == "finished"


def test_a_worker_killed_from_outside_in_mid_training(bench: Bench) -> None:
    executor = bench.executor()
    pid = run(executor).metrics["pid"]
    submit(executor, "b", sleep=0.5)
    time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    _, result = executor.next_completed()
    assert result.metrics["pid"] != pid
    assert [event[:2] for event in bench.events] == [("trial.retried", "b")]


def test_a_worker_that_dies_idle_costs_no_retry(bench: Bench) -> None:
    executor = bench.executor()
    pid = run(executor).metrics["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: gone(pid) and len(list(Path(f"/proc/{pid}/task").iterdir())) == 1)  # all threads have ended
    assert run(executor, "b").metrics["pid"] != pid
    assert bench.events == []


def test_a_death_is_seen_even_if_a_child_of_the_worker_keeps_its_pipes_open(bench: Bench) -> None:
    try:
        assert "SIGKILL" in run(bench.executor("leaves_a_child")).error
    finally:
        for mark in bench.folder.iterdir():
            os.kill(int(mark.name.split("-")[1]), signal.SIGKILL)


# -- memory -----------------------------------------------------------------------------------------------------

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts mapped memory")


@linux
def test_a_training_that_needs_too_much_memory_has_failed_and_the_next_is_unharmed(bench: Bench) -> None:
    executor = bench.executor(memory_bytes=64 * MIB)
    failed = run(executor, allocate=65 * MIB)
    assert (failed.status, failed.error) == ("failed", "MemoryError: the training needs more than 64 MiB.")
    assert bench.events == []  # no death, no retry
    assert run(executor, "b", allocate=60 * MIB).status == "finished"


@linux
def test_a_used_process_does_not_judge_what_fits(bench: Bench) -> None:
    executor = bench.executor(memory_bytes=64 * MIB)
    used = run(executor).metrics["pid"]
    failed = run(executor, "big", allocate=65 * MIB)
    assert "64 MiB" in failed.error
    assert [event[:2] for event in bench.events] == [("trial.retried", "big")]
    assert run(executor).metrics["pid"] != used


@linux
def test_torch_is_bounded_too(bench: Bench) -> None:
    executor = bench.executor("tensors", threads=2, memory_bytes=100 * MIB)
    failed = run(executor, mib=200)
    assert failed.error == "MemoryError: the training needs more than 100 MiB."
    fits = run(executor, "b", mib=60)
    assert fits.value == 60 * 2**18
    assert fits.metrics["threads"] == 2
    assert bench.events == []


def test_without_a_limit_memory_is_not_bounded(bench: Bench) -> None:
    assert run(bench.executor(), allocate=100 * MIB).status == "finished"


# -- what ends the search ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["DataError", "MissingFileError", "ConfigError"])
def test_an_error_of_the_factory_keeps_its_class(bench: Bench, kind: str) -> None:
    executor = bench.executor("refuses", kind=kind)
    with pytest.raises(AgentlabError) as caught:
        run(executor)
    assert type(caught.value) is getattr(errors, kind)
    assert (caught.value.message, caught.value.hint) == ("There is no series.", "Bring it.")
    assert workers() == []


def test_an_error_that_is_more_than_its_message_arrives_as_its_base(bench: Bench) -> None:
    with pytest.raises(errors.UsageError, match="wset") as caught:
        run(bench.executor("refuses", kind="UnknownNameError"))
    assert "west" in (caught.value.hint or "")


def test_a_set_up_that_ends_the_process_is_tried_twice_and_raised(bench: Bench) -> None:
    with pytest.raises(AgentlabError, match="died during set-up: it exited with status 9"):
        run(bench.executor("refuses", kind="exit"))
    assert len(bench.events) == 1


def test_a_factory_that_does_not_exist_says_so_in_the_log(bench: Bench) -> None:
    with pytest.raises(AgentlabError, match="has no attribute 'nonsense'"):
        run(bench.executor("nonsense"))


@pytest.mark.parametrize("kind", ["StorageError", "MissingFileError"])
def test_what_is_not_the_candidates_fault_ends_the_search(bench: Bench, kind: str) -> None:
    executor = bench.executor()
    with pytest.raises(AgentlabError) as caught:
        run(executor, **{"raise": kind})
    assert type(caught.value) is getattr(errors, kind)


def test_a_request_to_stop_ends_the_wait(bench: Bench) -> None:
    stop_time = time.monotonic() + 0.5

    def check() -> None:
        if time.monotonic() > stop_time:
            raise Interrupted("Stopped on request.")

    executor = bench.executor(check=check)
    submit(executor, sleep=30)
    with pytest.raises(Interrupted):
        executor.next_completed()
    assert time.monotonic() - stop_time < 0.5
    assert len(workers()) == 1  # it is for `close` to end them


def test_processes_that_cannot_be_started_are_an_error(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr("agentlab.workers.channel.subprocess.Popen", exhausted)
    with pytest.raises(AgentlabError, match="Cannot allocate memory"):
        submit(bench.executor())


# -- the end ----------------------------------------------------------------------------------------------------


def test_closing_ends_everything_whatever_the_workers_do(bench: Bench) -> None:
    executor = bench.executor(workers=2)
    for name in "abc":
        submit(executor, name, sleep=60)
    hung = bench.executor("hangs")
    submit(hung)
    wait_until(lambda: len(workers()) == 3)  # a process has no command line for a moment after its start
    children = [child.pid for child in workers()]
    time.sleep(0.5)
    began = time.monotonic()
    executor.close()
    executor.close()
    hung.close()
    assert time.monotonic() - began < 2
    assert all(gone(pid) for pid in children)
    with pytest.raises(IndexError):
        executor.next_completed()


def test_no_worker_survives_its_parent(bench: Bench) -> None:
    code = (
        "import time\n"
        "from agentlab.study.processes import ProcessExecutor\n"
        "from agentlab.study.state import StudyCandidate\n"
        "executor = ProcessExecutor('objectives:acts', {}, workers=2, threads=1, memory_bytes=None,\n"
        "    report=lambda *event: print(executor._workers[0].channel.pid, executor._workers[1].channel.pid,\n"
        "    flush=True), check=lambda: None)\n"
        "for name in 'ab': executor.submit(StudyCandidate(name, 0, {'epochs': 1, 'sleep': 60}))\n"
        "executor.next_completed()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=REPOSITORY)
    try:
        assert parent.stdout
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert not any(gone(pid) for pid in pids)
        parent.kill()
        parent.wait()
        wait_until(lambda: all(gone(pid) for pid in pids))
    finally:
        parent.kill()
        parent.communicate()


def test_interrupts_are_for_the_parent_and_out_of_memory_takes_the_worker_first(bench: Bench) -> None:
    executor = bench.executor()
    submit(executor, sleep=0.5)
    worker = workers()[0]
    wait_until(lambda: Path(f"/proc/{worker.pid}/oom_score_adj").read_text().strip() == "500")
    assert os.getsid(worker.pid) == worker.pid
    worker.send_signal(signal.SIGINT)
    assert executor.next_completed()[1].status == "finished"
    assert bench.events == []
