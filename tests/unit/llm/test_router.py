"""The router as a command uses it, over real servers: who is asked, what is recorded, what it costs, how it stops."""

import asyncio
import signal
import threading
import time
from typing import Literal

import pytest
from pydantic import BaseModel

from agentlab import errors
from agentlab.llm.config import LLMConfig
from agentlab.llm.recorder import RunRecorder
from agentlab.llm.router import Options, Router
from agentlab.llm.types import Delta, Message, Tool, ToolCall, Usage
from agentlab.runs.redact import Redactor
from agentlab.runs.run import OpenRun, RunEnvironment, RunSpec
from agentlab.runs.stop import StopFlag

ASK = [Message("user", "Which one?")]


class Pick(BaseModel):
    """A question of pick tier."""

    choice: Literal["A", "B", "C"]


@pytest.fixture
def run(tmp_path, key):
    spec = RunSpec("nas", "", "", "hash", seed=0)
    with OpenRun.create(tmp_path / "runs", spec, RunEnvironment(redactor=Redactor([key]))) as run:
        yield run


def test_a_typed_answer(serve, route):
    server = serve()
    server(server.says('Of course: {"choice": "B"}'))
    answer = route([server]).complete_sync(ASK, "nas.propose", Pick)
    assert answer.value == Pick(choice="B")
    assert (answer.model, answer.cached, len(answer.attempts)) == ("m0", False, 1)
    assert server.bodies[0]["model"] == "id0"
    assert server.bodies[0]["response_format"]["json_schema"]["schema"]["required"] == ["choice"]


def test_async_and_sync_share_connections_and_counts(serve, route):
    server = serve()
    server(server.says("Paris"))
    router = route([server])

    async def both():
        first = await router.complete(ASK, "general")
        second = await asyncio.gather(*(router.complete(ASK, "general") for _ in range(3)))
        return [first, *second]

    assert [answer.value for answer in asyncio.run(both())] == ["Paris"] * 4
    assert asyncio.run(router.complete(ASK, "general")).text == "Paris"  # another loop, the same router
    assert router.complete_sync(ASK, "general").text == "Paris"
    assert router.usage == Usage(60, 6, None)


# -- fallback -----------------------------------------------------------------------------------------------------

# what the first server does, the error it is noted as, and how often it is asked before the second one is
FALLBACKS = {
    "500": (lambda s: s.status(500), "ServerFaultError", 2),
    "no HTTP": (lambda s: s.raw(b"hello\r\n\r\n"), "MalformedReplyError", 2),
    "reset": (lambda s: s.resets(), "LLMConnectionError", 2),
    "429": (lambda s: s.status(429, "{}", "Retry-After: 60\r\n"), "RateLimitedError", 1),
    "402": (lambda s: s.status(402), "QuotaError", 1),
    "401": (lambda s: s.status(401), "AuthError", 1),
    "404": (lambda s: s.status(404), "UnknownModelError", 1),
    "silence": (lambda s: s.silent(), "LLMTimeoutError", 1),
    "cut": (lambda s: s.says("Lon don", finish=None, done=False), "LLMTruncatedError", 1),
    "empty": (lambda s: s.says(""), "MalformedReplyError", 2),
}


@pytest.mark.parametrize("fault", FALLBACKS)
def test_the_next_model_answers_whole_and_unmixed(serve, route, fault):
    behave, kind, times = FALLBACKS[fault]
    bad, good = serve(), serve()
    bad(behave(bad))
    good(good.says("Paris"))
    answer = route([bad, good]).complete_sync(ASK, "general")
    assert answer.text == "Paris"
    assert [attempt.error for attempt in answer.attempts] == [kind] * times + [None]
    assert (len(bad.bodies), len(good.bodies)) == (times, 1)


def test_a_passing_fault_is_tried_again_at_the_same_model(serve, route):
    server, fallback = serve(), serve()
    server(server.status(503), server.says("Paris"))
    fallback(fallback.says("London"))
    assert route([server, fallback]).complete_sync(ASK, "general").text == "Paris"
    assert fallback.bodies == []


