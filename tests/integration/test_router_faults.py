"""The fault matrix: what the router does about every fault of a provider, over a real server on loopback.

Every row is tried with a caller who wants the whole answer and with one who hears it while it comes. The model that is
asked first has the fault, a healthy one stands behind it.
"""

import asyncio
import random
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import psutil
import pytest

from agentlab.bench.mock.server import MockServer, in_process
from agentlab.config.workspace import Workspace
from agentlab.errors import AgentlabError
from agentlab.llm.config import LLMConfig
from agentlab.llm.options import Options
from agentlab.llm.router import Router
from agentlab.llm.types import Completion, Message
from tests.unit.bench.mock.running import in_thread

# Clocks of tenths of a second are the subject here, and a machine that stops for as long is no fault of the router's.
pytestmark = pytest.mark.flaky(reruns=2, only_rerun=".")

KEY = "sk-canary-0123456789abcdefghij"
ASK = (Message("user", "Count."),)
HEALTHY = "b/ok-n8"
ANSWER = "0 1 2 3 4 5 6 7"
CLOCKS = {"connect": 0.5, "first_token": 0.4, "idle": 0.3, "total": 4.0}
PRICE = {"input": 1.0, "output": 1.0}


@dataclass(frozen=True)
class Row:
    """What must happen: the fault, the kind it is noted as, and how often each model is asked.

    `live` is the kind a live caller sees where the fault comes after the first piece; `seconds` bounds the wait.
    """

    fault: str
    kind: str
    first: int
    second: int = 1
    live: str | None = None
    least: float = 0.0
    most: float = 3.0


ROWS = [
    Row("429-ra2", "RateLimitedError", 1),
    Row("429-rams1500", "RateLimitedError", 1),
    Row("429-radate3", "RateLimitedError", 1),
    Row("429-raneg", "RateLimitedError", 1),
    Row("429-ragarbage", "RateLimitedError", 1),
    Row("429-ra9999", "RateLimitedError", 1),
    Row("429-quota", "QuotaError", 1),
    Row("500", "ServerFaultError", 2),
    Row("503", "ServerFaultError", 2),
    Row("529", "ServerFaultError", 2),
    Row("402", "QuotaError", 1),
    Row("401", "AuthError", 1),
    Row("403", "AuthError", 1),
    Row("404", "UnknownModelError", 1),
    Row("400", "BadRequestError", 1),
    Row("409", "BadRequestError", 1),
    Row("422", "BadRequestError", 1),
    Row("400-context", "ContextOverflowError", 1),
    Row("reset-before", "LLMConnectionError", 2),
    Row("reset-40-of-60", "LLMTruncatedError", 1, live="LLMTruncatedError"),
    Row("close-40-of-60", "LLMTruncatedError", 1, live="LLMTruncatedError"),
    Row("stall-after-10", "LLMTimeoutError", 1, live="LLMTruncatedError", least=0.3),
    Row("silence", "LLMTimeoutError", 1, least=0.4),
    Row("comments-only", "LLMTimeoutError", 1, least=0.4),
    Row("badjson-5", "MalformedReplyError", 2, live="LLMTruncatedError"),
    Row("html", "MalformedReplyError", 2),
    Row("huge", "MalformedReplyError", 2, most=20.0),
    Row("hugeline", "MalformedReplyError", 2, most=10.0),
    Row("error-event", "ServerFaultError", 2),
    Row("error-event-code429", "RateLimitedError", 1),
    Row("empty", "MalformedReplyError", 2),
]


@pytest.fixture(scope="module")
def mock() -> Iterator[MockServer]:
    with in_thread() as server:
        yield server


@pytest.fixture
def home(tmp_path) -> Workspace:
    return Workspace(tmp_path, tmp_path / "cache")


