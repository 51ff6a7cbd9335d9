"""A second model is asked when the first is slow to begin; the budget of hedges is kept."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.errors import BadRequestError, ContentFilterError, ServerFaultError
from agentlab.llm.ledger.arm import AttemptSample
from agentlab.llm.ledger.memory import MemoryLedger
from agentlab.llm.strategies import HedgeBudget
from agentlab.llm.types import Message, Usage

ASK = (Message("user", "Which?"),)


@pytest.fixture
def known_to_be_quick():
    ledger = MemoryLedger()
    for index in range(40):
        first = 0.02 * (
            1 + index % 5
        )  # scattered, so that the warm-up below is neither slow nor another kind of server
        ledger.record(
            AttemptSample(time.time() - 40 + index, "t", "one", "one", None, Usage(10, 10), first, first + 0.01)
        )
    return ledger


def hedging(among, ledger, one, two):
    return among({"one": one, "two": two}, ledger=ledger, defaults={"hedge": 0.5, "retries": 0})


def test_a_slow_beginning_brings_in_the_next_one(among, speaker, known_to_be_quick):
    slow, quick = speaker("late", pause=20), speaker("in time")
    router = hedging(among, known_to_be_quick, slow, quick)
    warm_up(slow, router)
    start = time.monotonic()
    answer = router.complete_sync(ASK, "t", call_id="slow")
    assert (answer.text, answer.model) == ("in time", "two")
    assert time.monotonic() - start < 5
    assert slow.given_up == 1


def warm_up(slow, router):
    """Two calls fill half of the budget each."""
    slow.pause, pause = 0.04, slow.pause
    for index in range(2):
        router.complete_sync(ASK, "t", call_id=str(index))
    slow.pause = pause


def test_a_quick_one_is_left_alone(among, speaker, known_to_be_quick):
    backup = speaker("unasked")
    router = hedging(among, known_to_be_quick, speaker("quick"), backup)
    for index in range(5):
        assert router.complete_sync(ASK, "t", call_id=str(index)).model == "one"
    assert backup.requests == []


def test_nobody_is_slow_who_is_not_known(among, speaker):
    backup = speaker("unasked")
    router = hedging(among, MemoryLedger(), speaker("slow", pause=0.3), backup)
    assert router.complete_sync(ASK, "t").model == "one"
    assert backup.requests == []


def test_a_first_that_fails_is_replaced_as_ever(among, speaker, known_to_be_quick):
    router = hedging(among, known_to_be_quick, speaker(ServerFaultError("down")), speaker("yes"))
    answer = router.complete_sync(ASK, "t")
    assert [attempt.model for attempt in answer.attempts] == ["one", "two"]


def test_a_refusal_is_not_shopped_around(among, speaker, known_to_be_quick):
    backup = speaker("unasked")
    router = hedging(among, known_to_be_quick, speaker(ContentFilterError("no")), backup)
    with pytest.raises(ContentFilterError):
        router.complete_sync(ASK, "t")
    assert backup.requests == []


def test_a_request_that_the_first_does_not_take_goes_on_and_if_nobody_does_the_first_is_told(
    among, speaker, known_to_be_quick
):
    refusal = BadRequestError("unknown option")
    answer = hedging(among, known_to_be_quick, speaker(refusal), speaker("yes")).complete_sync(ASK, "t")
    assert answer.model == "two"
    with pytest.raises(BadRequestError, match="one: unknown option"):
        hedging(among, known_to_be_quick, speaker(refusal), speaker(BadRequestError("no"))).complete_sync(ASK, "t")


def test_a_second_that_fails_leaves_the_slow_first(among, speaker, known_to_be_quick):
    slow = speaker("late", pause=0.6)
    router = hedging(among, known_to_be_quick, slow, speaker(ServerFaultError("down")))
    warm_up(slow, router)
    assert router.complete_sync(ASK, "t", call_id="slow").text == "late"


@given(st.floats(0.01, 0.5), st.lists(st.booleans(), max_size=200))
def test_no_more_than_the_share_is_hedged(share, wishes):
    budget, hedges = HedgeBudget(share), 0
    for wish in wishes:
        budget.count()
        hedges += wish and budget.allows()
    assert hedges <= share * len(wishes) + 1e-6