def test_the_only_model_is_waited_for_when_it_limits_the_rate(serve, route):
    server = serve()
    server(server.status(429, "{}", "Retry-After-Ms: 200\r\n"), server.says("Paris"))
    start = time.monotonic()
    assert route([server]).complete_sync(ASK, "general").text == "Paris"
    assert 0.2 <= time.monotonic() - start < 1


def test_a_wait_that_the_clock_does_not_allow_is_not_begun(serve, route):
    server = serve()
    server(server.status(429, "{}", "Retry-After: 60\r\n"))
    start = time.monotonic()
    with pytest.raises(errors.AllModelsFailedError, match="RateLimitedError"):
        route([server]).complete_sync(ASK, "general")
    assert time.monotonic() - start < 0.5


def test_a_slow_but_steady_answer_may_take_longer_than_its_beginning(serve, route):
    server = serve()

    def steady(_, peer):
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for letter in "slowly":
            time.sleep(0.1)
            peer.sendall(f'data: {{"choices": [{{"delta": {{"content": "{letter}"}}}}]}}\n\n'.encode())
        peer.sendall(b"data: [DONE]\n\n")

    server(steady)
    assert route([server]).complete_sync(ASK, "general").text == "slowly"


@pytest.mark.parametrize("status", [400, 404, 409, 422])
def test_what_one_model_refuses_the_next_one_is_asked_once(serve, route, status):
    bad, fallback = serve(), serve()
    bad(bad.status(status, {"error": {"message": "no"}}))
    fallback(fallback.says("Paris"))
    assert route([bad, fallback]).complete_sync(ASK, "general").model == "m1"
    assert (len(bad.bodies), len(fallback.bodies)) == (1, 1)


def test_what_all_refuse_is_told_with_the_first_model_and_a_remedy(serve, route):
    bad, fallback = serve(), serve()
    bad(bad.status(400, {"error": {"message": "no such option"}}))
    fallback(fallback.status(422, {"detail": "neither"}))
    with pytest.raises(errors.BadRequestError, match="m0: HTTP 400: no such option") as caught:
        route([bad, fallback]).complete_sync(ASK, "general")
    assert caught.value.hint
    assert (len(bad.bodies), len(fallback.bodies)) == (1, 1)


def test_an_overflowing_prompt_goes_to_a_larger_window_only(serve, route):
    small, same, large = serve(), serve(), serve()
    small(small.status(400, {"error": {"code": "context_length_exceeded"}}))
    same(same.says("never"))
    large(large.says("Paris"))
    router = route([small, same, large], m0={"context": 2048}, m1={"context": 2048}, m2={"context": 8192})
    assert router.complete_sync(ASK, "general").model == "m2"
    assert same.bodies == []


def test_a_window_that_should_hold_the_prompt_is_the_last_resort(serve, route):
    """The first server's window is smaller than its config says."""
    misled, down, same = serve(), serve(), serve()
    misled(misled.status(400, {"error": {"code": "context_length_exceeded"}}))
    down(down.status(404, {"error": {"message": "No such model"}}))
    same(same.says("Paris"))
    router = route([misled, same, down], m0={"context": 2048}, m1={"context": 2048}, m2={"context": 8192})
    assert router.complete_sync(ASK, "general").model == "m1"


def test_when_all_fail_every_attempt_has_a_line(serve, route, refusing_url, key):
    bad = serve()
    bad(bad.status(401, {"error": {"message": f"{key} is not valid"}}))
    with pytest.raises(errors.AllModelsFailedError) as caught:
        route([refusing_url, bad]).complete_sync(ASK, "nas.propose")
    lines = caught.value.failures
    assert [line.split(": ")[:2] for line in lines] == [
        ["m0", "LLMConnectionError"],
        ["m0", "LLMConnectionError"],
        ["m1", "AuthError"],
    ]
    assert "nas.propose" in caught.value.message
    assert caught.value.hint == "Check that the server is running and that the address is right."
    assert key not in repr(caught.value) + "".join(lines)