def config_of(url: str, *scripts: str, retries: int = 1, clocks: dict[str, float] | None = None) -> LLMConfig:
    """Models of the mock server at `url`, named by their scripts; one provider each, as in life."""
    provider = {"kind": "openai_compat", "base_url": url, "api_key": "${TEST_API_KEY}"}
    tree = {
        "providers": dict.fromkeys(scripts, provider),
        "models": {script: {"provider": script, "id": script, "price": PRICE} for script in scripts},
        "roles": {"primary": list(scripts)},
        "defaults": {"timeout": CLOCKS | (clocks or {}), "retries": retries},
    }
    return LLMConfig.model_validate(tree, context={"env": {}})


@pytest.fixture
def route(mock, home):
    """A router over scripts of the mock server in this process; closed at the end."""
    routers: list[Router] = []
    mock.reset()

    def make(*scripts: str, **changes: object) -> Router:
        config = config_of(mock.url, *scripts, **changes)
        routers.append(Router(config, env={"TEST_API_KEY": KEY}, workspace=home))
        return routers[-1]

    yield make
    for router in routers:
        router.close()


def count(mock: MockServer, script: str) -> int:
    return mock.seen()["models"].get(script, {}).get("count", 0)


def listened(router: Router) -> tuple[str, Completion[str] | AgentlabError]:
    """What a live caller heard, and how it ended."""

    async def listen() -> tuple[str, Completion[str] | AgentlabError]:
        live, pieces = router.stream(ASK, "t"), []
        try:
            async for delta in live:
                pieces.append(delta.text)
        except AgentlabError as error:
            return "".join(pieces), error
        return "".join(pieces), live.completion

    return asyncio.run(listen())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.fault)
def test_a_caller_who_wants_the_whole_answer_never_sees_the_fault(mock, route, row):
    router, start = route(row.fault, HEALTHY), time.monotonic()
    answer = router.complete_sync(ASK, "t")
    assert row.least <= time.monotonic() - start <= row.most
    assert answer.text == ANSWER
    assert {attempt.error for attempt in answer.attempts} == {row.kind, None}
    assert (count(mock, row.fault), count(mock, HEALTHY)) == (row.first, row.second)
    assert router.usage.cost_usd == pytest.approx(answer.usage.cost_usd)
    assert answer.attempts[-1].usage.output_tokens == 8


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.fault)
def test_a_live_caller_sees_it_only_after_the_first_piece_and_then_as_what_it_is(mock, route, row):
    text, end = listened(route(row.fault, HEALTHY))
    if row.live is None:
        assert text == ANSWER
        assert end.text == ANSWER
        assert (count(mock, row.fault), count(mock, HEALTHY)) == (row.first, row.second)
    else:
        assert text.startswith("0 1 2")
        assert end.kind == row.live
        assert f"after {len(text)} characters" in end.message
        assert (count(mock, row.fault), count(mock, HEALTHY)) == (1, 0)


def test_a_slow_drip_ends_with_its_share_of_the_clock(route):
    router = route("drip-itl20-n60", HEALTHY, clocks={"total": 1.0})
    start = time.monotonic()
    answer = router.complete_sync(ASK, "t")
    assert (answer.text, answer.attempts[0].error) == (ANSWER, "LLMTimeoutError")
    assert time.monotonic() - start < 2.5


@pytest.mark.parametrize("strategy", ["single", "fallback", "fastest", "adaptive", "best_of_two"])
def test_one_timeout_for_a_silent_model_and_three_behind_it(mock, home, strategy):
    """The layout with `llm.timeout`, whose clock of the first token is far longer than the whole call's."""
    mock.reset()
    backups = ["a/ok-n8", "b/ok-n8", "c/ok-n8"]
    tree = {
        "llm": {
            "default_provider": "mock",
            "timeout": 4,
            "strategy": strategy,
            "model_roles": {"primary": ["silence"], "duplicate": backups[:1], "fallback": backups[1:]},
        },
        "providers": {"mock": {"base_url": mock.url, "models": ["silence", *backups]}},
    }
    config = LLMConfig.model_validate(tree, context={"env": {}})
    with Router(config, env={}, workspace=home) as router:
        start = time.monotonic()
        answer = router.complete_sync(ASK, "t")
        assert (answer.text, time.monotonic() - start < 4) == (ANSWER, True)
        text, end = listened(router)
    assert (text, end.text) == (ANSWER, ANSWER)


