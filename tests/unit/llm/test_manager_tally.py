"""What is counted per model while a process asks."""

import pytest

from agentlab.llm.ledger.arm import AttemptSample
from agentlab.llm.ledger.memory import MemoryLedger
from agentlab.llm.manager import ModelTally, Tallies, fastest
from agentlab.llm.types import Message, Usage


def sample(model="a", error=None, total=1.0, usage=Usage(10, 5, 0.01)):  # noqa: B008 - frozen
    return AttemptSample(1.0, "chat", model, "p", error, usage, None, total, "")


@pytest.fixture
def tallies():
    return Tallies(("a", "b"))


def test_a_model_that_was_never_asked_has_no_time(tallies):
    assert tallies.all() == {"a": ModelTally("a"), "b": ModelTally("b")}


def test_answers_and_errors_are_counted_and_the_latest_answer_timed(tallies):
    for attempt in (
        sample(total=2.0),
        sample(error="RateLimitedError", total=9.0, usage=Usage()),
        sample(error="RateLimitedError", usage=Usage()),
        sample(error="LLMTimeoutError", usage=Usage()),
        sample(total=0.5),
    ):
        tallies.count(attempt)
    tally = tallies.all()["a"]
    assert (tally.success_count, tally.error_count, tally.last_response_time) == (2, 3, 0.5)
    assert tally.errors == {"RateLimitedError": 2, "LLMTimeoutError": 1}
    assert tally.usage == Usage(20, 10, 0.02)


def test_an_unknown_cost_stays_unknown(tallies):
    tallies.count(sample(usage=Usage(10, 5, None)))
    assert tallies.all()["a"].usage.cost_usd is None


def test_it_is_told_of_every_attempt_beside_the_ledger(among, speaker):
    tallies, ledger = Tallies(("one",)), MemoryLedger()
    among({"one": speaker("yes")}, ledger=ledger, on_sample=tallies.count).complete_sync(
        (Message("user", "Which?"),), "chat"
    )
    assert tallies.all()["one"].success_count == 1
    assert ledger.arm("chat", "one", 1.0).successes == 1


def test_the_fastest_is_the_one_with_the_quickest_latest_answer():
    slow, quick = ModelTally("slow", 2.0, 1), ModelTally("quick", 0.1, 1)
    assert fastest([ModelTally("never"), slow, quick]) is quick
    assert fastest([ModelTally("never")]) is None
    assert fastest([]) is None
