"""Who is asked, and in which order, by each strategy."""

import logging
import time

import pytest

from agentlab.errors import AllModelsFailedError, ServerFaultError
from agentlab.llm.ledger.arm import AttemptSample
from agentlab.llm.ledger.memory import MemoryLedger
from agentlab.llm.options import Options
from agentlab.llm.types import Message, Usage

ASK = (Message("user", "Which?"),)
DOWN = ServerFaultError("down")
ROLES = {"primary": ["one", "two"], "duplicate": ["three"], "reserve": ["four"], "fallback": ["five"]}
NAMES = ("one", "two", "three", "four", "five")


def asked_in_order(router, **options):
    with pytest.raises(AllModelsFailedError) as failed:
        router.complete_sync(ASK, "t", options=Options(**options))
    return [line.split(":")[0] for line in failed.value.failures]


@pytest.fixture
def all_down(among, speaker):
    def make(**changes):
        return among({name: speaker(DOWN) for name in NAMES}, roles=ROLES, **{"defaults": {"retries": 0}, **changes})

    return make


def test_fallback_tries_every_role_in_order(all_down):
    assert asked_in_order(all_down()) == list(NAMES)


def test_single_tries_the_first_and_then_the_last_resort(all_down):
    assert asked_in_order(all_down(), strategy="single") == ["one", "five"]


def test_one_model_by_name(all_down):
    assert asked_in_order(all_down(), model="four") == ["four"]


def test_a_task_has_a_strategy_of_its_own(all_down):
    assert asked_in_order(all_down(tasks={"t": {"strategy": "single"}})) == ["one", "five"]


def evidence(ledger, model, seconds, error=None, count=30):
    for index in range(count):
        at = time.time() - count + index
        ledger.record(AttemptSample(at, "t", model, model, error, Usage(10, 10, 0.0), seconds, seconds * 2))


def test_fastest_asks_the_quick_primary_first_and_keeps_the_other_roles_behind(all_down):
    ledger = MemoryLedger()
    evidence(ledger, "one", 4.0)
    evidence(ledger, "two", 0.1)
    evidence(ledger, "five", 0.001)
    assert asked_in_order(all_down(ledger=ledger), strategy="fastest") == ["two", "one", "three", "four", "five"]


def test_adaptive_leaves_a_model_that_always_fails_for_last(among, speaker):
    ledger = MemoryLedger()
    evidence(ledger, "one", 0.1, error="ServerFaultError", count=200)
    evidence(ledger, "two", 0.1, count=200)
    for _ in range(100):
        ledger.quality(time.time(), "t", "two", 1.0)
    router = among({"one": speaker("x"), "two": speaker("y")}, ledger=ledger)
    answers = [router.complete_sync(ASK, "t", call_id=str(i), options=Options(strategy="adaptive")) for i in range(20)]
    assert sum(answer.model == "two" for answer in answers) >= 18


def test_comparing_without_a_second_model_or_a_judge_warns_and_asks_one(among, speaker, caplog):
    router = among({"one": speaker("yes"), "two": speaker("no")})  # nobody to judge
    with caplog.at_level(logging.WARNING, "agentlab.llm"):
        assert router.complete_sync(ASK, "t", options=Options(strategy="best_of_two")).text == "yes"
    assert "duplicate" in caplog.text
    router = among({"one": speaker("yes"), "two": speaker("no")}, roles={"primary": ["one"], "duplicate": ["two"]})
    caplog.clear()
    with caplog.at_level(logging.WARNING, "agentlab.llm"):
        assert router.complete_sync(ASK, "t", options=Options(strategy="best_of_two")).text == "yes"
    assert "second model" in caplog.text


def test_that_answers_cannot_be_compared_is_said_once_for_each_task_of_a_router(among, speaker, caplog):
    compare = Options(strategy="best_of_two")
    with caplog.at_level(logging.WARNING, "agentlab.llm"):
        router = among({"one": speaker("yes"), "two": speaker("no")})
        for number in range(5):
            router.complete_sync(ASK, "t", call_id=str(number), options=compare)
        assert caplog.text.count("comparing answers needs") == 1
        router.complete_sync(ASK, "u", options=compare)
        assert [record.args[0] for record in caplog.records] == ["t", "u"]
        among({"one": speaker("yes"), "two": speaker("no")}).complete_sync(ASK, "t", options=compare)
        assert [record.args[0] for record in caplog.records] == ["t", "u", "t"]
