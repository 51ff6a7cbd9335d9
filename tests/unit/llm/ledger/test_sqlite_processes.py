"""The ledger in a file that several processes share, some of which die."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing

import pytest

from agentlab.llm.ledger.arm import Arm, AttemptSample
from agentlab.llm.ledger.memory import fold_evidence
from agentlab.llm.ledger.rows import read_arms
from agentlab.llm.ledger.schema import connect_to_read
from agentlab.llm.ledger.statistics import read_statistics
from agentlab.llm.types import Usage

_SETUP = """
import sys, time
from pathlib import Path
from agentlab.llm.ledger.arm import AttemptSample
from agentlab.llm.ledger.sqlite import SqliteLedger
from agentlab.llm.types import Usage
ledger = SqliteLedger(Path(sys.argv[1]), 30, print)
seed = int(sys.argv[2])
def call(n):
    error = "ServerFaultError" if n % 10 == seed else None
    usage = Usage(10, 5, 0.5 if seed else None)
    return AttemptSample(time.time(), "t", "m", "p", error, usage, 0.1 + seed, 2.0 + seed, "run")
"""
_THOUSAND = _SETUP + "for n in range(1000): ledger.record(call(n)); time.sleep(0.0002)\nledger.close()"
_FOREVER = _SETUP + "n = 0\nwhile True: ledger.record(call(n)); n += 1; print(n, flush=True); time.sleep(0.001)"


def _start(code, path, seed, **options):
    return subprocess.Popen([sys.executable, "-c", code, str(path), str(seed)], stdout=subprocess.PIPE, **options)


def test_the_calls_of_two_processes_add_up(path, opened):
    """They start on no file at all, so both want to make it."""
    processes = [_start(_THOUSAND, path, seed) for seed in (0, 1)]
    assert [process.communicate(timeout=60)[0] for process in processes] == [b"", b""]
    (row,) = read_statistics(path).models
    assert (row.answered, row.errors, row.unpriced) == (1800, {"ServerFaultError": 200}, 1000)
    assert (row.input_tokens, row.output_tokens, row.cost_usd) == (20_000, 10_000, 500.0)
    assert opened().spent_since(0.0) == 500.0
    with closing(connect_to_read(path)) as db:
        calls = db.execute("SELECT at, error, cost_usd, first, total FROM calls ORDER BY id").fetchall()
        arms = read_arms(db)
    assert len(calls) == 2000
    assert len({total for *_, total in calls[:1000]}) == 2  # they took turns
    samples = [
        AttemptSample(at, "t", "m", "p", error, Usage(10, 5, cost), first, total)
        for at, error, cost, first, total in calls
    ]
    assert arms == {("t", "m"): fold_evidence(Arm(), samples)}  # as one process would have learnt it


def test_a_killed_process_loses_no_more_than_a_moment(path):
    process = _start(_FOREVER, path, 1)
    with process:
        end, reports = time.monotonic() + 1.5, []
        while time.monotonic() < end:
            reports.append((time.monotonic(), int(process.stdout.readline())))
        killed = time.monotonic()
        process.send_signal(signal.SIGKILL)
    warnings = [count for when, count in reports if when < killed - 0.5]  # 0.25 s, and as much for a busy machine
    (row,) = read_statistics(path).models
    assert row.answered + row.errors["ServerFaultError"] >= warnings[-1]
    later = subprocess.run([sys.executable, "-c", _THOUSAND, str(path), "1"], capture_output=True, timeout=60)
    assert (later.stdout, later.stderr) == (b"", b"")
    (after,) = read_statistics(path).models
    assert after.answered == row.answered + 900


_FORK = (
    _SETUP
    + """
import os
ledger.record(call(5)); ledger.spent_since(0.0)
child = os.fork()
ledger.record(call(5))
if child:
    assert os.waitpid(child, 0)[1] == 0
assert ledger.spent_since(0.0) >= 1.0, ledger.spent_since(0.0)
ledger.close()
os._exit(0) if not child else print("done")
"""
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_has_a_ledger_of_its_own(path, opened):
    process = _start(_FORK, path, 1)
    assert process.communicate(timeout=60)[0] == b"done\n"
    (row,) = read_statistics(path).models
    assert row.answered == 3