def test_nobody_listens(route, home):
    """A port that refuses connections."""
    router = route("ok", HEALTHY)
    tree = router.config.model_dump()
    tree["providers"]["ok"]["base_url"] = "http://127.0.0.1:9"
    config = LLMConfig.model_validate(tree, context={"env": {}})
    with Router(config, env={"TEST_API_KEY": KEY}, workspace=home) as fresh:
        answer = fresh.complete_sync(ASK, "t")
    assert answer.text == ANSWER
    assert [attempt.error for attempt in answer.attempts] == ["LLMConnectionError"] * 2 + [None]


# -- waiting ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "min_seconds", "max_seconds"),
    [
        ("429-ra1-then-ok", 1.0, 2.6),
        ("429-rams700-then-ok", 0.7, 2.3),
        ("429-radate2-then-ok", 0.0, 3.6),  # a date has whole seconds: up to one is lost
        ("429-raneg-then-ok", 0.2, 2.0),
        ("429-ragarbage-then-ok", 0.2, 2.0),
    ],
)
def test_the_only_model_is_waited_for_as_long_as_it_asks(mock, route, script, min_seconds, max_seconds):
    start = time.monotonic()
    answer = route(script).complete_sync(ASK, "t")
    assert min_seconds <= time.monotonic() - start <= max_seconds
    assert answer.text == ANSWER
    assert count(mock, script) == 2


def test_every_reply_is_believed_anew(mock, route):
    start = time.monotonic()
    route("429-rams300-then-429-rams900-then-ok", retries=2).complete_sync(ASK, "t")
    assert 1.2 <= time.monotonic() - start <= 3.0


def test_a_wait_beyond_the_clock_is_told_at_once(route):
    start = time.monotonic()
    with pytest.raises(AgentlabError) as failed:
        route("429-ra9999").complete_sync(ASK, "t")
    assert time.monotonic() - start < 2.0
    assert failed.value.retry_after == pytest.approx(3600, abs=5)  # believed up to an hour


def test_who_asked_for_patience_is_not_asked_before(mock, route):
    router = route("429-ra1-then-ok-n1", HEALTHY)
    for index in range(3):
        assert router.complete_sync(ASK, "t", call_id=str(index)).model == HEALTHY
    assert count(mock, "429-ra1-then-ok-n1") == 1
    time.sleep(1.1)
    assert router.complete_sync(ASK, "t", call_id="later").model == "429-ra1-then-ok-n1"


# -- breaker ------------------------------------------------------------------------------------------------------


def test_a_dead_model_is_left_alone_after_a_while(mock, route):
    router = route("500", HEALTHY, retries=0)
    for index in range(12):
        assert router.complete_sync(ASK, "t", call_id=str(index)).model == HEALTHY
    assert count(mock, "500") == 5
    assert router.guards["500"].state(time.monotonic()) == "open"


def test_a_key_that_is_refused_is_not_tried_again(mock, route):
    router = route("401", HEALTHY)
    for index in range(3):
        router.complete_sync(ASK, "t", call_id=str(index))
    assert count(mock, "401") == 1
    alone = route("401")
    for index in range(2):
        with pytest.raises(AgentlabError, match=r"401|Not asked again"):
            alone.complete_sync(ASK, "t", call_id=str(index))
    assert count(mock, "401") == 2


# -- requests that are wrong --------------------------------------------------------------------------------------


def test_what_a_provider_refuses_to_talk_about_goes_to_nobody_else(mock, route):
    with pytest.raises(AgentlabError) as failed:
        route("400-filter", HEALTHY).complete_sync(ASK, "t")
    assert failed.value.kind == "ContentFilterError"
    assert (count(mock, "400-filter"), count(mock, HEALTHY)) == (1, 0)


def test_what_all_refuse_is_told_as_the_first_one_did(mock, route):
    with pytest.raises(AgentlabError, match=r"^400: HTTP 400") as failed:
        route("400", "422").complete_sync(ASK, "t")
    assert failed.value.kind == "BadRequestError"
    assert failed.value.hint
    assert (count(mock, "400"), count(mock, "422")) == (1, 1)


