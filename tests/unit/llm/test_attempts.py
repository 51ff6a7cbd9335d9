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
from agentlab.llm.types import Delta, Message, Tool, ToolPiece, Usage

ASK = (Message("user", "Which?"),)
SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
TOOL = Tool("look_up", "Looks up.", {"type": "object", "properties": {}})
CALL = (ToolPiece(0, "c1", "look_up", "{}"),)
KEY = "sk-canary-0123456789abcdefghij"


SILENT = {"timeout": {"total": 0.4}, "retries": 0}


@pytest.mark.parametrize("strategy", ["single", "fallback", "fastest", "adaptive", "best_of_two", "best_of_n"])
def test_a_silent_model_leaves_those_behind_it_their_share_of_the_clock(among, speaker, strategy):
    models = {"one": speaker("late", pause=9), "two": speaker("late", pause=9), "three": speaker("yes")}
    roles = {"primary": ["one", "two"], "fallback": ["three"]}
    if strategy.startswith("best"):
        roles = {"primary": ["one", "two"], "duplicate": ["three"]}
    options = Options(strategy=strategy)
    answer = among(models, defaults=SILENT, roles=roles).complete_sync(ASK, "t", options=options)
    assert (answer.text, answer.model) == ("yes", "three")
    assert {attempt.error for attempt in answer.attempts[:-1]} <= {"LLMTimeoutError"}


def test_who_is_heard_has_the_whole_clock_and_who_is_not_has_a_share(among, speaker):
    class Slow(speaker):
        async def stream(self, request):
            async for delta in super().stream(request):
                yield delta
                await asyncio.sleep(0.25)

    models = {"one": Slow("a b c d"), "two": speaker("yes")}
    clocks = {"timeout": {"total": 2.0}, "retries": 0}  # a second for each
    models["one"].pause = 0.5
    assert heard(among(models, defaults=clocks), Options())[1].text == "a b c d"
    assert among(models, defaults=clocks).complete_sync(ASK, "t").text == "yes"


def test_a_model_that_is_out_of_use_keeps_no_share(among, speaker):
    models = {"one": speaker("at last", pause=0.6), "two": speaker(AuthError("no"))}
    router = among(models, defaults={"timeout": {"total": 1.0}, "retries": 0})
    with pytest.raises(AllModelsFailedError):
        router.complete_sync(ASK, "t", options=Options(model="two"))
    assert router.complete_sync(ASK, "t").text == "at last"


def test_nobody_is_asked_after_the_clock_has_run_out(among, speaker):
    ledger, second = MemoryLedger(), speaker("never asked")

    class Blocking(speaker):
        async def stream(self, request):
            time.sleep(0.2)
            raise ServerFaultError("down")
            yield

    router = among({"one": Blocking(""), "two": second}, defaults=SILENT | {"timeout": {"total": 0.1}}, ledger=ledger)
    with pytest.raises(AllModelsFailedError) as failed:
        router.complete_sync(ASK, "t")
    assert failed.value.failures[-1] == "two: LLMTimeoutError: Not asked: the call is out of time."
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
    assert answer.attempts[0].error == "MalformedReplyError"


@pytest.mark.parametrize("tools", [Options(), Options(tools=(TOOL,), tool_choice="none")])
def test_a_tool_call_that_nobody_asked_for_is_a_failure_and_the_next_model_answers(among, speaker, tools):
    models = {"one": speaker("", tools=CALL), "two": speaker("yes")}
    answer = among(models, defaults={"retries": 0}).complete_sync(ASK, "t", options=tools)
    assert (answer.text, answer.tool_calls) == ("yes", ())
    assert "calls a tool, but none was offered" in answer.attempts[0].message
    pieces, answer = heard(among(models, defaults={"retries": 0}), tools)
    assert ([piece.text for piece in pieces], answer.text) == (["yes"], "yes")


def test_words_beside_a_tool_call_that_nobody_asked_for_are_an_answer(among, speaker):
    router = among({"one": speaker("yes", tools=CALL)})
    pieces, answer = heard(router, Options())
    assert (answer.text, answer.tool_calls, answer.finish) == ("yes", (), "stop")
    assert not any(piece.tools for piece in pieces)


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
    assert "is no longer used" in caplog.text


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


def test_a_whole_answer_is_not_lost_to_the_wait_for_its_usage(among, speaker):
    class Lingering(speaker):
        async def stream(self, request):
            yield Delta("yes")
            yield Delta(finish="stop")
            await asyncio.sleep(0.5)  # the connection stays open

    answer = among({"one": Lingering("yes")}, defaults={"timeout": {"total": 0.3}}).complete_sync(ASK, "t")
    assert (answer.text, answer.finish) == ("yes", "stop")


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
