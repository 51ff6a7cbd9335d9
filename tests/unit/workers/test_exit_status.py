"""Exit statuses in words, for any worker."""

import signal

import pytest

from agentlab.workers.exit_status import describe, last_words


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_signal_is_named_however_it_is_reported(number: signal.Signals) -> None:
    assert describe(-number) == describe(128 + number)
    assert number.name in describe(-number)[0]


def test_a_worker_with_known_libraries_has_its_own_words() -> None:
    explanations = {int(signal.SIGSEGV): ("the engine crashed", "Use another.")}
    assert describe(-signal.SIGSEGV, explanations) == ("the engine crashed (SIGSEGV)", "Use another.")


@pytest.mark.parametrize("status", [0, 1, 70, 255, -64])
def test_any_other_status_has_words_too(status: int) -> None:
    assert describe(status)[0]


def test_last_words_are_short() -> None:
    assert last_words("\n".join(f"{number}" + "x" * 500 for number in range(100))).startswith("88x")
    assert len(last_words("y" * 10_000)) == 200
    assert last_words("") == ""
