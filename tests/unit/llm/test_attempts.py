"""The way of a question through its candidates, where it is narrow: clocks, plug-ins, tools, listeners."""

import asyncio
import time

import pytest

from agentlab.errors import (
    AllModelsFailedError,
    AuthError,
    BadRequestError,
    HostBusyError,
    ServerFaultError,
    UsageError,
)
from agentlab.llm.ledger.memory import MemoryLedger
from agentlab.llm.options import Options
from agentlab.llm.types import Message, Tool, ToolPiece, Usage

ASK = (Message("user", "Which?"),)
SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
TOOL = Tool("look_up", "Looks up.", {"type": "object", "properties": {}})
CALL = (ToolPiece(0, "c1", "look_up", "{}"),)
KEY = "sk-canary-0123456789abcdefghij"


def test_when_the_clock_has_run_out_nobody_else_is_asked_or_blamed(among, speaker):
    ledger, second = MemoryLedger(), speaker("never asked")
    clocks = {"timeout": {"total": 0.1}, "retries": 0}
    router = among({"one": speaker("late", pause=5), "two": second}, defaults=clocks, ledger=ledger)
    for index in range(3):
        with pytest.raises(AllModelsFailedError) as failed:
            router.complete_sync(ASK, "t", call_id=str(index))
        assert failed.value.failures[-1] == "two: LLMTimeoutError: Not asked: the time of the call is over."
    assert second.requests == []
    assert router.guards["two"].state(time.monotonic()) == "closed"
    assert ledger.arm("t", "two", time.time()).failures == 0


def test_a_plug_in_that_breaks_is_a_fault_of_the_provider_and_its_words_stay_inside(among, speaker):
    ledger = MemoryLedger()
    broken = speaker(ValueError(f"cannot use {KEY}"))
    answer = among({"one": broken, "two": speaker("yes")}, ledger=ledger, defaults={"retries": 0}).complete_sync(
        ASK, "t"
    )
    assert answer.model == "two"
    assert answer.attempts[0].error == "ServerFaultError"
    assert answer.attempts[0].message == "The provider failed: ValueError."
    assert ledger.arm("t", "one", time.time()).failures == pytest.approx(1, rel=0.01)


def test_a_tool_call_that_nobody_asked_for_is_no_answer_to_a_schema(among, speaker):
    class Eager(speaker):
        async def stream(self, request):
            self.tools = CALL if len(self.requests) == 0 else ()
            async for delta in super().stream(request):
                yield delta

    answer = among({"one": Eager("", '{"x": 3}')}).complete_sync(ASK, "t", options=Options(json_schema=SCHEMA))
    assert answer.value == {"x": 3}
    assert answer.attempts[0].error == "SchemaError"


def test_a_model_that_calls_a_tool_it_was_given_has_not_answered_yet(among, speaker):
    options = Options(json_schema=SCHEMA, tools=(TOOL,))
    answer = among({"one": speaker("", tools=CALL)}).complete_sync(ASK, "t", options=options)
    assert [call.name for call in answer.tool_calls] == ["look_up"]
    assert answer.value == ""


def heard(router, options):
    async def listen():
        live = router.stream(ASK, "t", options=options)
        return [delta async for delta in live], live.completion

    return asyncio.run(listen())


def test_a_remembered_tool_call_is_heard_too(among, speaker):
    ledger, options = MemoryLedger(), Options(tools=(TOOL,), cache=True)
    for cached in (False, True):
        pieces, completion = heard(among({"one": speaker("", tools=CALL)}, ledger=ledger), options)
        assert completion.cached is cached
        assert [tool.name for piece in pieces for tool in piece.tools] == ["look_up"]


def test_a_listener_hears_the_routers_own_tool_as_text(among, speaker):
    by_tool = (ToolPiece(0, "c", "answer", '{"x"'), ToolPiece(0, arguments=": 4}"))
    router = among({"one": speaker("", tools=by_tool)}, models={"one": {"caps": ["tools"]}})
    pieces, completion = heard(router, Options(json_schema=SCHEMA))
    assert "".join(piece.text for piece in pieces) == '{"x": 4}'
    assert not any(piece.tools for piece in pieces)
    assert (completion.value, completion.finish, completion.tool_calls) == ({"x": 4}, "stop", ())


