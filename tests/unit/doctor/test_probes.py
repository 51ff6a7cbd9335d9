"""A probe's process may print, fail or die; the answer is always a finding.

Slower than most unit tests: the real probes load torch and bitsandbytes (some seconds).
"""

import pytest

from agentlab.doctor import checks
from agentlab.doctor.probes import ask, understand


def test_only_the_last_line_counts() -> None:
    assert understand(0, b'a library says hello\n\n{"version": "1"}\n', b"").values == {"version": "1"}


@pytest.mark.parametrize(
    ("status", "out", "log", "word"),
    [
        (-11, b"", b"", "signal 11"),
        (1, b"", b"Traceback ...\nImportError: no libfoo\n", "no libfoo"),
        (1, b"", b"", "exit status 1"),
        (0, b"", b"", "no usable answer"),
        (0, b"[1, 2]", b"", "no usable answer"),
        (0, b"not json", b"", "no usable answer"),
    ],
)
def test_whatever_goes_wrong_is_said(status: int, out: bytes, log: bytes, word: str) -> None:
    probe = understand(status, out, log)
    assert probe.values == {}
    assert word in (probe.error or "")


def test_a_probe_runs_in_its_own_process() -> None:
    assert "KeyError" in (ask("no such probe").error or "")


def test_the_real_libraries_give_what_the_checks_read() -> None:
    hardware, llama, quantised = (ask(name) for name in ("hardware", "llama_cpp", "bitsandbytes"))
    for row in (
        checks.torch(hardware),
        checks.llama_cpp(llama),
        checks.bitsandbytes(quantised),
    ):
        assert row.status == "ok", row.detail
    assert checks.gpu_offload(llama, hardware).detail
