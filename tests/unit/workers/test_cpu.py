"""Code that would compute for ever is stopped, by the processor time it takes."""

import contextlib
import signal
import threading
import time

import pytest

from agentlab.workers import cpu


def compute_for_ever() -> None:
    while True:
        with contextlib.suppress(Exception):  # as jinja2 does with constants
            sum(range(10**5))


def test_what_computes_too_long_is_stopped_whatever_it_catches() -> None:
    handler = signal.getsignal(signal.SIGVTALRM)
    with pytest.raises(cpu.OutOfTimeError, match=r"more than 0\.05 seconds"), cpu.at_most(0.05):
        compute_for_ever()
    assert signal.getsignal(signal.SIGVTALRM) is handler
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0, 0)


def test_waiting_takes_no_time() -> None:
    with cpu.at_most(0.05):
        time.sleep(0.2)


def test_another_thread_is_not_bounded_and_not_disturbed() -> None:
    done = []

    def work() -> None:
        with cpu.at_most(0.001):
            done.append(sum(range(10**6)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [sum(range(10**6))]