def test_a_request_that_is_bad_in_every_way_of_asking_does_not_change_how_the_next_is_asked(among, speaker):
    one = speaker(*[BadRequestError("too many messages")] * 4, '{"x": 1}')
    router = among({"one": one})
    with pytest.raises(BadRequestError):
        router.complete_sync(ASK, "t", call_id="bad", options=Options(json_schema=SCHEMA))
    router.complete_sync(ASK, "t", call_id="good", options=Options(json_schema=SCHEMA))
    assert one.requests[-1].schema == SCHEMA


def test_a_model_that_is_out_of_use_says_why_every_time(among, speaker, caplog):
    refused = AuthError("the key was refused", hint="Check THE_KEY.")
    router = among({"one": speaker(refused)}, defaults={"retries": 0})
    for index in range(2):
        with pytest.raises(AllModelsFailedError) as failed:
            router.complete_sync(ASK, "t", call_id=str(index))
        assert "the key was refused" in failed.value.failures[0]
        assert failed.value.hint == "Check THE_KEY."
    assert "is not asked any more" in caplog.text


def test_a_call_that_is_given_up_has_paid_for_what_came(among, speaker):
    class Slow(speaker):
        async def stream(self, request):
            self.pause = 0.0 if not self.requests else 30.0
            async for delta in super().stream(request):
                yield delta

    router = among(
        {"one": Slow("not json")}, models={"one": {"price": {"input": 1e4, "output": 0}}}, budget={"per_run_usd": 100}
    )

    async def give_up():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await router.complete(ASK, "t", options=Options(json_schema=SCHEMA))

    asyncio.run(give_up())
    assert router.usage.cost_usd == pytest.approx(0.1)


@pytest.mark.parametrize("strategy", ["fallback", "best_of_two"])
def test_what_all_said_is_told_whatever_the_strategy(among, speaker, strategy):
    down = ServerFaultError("down")
    roles = {"primary": ["one", "two"], "duplicate": ["judge"]}
    router = among({n: speaker(down) for n in ("one", "two", "judge")}, roles=roles, defaults={"retries": 0})
    with pytest.raises(AllModelsFailedError) as failed:
        router.complete_sync(ASK, "t", options=Options(strategy=strategy))
    assert [line.split(":")[0] for line in failed.value.failures] == ["one", "two", "judge"]


def test_a_host_without_a_place_is_waited_for_and_its_model_not_blamed(among, speaker):
    ledger, full = MemoryLedger(), HostBusyError("no place", connections=2)
    router = among({"one": speaker(full, full, "yes"), "two": speaker("spare")}, ledger=ledger, defaults={"retries": 0})
    answer = router.complete_sync(ASK, "t")
    assert [attempt.error for attempt in answer.attempts] == ["HostBusyError", "HostBusyError", None]
    assert answer.model == "one"
    assert ledger.arm("t", "one", time.time()).failures == 0


def test_what_an_answer_without_usage_is_taken_to_have_cost_is_told(among, speaker):
    one = speaker("yes", usage=Usage(None, None, None))
    prices = {"one": {"price": {"input": 0, "output": 1000}}}
    answer = among({"one": one}, models=prices).complete_sync(ASK, "t", options=Options(max_tokens=100))
    assert answer.usage.cost_usd is None
    assert answer.attempts[0].assumed_usd == pytest.approx(0.1)


def test_the_callers_slip_is_not_taken_to_other_models(among, speaker):
    with pytest.raises(BadRequestError, match="nan"):
        among({"one": speaker("x")}).complete_sync(ASK, "t", options=Options(temperature=float("nan")))
    with pytest.raises(UsageError):
        among({"one": speaker(UsageError("wrong thread")), "two": speaker("x")}).complete_sync(ASK, "t")
