"""Attempts to record, and a ledger in a file whose complaints are heard."""

import pytest

from agentlab.llm.ledger.arm import AttemptSample, CachedAnswer
from agentlab.llm.ledger.sqlite import SqliteLedger
from agentlab.llm.types import Timing, Usage

NOW = 1_800_000_000.0


@pytest.fixture
def sample():
    def make(at=NOW, cost=0.25, error=None, model="m", task="t", first=0.5, total=2.0):
        return AttemptSample(at, task, model, "p", error, Usage(100, 40, cost), first, total, "run")

    return make


@pytest.fixture
def answer():
    def make(text="forty-two", at=NOW):
        return CachedAnswer(text, (), "stop", "m", Usage(1, 2, None), Timing(None, 0.5), at)

    return make


@pytest.fixture
def warnings():
    return []


@pytest.fixture
def path(tmp_path):
    return tmp_path / ".agentlab" / "llm.sqlite"


@pytest.fixture
def opened(path, warnings):
    """Opens ledgers, of one file unless told otherwise, and closes them."""
    ledgers = []

    def make(file=path, keep_days=36_500):
        ledgers.append(SqliteLedger(file, keep_days, warnings.append))
        return ledgers[-1]

    yield make
    for ledger in ledgers:
        ledger.close()
