"""Exit statuses in words."""

import signal

import pytest

from agentlab.gguf.deaths import describe


@pytest.mark.parametrize(
    ("number", "word"),
    [
        (signal.SIGABRT, "check inside llama.cpp"),
        (signal.SIGSEGV, "crashed"),
        (signal.SIGILL, "another processor"),
        (signal.SIGKILL, "want of memory"),
    ],
)
def test_a_signal_is_named_however_it_is_reported(number: signal.Signals, word: str) -> None:
    for status in (-number, 128 + number):
        cause, _ = describe(status)
        assert word in cause
        assert number.name in cause


def test_a_binary_for_another_processor_is_to_be_rebuilt() -> None:
    assert "--no-binary llama-cpp-python" in (describe(132)[1] or "")


@pytest.mark.parametrize("status", [0, 1, 70, 255, -64])
def test_any_other_status_has_words_too(status: int) -> None:
    assert describe(status)[0]