def test_one_clock_for_the_whole_call(serve, route):
    dripping, silent = serve(), serve()
    word = b'data: {"choices": [{"delta": {"content": "x"}}]}\n\n'
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    dripping(dripping.drips(head, piece=word))
    silent(silent.silent())
    start = time.monotonic()
    with pytest.raises(errors.AllModelsFailedError) as caught:
        route([dripping, silent], timeout={"total": 0.4}).complete_sync(ASK, "general")
    assert time.monotonic() - start < 0.8
    assert "within 0.2 seconds" in caught.value.failures[0]
    assert len(silent.bodies) == 1


def test_roles_and_tasks_decide_the_order(serve, home):
    servers = [serve(), serve(), serve()]
    for index, server in enumerate(servers):
        server(server.says(f"model{index}"))
    config = LLMConfig.model_validate(
        {
            "providers": {f"p{i}": {"kind": "openai_compat", "base_url": s.url} for i, s in enumerate(servers)},
            "models": {
                "large": {"provider": "p0", "id": "x"},
                "small": {"provider": "p1", "id": "x", "tier": "pick"},
                "middle": {"provider": "p2", "id": "x", "tier": "edit"},
            },
            "roles": {"fallback": ["small"], "primary": ["large"], "duplicate": ["middle"]},
            "tasks": {"judge": {"roles": ["duplicate"], "temperature": 0.5, "max_tokens": 7}},
        },
        context={"env": {}},
    )
    with Router(config, env={}, workspace=home) as router:
        assert router.complete_sync(ASK, "general").text == "model0"
        assert router.complete_sync(ASK, "judge").text == "model2"
        assert (router.tier("general"), router.tier("judge")) == ("pick", "edit")
    assert (servers[2].bodies[0]["temperature"], servers[2].bodies[0]["max_tokens"]) == (0.5, 7)


# -- structured answers -------------------------------------------------------------------------------------------


def test_a_rejected_answer_is_asked_for_once_more_with_what_was_wrong(serve, route):
    server = serve()
    server(server.says('{"choice": "D"}'), server.says('{"choice": "A"}'))
    answer = route([server]).complete_sync(ASK, "nas.propose", Pick)
    assert answer.value.choice == "A"
    assert [attempt.error for attempt in answer.attempts] == ["SchemaError", None]
    assert answer.usage.input_tokens == 20
    question, bad, complaint = server.bodies[1]["messages"]
    assert question["content"] == "Which one?"
    assert bad == {"role": "assistant", "content": '{"choice": "D"}'}
    assert "choice: Input should be 'A', 'B' or 'C'" in complaint["content"]


def test_a_model_that_cannot_follow_the_schema_is_left_after_two_answers(serve, route):
    bad, good = serve(), serve()
    bad(bad.says("B, I think"))
    good(good.says('{"choice": "C"}'))
    answer = route([bad, good]).complete_sync(ASK, "nas.propose", Pick)
    assert (answer.value.choice, answer.model, len(bad.bodies)) == ("C", "m1", 2)


def test_an_answer_is_never_longer_than_what_is_recorded(serve, route):
    server = serve()
    server(server.says(" ".join(["x" * 3_000] * 100)))
    with pytest.raises(errors.AllModelsFailedError, match="longer than 262144"):
        route([server], retries=0).complete_sync(ASK, "general")


# -- the record ---------------------------------------------------------------------------------------------------


def test_a_resumed_run_hears_what_it_heard_before(serve, route, run):
    server = serve()
    server(server.says('{"choice": "B"}', cost=0.01))
    first = route([server], recorder=RunRecorder(run)).complete_sync(ASK, "nas.propose", Pick, call_id="trial-3")
    event = run.events[-1]
    assert (event.type, event.id, event.data["task"]) == ("llm.called", "trial-3", "nas.propose")

    server(server.says('{"choice": "C"}'))
    resumed = route([server], recorder=RunRecorder(run))
    second = resumed.complete_sync(ASK, "nas.propose", Pick, call_id="trial-3")
    assert second.cached
    assert (second.value, second.text, second.model, second.attempts) == (
        first.value,
        first.text,
        first.model,
        first.attempts,
    )
    assert resumed.usage == first.usage  # counted once
    assert len(server.bodies) == 1
    assert resumed.complete_sync(ASK, "nas.propose", Pick, call_id="trial-4").value.choice == "C"


