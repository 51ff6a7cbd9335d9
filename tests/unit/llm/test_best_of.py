"""Several answers and one judge: who is asked, what is believed, and what it costs."""

import time

import pytest

from agentlab.errors import AllModelsFailedError, ContentFilterError, ServerFaultError
from agentlab.llm.ledger.memory import MemoryLedger
from agentlab.llm.options import Options
from agentlab.llm.types import Message, Tool, ToolPiece, Usage

ASK = (Message("user", "What is 6 x 7?"),)
TWO = Options(strategy="best_of_two")
DOWN = ServerFaultError("down")


@pytest.fixture
def pair(among):
    def make(one, two, judge, **changes):
        roles = {"primary": ["one", "two"], "duplicate": ["judge"]}
        defaults = {"retries": 0, **changes.pop("defaults", {})}
        speakers = {"one": one, "two": two, "judge": judge, **changes.pop("more", {})}
        return among(speakers, roles={**roles, **changes.pop("roles", {})}, defaults=defaults, **changes)

    return make


def test_the_judge_sees_both_orders_and_its_choice_wins(pair, speaker):
    judge = speaker('{"best": "B"}', '{"best": "A"}')  # the same answer, in either order
    router = pair(speaker("41"), speaker("42"), judge)
    answer = router.complete_sync(ASK, "t", options=TWO)
    assert (answer.text, answer.model) == ("42", "two")
    first, second = (request.messages[1].content for request in judge.requests)
    assert "<answer A>\n41" in first
    assert "<answer A>\n42" in second


def test_answers_that_agree_are_not_judged(pair, speaker):
    judge = speaker(DOWN)
    answer = pair(speaker("Forty  two."), speaker("forty two"), judge).complete_sync(ASK, "t", options=TWO)
    assert answer.text == "Forty  two."
    assert judge.requests == []


def test_everything_that_was_asked_is_counted(pair, speaker):
    prices = {name: {"price": {"input": 1e5, "output": 0}} for name in ("one", "two", "judge")}
    judge = speaker('{"best": "A"}', '{"best": "B"}', usage=Usage(3, 1))
    router = pair(
        speaker("41", usage=Usage(1, 1)), speaker("42", usage=Usage(2, 1)), judge, models=prices,
        budget={"per_run_usd": 1000},
    )  # fmt: skip
    answer = router.complete_sync(ASK, "t", options=TWO)
    assert answer.model == "one"
    assert answer.usage.cost_usd == pytest.approx((1 + 2 + 3 + 3) * 0.1)
    assert router.usage.cost_usd == pytest.approx(0.9)


@pytest.mark.parametrize("verdicts", [('{"best": "A"}', '{"best": "A"}'), (DOWN,), ("no idea",), ('{"best": "H"}',)])
def test_a_judge_that_wavers_or_fails_leaves_it_to_what_was_learnt(pair, speaker, verdicts):
    ledger = MemoryLedger()
    for _ in range(10):
        ledger.quality(time.time(), "t", "two", 1.0)
        ledger.quality(time.time(), "t", "one", 0.0)
    router = pair(speaker("41"), speaker("42"), speaker(*verdicts), ledger=ledger)
    assert router.complete_sync(ASK, "t", options=TWO).model == "two"


def test_verdicts_are_remembered_as_quality(pair, speaker):
    ledger = MemoryLedger()
    router = pair(speaker("41"), speaker("42"), speaker('{"best": "B"}', '{"best": "A"}'), ledger=ledger)
    router.complete_sync(ASK, "t", options=TWO)
    now = time.time()
    assert ledger.arm("t", "two", now).quality_sum == pytest.approx(1, rel=0.01)
    assert ledger.arm("t", "one", now).quality_sum == 0
    assert ledger.arm("t", "one", now).quality_count == pytest.approx(1, rel=0.01)


def test_one_that_fails_leaves_the_other(pair, speaker):
    answer = pair(speaker(DOWN), speaker("42"), speaker(DOWN)).complete_sync(ASK, "t", options=TWO)
    assert answer.model == "two"
    assert [attempt.error for attempt in answer.attempts] == ["ServerFaultError", None]


def test_when_both_fail_the_rest_of_the_chain_is_asked(pair, speaker):
    judge = speaker("the judge can answer, too")
    answer = pair(speaker(DOWN), speaker(DOWN), judge).complete_sync(ASK, "t", options=TWO)
    assert answer.model == "judge"
    router = pair(speaker(DOWN), speaker(DOWN), speaker(DOWN))
    with pytest.raises(AllModelsFailedError):
        router.complete_sync(ASK, "t", options=TWO)


def test_a_straggler_is_given_up_after_a_grace(pair, speaker):
    slow = speaker("42", pause=30)
    start = time.monotonic()
    answer = pair(speaker("41"), slow, speaker(DOWN)).complete_sync(ASK, "t", options=TWO)
    assert answer.model == "one"
    assert time.monotonic() - start < 5
    assert slow.given_up == 1


def test_three_answers(pair, speaker):
    judge = speaker('{"best": "C"}', '{"best": "A"}')
    router = pair(
        speaker("41"), speaker("43"), judge, more={"three": speaker("42")}, defaults={"answers": 3},
        roles={"primary": ["one", "two", "three"]},
    )  # fmt: skip
    answer = router.complete_sync(ASK, "t", options=Options(strategy="best_of_n"))
    assert answer.text == "42"


def test_a_verdict_that_was_none_teaches_nothing(pair, speaker):
    ledger = MemoryLedger()
    pair(speaker("41"), speaker("42"), speaker(DOWN), ledger=ledger).complete_sync(ASK, "t", options=TWO)
    assert ledger.arm("t", "one", time.time()).quality_count == 0


def test_what_the_models_call_is_part_of_what_is_judged(pair, speaker):
    def calls(arguments):
        return speaker("", tools=[ToolPiece(0, "c", "rm", arguments)])

    judge = speaker('{"best": "B"}', '{"best": "A"}')
    router = pair(calls('{"all": true}'), calls('{"all": false}'), judge)
    options = Options(strategy="best_of_two", tools=(Tool("rm", "", {"type": "object"}),))
    answer = router.complete_sync(ASK, "t", options=options)
    assert answer.tool_calls[0].arguments == '{"all": false}'
    assert 'rm({"all": true})' in judge.requests[0].messages[1].content


def test_a_refusal_is_not_shopped_around(pair, speaker):
    judge = speaker("the judge would answer")
    router = pair(speaker(ContentFilterError("no")), speaker(ContentFilterError("no")), judge)
    with pytest.raises(ContentFilterError) as refused:
        router.complete_sync(ASK, "t", options=TWO)
    assert "another model" in str(refused.value.hint)
    assert judge.requests == []