def test_an_overflow_goes_to_a_larger_window_only(mock, route, home):
    router = route("400-context", "a/ok-n8", HEALTHY)
    tree = router.config.model_dump()
    for name, context in (("400-context", 4096), ("a/ok-n8", 2048), (HEALTHY, 8192)):
        tree["models"][name]["context"] = context
    config = LLMConfig.model_validate(tree, context={"env": {}})
    with Router(config, env={"TEST_API_KEY": KEY}, workspace=home) as fresh:
        assert fresh.complete_sync(ASK, "t").model == HEALTHY
    assert (count(mock, "a/ok-n8"), count(mock, HEALTHY)) == (0, 1)


def test_an_answer_against_the_schema_is_asked_for_once_more_and_paid_for(mock, route):
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    answer = route("wrong-schema", HEALTHY).complete_sync(ASK, "t", options=Options(json_schema=schema))
    assert answer.model == HEALTHY
    assert [attempt.error for attempt in answer.attempts] == ["SchemaError", "SchemaError", None]
    assert (count(mock, "wrong-schema"), count(mock, HEALTHY)) == (2, 1)
    assert answer.usage.output_tokens == sum(attempt.usage.output_tokens for attempt in answer.attempts)


def test_when_all_are_down_every_attempt_is_told_and_no_key(route):
    with pytest.raises(AgentlabError) as failed:
        route("500", "401", "silence").complete_sync(ASK, "t")
    assert [line.split(": ")[:2] for line in failed.value.failures] == [
        ["500", "ServerFaultError"],
        ["500", "ServerFaultError"],
        ["401", "AuthError"],
        ["silence", "LLMTimeoutError"],
    ]
    assert KEY not in f"{failed.value} {failed.value.failures} {failed.value.hint}"


def test_a_reply_of_200_megabytes_is_never_held(home):
    """The server has a process of its own here, so that only the client's memory is looked at."""
    with (
        in_process() as url,
        Router(config_of(url, "huge", HEALTHY), env={"TEST_API_KEY": KEY}, workspace=home) as router,
    ):
        assert router.complete_sync(ASK, "t", options=Options(model=HEALTHY)).text == ANSWER
        before = psutil.Process().memory_info().rss
        assert router.complete_sync(ASK, "t").model == HEALTHY
        assert psutil.Process().memory_info().rss - before < 48 << 20


def test_who_gives_up_closes_the_connection_and_the_breaker_does_not_mind(mock, route):
    router = route("silence", clocks={"first_token": 30.0, "total": 30.0})

    async def give_up() -> None:
        for index in range(6):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.15):
                    await router.complete(ASK, "t", call_id=str(index))

    asyncio.run(give_up())
    until = time.monotonic() + 1
    while len(mock.seen()["models"]["silence"]["left"]) < 6 and time.monotonic() < until:
        time.sleep(0.02)
    assert len(mock.seen()["models"]["silence"]["left"]) == 6
    assert router.guards["silence"].state(time.monotonic()) == "closed"


def test_calls_that_are_given_up_at_any_moment_leave_every_connection_usable(mock, home):
    """A connection that is cancelled while it is made or closed must not be handed to the next call."""
    rng = random.Random(5)

    async def storm() -> None:
        config = config_of(mock.url, "ok-ttft2-n3", clocks={"first_token": 2.0})
        async with Router(config, env={"TEST_API_KEY": KEY}, workspace=home, in_callers_loop=True) as router:

            async def call(number: int) -> None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(rng.uniform(0, 0.012)):
                        await router.complete(ASK, "t", call_id=str(number))

            for start in range(0, 1500, 8):
                await asyncio.gather(*(call(start + number) for number in range(8)))
            answers = await asyncio.gather(*(router.complete(ASK, "t", call_id=f"after {n}") for n in range(16)))
            assert {answer.text for answer in answers} == {"0 1 2"}
            assert all(len(answer.attempts) == 1 for answer in answers)

    asyncio.run(storm())