def test_failures_are_replayed_too(serve, route, run):
    server = serve()
    server(server.silent())
    with pytest.raises(errors.AllModelsFailedError) as live:
        route([server], recorder=RunRecorder(run)).complete_sync(ASK, "nas.propose")
    server(server.says("better now"))
    start = time.monotonic()
    with pytest.raises(errors.AllModelsFailedError) as replayed:
        asyncio.run(route([server], recorder=RunRecorder(run)).complete(ASK, "nas.propose"))
    assert time.monotonic() - start < 0.2
    assert (replayed.value.message, replayed.value.failures) == (live.value.message, live.value.failures)


def test_the_key_is_nowhere_in_a_run(serve, route, run, key):
    server = serve()
    server(
        server.status(400, {"error": {"message": f"bad key {key}"}}),
        server.says(f"your key is {key}"),
    )
    router = route([server], recorder=RunRecorder(run))
    with pytest.raises(errors.BadRequestError) as caught:
        router.complete_sync(ASK, "a")
    assert router.complete_sync(ASK, "b").text == "your key is [redacted]"
    run.log(str(caught.value))
    written = b"".join(path.read_bytes() for path in run.path.rglob("*") if path.is_file())
    assert b"llm.called" in written
    assert key.encode() not in written
    assert key not in str(caught.value)


def test_half_a_surrogate_pair_in_an_answer_can_be_recorded(serve, route, run):
    server = serve()
    server(server.events('{"choices": [{"delta": {"content": "Gr\\u00fc\\ud83d"}, "finish_reason": "stop"}]}'))
    assert route([server], recorder=RunRecorder(run)).complete_sync(ASK, "general").text == "Grü?"
    assert route([server], recorder=RunRecorder(run)).complete_sync(ASK, "general").text == "Grü?"


class _Raises:
    """A model of somebody else's that raises."""

    def __init__(self, error):
        self.error = error

    async def stream(self, request):
        raise self.error
        yield Delta()

    async def close(self):
        pass


def test_a_call_that_was_cancelled_is_asked_again_on_resume(llm_config, home, run):
    config = llm_config(["https://example.org"])
    router = Router(
        config,
        env={},
        workspace=home,
        recorder=RunRecorder(run),
        models={"m0": _Raises(errors.LLMCancelledError("closed"))},
    )
    with router, pytest.raises(errors.LLMCancelledError):
        router.complete_sync(ASK, "general")
    assert run.events == []


def test_no_error_of_a_plug_in_shows_a_key_of_the_environment(llm_config, home, key):
    model = _Raises(errors.BadRequestError(f"headers were {{'x-key': '{key}'}}"))
    router = Router(
        llm_config(["https://example.org"]), env={"OTHER_API_KEY": key}, workspace=home, models={"m0": model}
    )
    with router, pytest.raises(errors.BadRequestError, match="headers were") as caught:
        router.complete_sync(ASK, "general")
    assert key not in str(caught.value) + caught.value.message


@pytest.mark.parametrize("part", ["content", "tool_calls", "tools", "stop", "json_schema"])
def test_no_part_of_a_request_carries_a_secret_of_the_environment(llm_config, home, key, part):
    call = ToolCall("1", "look", f'{{"at": "{key}"}}')
    messages = {
        "content": [Message("user", f"It is {key}")],
        "tool_calls": [*ASK, Message("assistant", "", (call,)), Message("tool", "seen", tool_call_id="1")],
    }
    options = {
        "tools": Options(tools=(Tool("look", f"Use {key}", {"type": "object"}),)),
        "stop": Options(stop=(key,)),
        "json_schema": Options(json_schema={"type": "object", "properties": {key: {}}}),
    }
    router = Router(llm_config(["https://example.org"]), env={"OTHER_API_KEY": key}, workspace=home)
    with router, pytest.raises(errors.DataError, match="value of OTHER_API_KEY"):
        router.complete_sync(messages.get(part, ASK), "general", options=options.get(part, Options()))


