"""`--debug`: prompts, answers, failures and differences, in full and without secrets."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentlab.config.base import KeyDifference
from agentlab.runs.debug import LLM_LOG, DebugLog
from agentlab.runs.redact import Redactor
from agentlab.runs.run import OpenRun, RunEnvironment, RunSpec
from agentlab.study.narrate import Proposals

KEY = "planted-key-0123456789"
USAGE = {"input_tokens": 120, "output_tokens": None, "cost_usd": 0.00125}


@pytest.fixture
def seen() -> list[str]:
    return []


@pytest.fixture
def debug(seen: list[str]) -> DebugLog:
    return DebugLog(seen.append, Proposals())


@pytest.fixture
def run(tmp_path: Path, debug: DebugLog) -> Iterator[OpenRun]:
    edge = RunEnvironment(clock=lambda: 1_800_000_000.0, redactor=Redactor([KEY]), sinks=[debug])
    with OpenRun.create(tmp_path, RunSpec("nas", "", "", "h", 0), edge) as run:
        yield run


def propose(run: OpenRun, name: str, note: str = "", **params: object) -> None:
    run.emit("trial.proposed", name, number=0, params=params, source="llm", note=note, arm="agent", probability=0.5)


def test_a_proposal_is_shown_against_the_best_so_far(run: OpenRun, debug: DebugLog, seen: list[str]) -> None:
    with debug.listening(run):
        propose(run, "run_0000", d_model=16, attention="prob", factor=5)
        run.emit("decision.made", "run_0000", accepted=True, reason="", by="rule")
        propose(run, "run_0001", "smaller", d_model=8, attention="full")
        run.emit("decision.made", "run_0001", accepted=False, reason="", by="rule")
        propose(run, "run_0002", d_model=16, attention="prob", factor=5)
    assert seen == [
        'run_0000 proposed by llm\n  d_model: 16\n  attention: "prob"\n  factor: 5',
        "run_0001 proposed by llm: smaller; changes to the best so far:\n"
        '  d_model: 16 -> 8\n  attention: "prob" -> "full"\n  factor: 5 -> (inactive)',
        "run_0002 proposed by llm; changes to the best so far:\n  none",
    ]


def test_a_resumed_run_knows_the_best_of_its_earlier_sessions(run: OpenRun, debug: DebugLog, seen: list[str]) -> None:
    propose(run, "run_0000", d_model=16)
    run.emit("decision.made", "run_0000", accepted=True, reason="", by="rule")
    with debug.listening(run):
        debug.write_resumed([KeyDifference("max_iterations", 1, 2, "budget")])
        propose(run, "run_0001", d_model=8)
    assert seen[0] == "resumed with another budget\n  max_iterations: 1 -> 2"
    assert seen[1].endswith("\n  d_model: 16 -> 8")


def test_a_study_beside_the_main_one_has_its_own_best(run: OpenRun, debug: DebugLog, seen: list[str]) -> None:
    with debug.listening(run):
        propose(run, "run_0000", d_model=16)
        run.emit("decision.made", "run_0000", accepted=True, reason="", by="rule")
        propose(run, "alone/run_0000", d_model=16)
    assert seen[-1] == "alone/run_0000 proposed by llm\n  d_model: 16"


def test_a_call_is_shown_with_every_attempt(run: OpenRun, debug: DebugLog, seen: list[str]) -> None:
    failed = {"model": "big", "error": "RateLimitedError", "message": "429", "usage": dict.fromkeys(USAGE)}
    good = {"model": "small", "error": None, "message": "", "usage": USAGE}
    call = {"task": "nas.propose", "usage": USAGE}
    with debug.listening(run):
        run.emit("llm.called", "p:1", model="small", text='{"a":\n1}', attempts=[failed, good], error=None, **call)
        error = {"kind": "AllModelsFailedError", "message": "nobody answered"}
        run.emit("llm.called", "p:2", model="", text="", attempts=[failed], error=error, **call)
    assert seen[0].splitlines() == [
        "p:1: small answered nas.propose",
        "  attempt 1, big: ? + ? tokens; RateLimitedError: 429",
        "  attempt 2, small: 120 + ? tokens, 0.001250 USD",
        '  answer: {"a":',
        "  1}",
    ]
    assert seen[1].splitlines()[0] == "p:2: no answer to nas.propose"
    assert seen[1].splitlines()[-1] == "  AllModelsFailedError: nobody answered"


def test_the_log_has_what_was_shown_without_keys_and_without_control_characters(
    run: OpenRun, debug: DebugLog, seen: list[str]
) -> None:
    with debug.listening(run):
        logging.getLogger(LLM_LOG).debug("asking\nmy key is %s \x1b[2J \ud83d", KEY)
    log = (run.path / "log.txt").read_text()
    assert log == "2027-01-15T08:00:00Z asking\nmy key is [redacted] \N{REPLACEMENT CHARACTER}[2J \\ud83d\n"
    assert len(seen) == 1


def test_nobody_listens_before_and_after(run: OpenRun, debug: DebugLog, seen: list[str]) -> None:
    logger = logging.getLogger(LLM_LOG)
    before = (logger.level, list(logger.handlers))
    with debug.listening(run):
        assert logger.isEnabledFor(logging.DEBUG)
    propose(run, "run_0000", d_model=16)
    assert (logger.level, list(logger.handlers)) == before
    assert not logger.isEnabledFor(logging.DEBUG)
    assert seen == []
    assert not (run.path / "log.txt").exists()
