"""What is counted per model while a process asks."""

import pytest

from agentlab.llm.ledger.memory import MemoryLedger
from agentlab.llm.ledger.sample import Sample
from agentlab.llm.tally import ModelTally, TallyingLedger, fastest
from agentlab.llm.types import Usage


def sample(model="a", error=None, total=1.0, usage=Usage(10, 5, 0.01)):  # noqa: B008 - frozen
    return Sample(1.0, "chat", model, "p", error, usage, None, total, "")


@pytest.fixture
def inner():
    return MemoryLedger()


@pytest.fixture
def ledger(inner):
    return TallyingLedger(inner, ("a", "b"))


def test_a_model_that_was_never_asked_has_no_time(ledger):
    assert ledger.tallies() == {"a": ModelTally("a"), "b": ModelTally("b")}


def test_answers_and_errors_are_counted_and_the_latest_answer_timed(ledger):
    for each in (
        sample(total=2.0),
        sample(error="RateLimitedError", total=9.0, usage=Usage()),
        sample(error="RateLimitedError", usage=Usage()),
        sample(error="LLMTimeoutError", usage=Usage()),
        sample(total=0.5),
    ):
        ledger.record(each)
    tally = ledger.tallies()["a"]
    assert (tally.success_count, tally.error_count, tally.last_response_time) == (2, 3, 0.5)
    assert tally.errors == {"RateLimitedError": 2, "LLMTimeoutError": 1}
    assert tally.usage == Usage(20, 10, 0.02)


def test_an_unknown_cost_stays_unknown(ledger):
    ledger.record(sample(usage=Usage(10, 5, None)))
    assert ledger.tallies()["a"].usage.cost_usd is None


def test_the_ledger_behind_it_hears_everything(ledger, inner):
    ledger.record(sample())
    ledger.quality(1.0, "chat", "a", 1.0)
    arm = inner.arm("chat", "a", 1.0)
    assert (arm.successes, arm.quality_count) == (1, 1)
    assert ledger.arm("chat", "a", 1.0) == arm
    assert ledger.spent_since(0) == pytest.approx(0.01)


def test_the_fastest_is_the_one_with_the_quickest_latest_answer():
    slow, quick = ModelTally("slow", 2.0, 1), ModelTally("quick", 0.1, 1)
    assert fastest([ModelTally("never"), slow, quick]) is quick
    assert fastest([ModelTally("never")]) is None
    assert fastest([]) is None