def test_no_text_to_embed_carries_a_secret_of_the_environment(llm_config, home, key):
    router = Router(llm_config(["https://example.org"]), env={"OTHER_API_KEY": key}, workspace=home)
    with router, pytest.raises(errors.DataError, match="value of OTHER_API_KEY"):
        asyncio.run(router.embed(["plain", f"with {key}"]))


# -- money --------------------------------------------------------------------------------------------------------


def test_what_a_call_may_cost_is_checked_before_it_is_sent(serve, route):
    server = serve()
    server(server.says("Paris"))
    router = route([server], m0={"price": {"input": 0, "output": 1000}}, budget={"per_run_usd": 0.3})
    router.complete_sync(ASK, "general")  # 256 tokens at most: 0.256 USD; in fact one
    assert router.usage.cost_usd == pytest.approx(0.001)
    router.complete_sync(ASK, "general")
    with pytest.raises(errors.BudgetExceededError, match=r"may cost 0\.256"):
        route([server], m0={"price": {"input": 0, "output": 1000}}, budget={"per_run_usd": 0.2}).complete_sync(
            ASK, "general"
        )
    assert len(server.bodies) == 2


def test_an_answer_that_broke_off_is_paid_for_at_its_estimate(serve, route):
    server = serve()
    server(server.says("Lon don", finish=None, done=False))
    router = route([server], m0={"price": {"input": 0, "output": 1000}}, budget={"per_run_usd": 0.3})
    with pytest.raises(errors.AllModelsFailedError):
        router.complete_sync(ASK, "general")
    with pytest.raises(errors.BudgetExceededError):
        router.complete_sync(ASK, "general")


def test_reported_costs_count_and_earlier_sessions_do_too(serve, route, run):
    server = serve()
    server(server.says("Paris", cost=0.6))
    budget = {"per_run_usd": 1.0}
    router = route([server], recorder=RunRecorder(run), budget=budget)
    router.complete_sync(ASK, "a")
    router.complete_sync(ASK, "b")  # its price is unknown, and something was left
    resumed = route([server], recorder=RunRecorder(run), budget=budget)
    assert resumed.usage.cost_usd == pytest.approx(1.2)
    with pytest.raises(errors.BudgetExceededError):
        resumed.complete_sync(ASK, "c")
    richer = route([server], recorder=RunRecorder(run), budget={"per_run_usd": 2.0})
    assert richer.complete_sync(ASK, "c").text == "Paris"


def test_a_call_that_ran_out_of_money_is_counted_and_asked_again_with_more(serve, route, run):
    server = serve()
    server(server.says("no JSON", cost=0.2), server.says('{"choice": "A"}'))
    price = {"price": {"input": 0, "output": 1000}}
    with pytest.raises(errors.BudgetExceededError):
        route([server], recorder=RunRecorder(run), m0=price, budget={"per_run_usd": 0.3}).complete_sync(ASK, "a", Pick)
    richer = route([server], recorder=RunRecorder(run), m0=price, budget={"per_run_usd": 0.5})
    assert richer.usage.cost_usd == pytest.approx(0.2)
    assert richer.complete_sync(ASK, "a", Pick).value.choice == "A"


# -- before the work ----------------------------------------------------------------------------------------------


def test_check_finds_a_missing_key_before_anything_is_sent(serve, llm_config, home):
    server = serve()
    router = Router(llm_config([server.url]), env={}, workspace=home)
    with pytest.raises(errors.MissingKeyError, match="TEST_API_KEY is not set") as caught:
        router.check()
    assert "TEST_API_KEY=" in caught.value.hint
    assert server.bodies == []


def test_check_finds_a_missing_file(home):
    config = LLMConfig.model_validate(
        {
            "providers": {"here": {"kind": "gguf", "model_path": "smollm2-135m"}},
            "models": {"small": {"provider": "here", "id": "x"}},
            "roles": {"primary": ["small"]},
        },
        context={"env": {}},
    )
    with pytest.raises(errors.MissingFileError) as caught:
        Router(config, env={}, workspace=home).check()
    assert "agentlab models pull smollm2-135m" in caught.value.hint


def test_no_model_at_all(home):
    router = Router(LLMConfig(), env={}, workspace=home)
    router.check()
    assert not router.available("nas.propose")
    assert router.tier("nas.propose") is None
    with pytest.raises(errors.AllModelsFailedError, match="No language model is configured"):
        router.complete_sync(ASK, "nas.propose")


# -- the end ------------------------------------------------------------------------------------------------------


def test_a_cancelled_call_closes_its_connection(serve, route):
    server = serve()
    server(server.silent())
    router = route([server], timeout={"first_token": 30, "total": 60})

    async def give_up():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await router.complete(ASK, "general")

    asyncio.run(give_up())
    assert server.gone.wait(0.5)


class _Stuck:
    """Never answers."""

    def __init__(self):
        self.asked, self.left, self.closed = threading.Event(), threading.Event(), 0

    async def stream(self, request):
        self.asked.set()
        try:
            await asyncio.sleep(60)
        finally:
            self.left.set()
        yield Delta()

    async def close(self):
        self.closed += 1


@pytest.fixture
def stuck(home):
    model, stop = _Stuck(), StopFlag()
    config = LLMConfig.model_validate(
        {
            "providers": {"p": {"kind": "scripted"}},
            "models": {"m": {"provider": "p", "id": "x"}},
            "roles": {"primary": ["m"]},
        }
    )
    with Router(config, env={}, workspace=home, stop=stop, models={"m": model}) as router:
        yield router, model, stop


def test_close_ends_calls_in_flight_and_is_idempotent(stuck):
    router, model, _ = stuck
    caught = []

    def ask():
        try:
            router.complete_sync(ASK, "general")
        except errors.LLMCancelledError as error:
            caught.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    assert model.asked.wait(2)
    start = time.monotonic()
    router.close()
    thread.join(2)
    assert time.monotonic() - start < 1
    assert caught
    router.close()
    assert model.closed == 1
    with pytest.raises(errors.LLMCancelledError, match="closed"):
        router.complete_sync(ASK, "general")


def test_close_is_not_mistaken_for_the_callers_cancellation(stuck):
    router, model, _ = stuck

    async def ask():
        call = asyncio.ensure_future(router.complete(ASK, "general"))
        await asyncio.to_thread(model.asked.wait, 2)
        await asyncio.to_thread(router.close)
        with pytest.raises(errors.LLMCancelledError):
            await call

    asyncio.run(ask())


def test_a_keyboard_interrupt_gets_through_at_once(stuck):
    router, model, _ = stuck
    main = threading.main_thread().ident
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job starts with it ignored

    def interrupt():
        model.asked.wait(2)
        signal.pthread_kill(main, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    start = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            router.complete_sync(ASK, "general")
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - start < 1


def test_a_request_to_stop_does_not_wait_for_a_model(stuck):
    router, model, stop = stuck

    def request():
        model.asked.wait(2)
        stop.request(signal.SIGTERM)

    threading.Thread(target=request).start()
    start = time.monotonic()
    with pytest.raises(errors.Interrupted) as caught:
        router.complete_sync(ASK, "general")
    assert caught.value.exit_code == 143
    assert time.monotonic() - start < 1
    assert model.left.wait(1)


@pytest.mark.parametrize("where", ["id", "base_url"])
def test_a_key_in_a_name_or_an_address_is_sent_to_nobody(home, where):
    key = "sk-live-" + "a1B2c3D4" * 4
    model, provider = {"provider": "p", "id": "m"}, {"kind": "openai_compat", "base_url": "http://127.0.0.1:9/v1"}
    (model if where == "id" else provider)[where] = key if where == "id" else f"http://127.0.0.1:9/{key}/v1"
    tree = {"providers": {"p": provider}, "models": {"m": model}, "roles": {"primary": ["m"]}}
    config = LLMConfig.model_validate(tree, context={"env": {}})
    with pytest.raises(errors.ConfigError, match=r"models.m contains the value of MY_API_KEY"):
        Router(config, env={"MY_API_KEY": key}, workspace=home)
    Router(config, env={"MY_API_KEY": key, "AGENTLAB_EXPAND": "MY_API_KEY"}, workspace=home).close()
