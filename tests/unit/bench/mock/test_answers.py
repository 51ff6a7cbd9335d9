"""Answers: streamed and whole, in both protocols, with the shape that clients expect."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

Ask = Callable[..., httpx.Response]
SCHEMA = {
    "type": "object",
    "properties": {"choice": {"enum": ["B", "A"]}, "size": {"type": "integer", "minimum": 3}},
    "required": ["choice", "size"],
}
TOOL = {"type": "function", "function": {"name": "measure", "parameters": SCHEMA}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}


def events(reply: httpx.Response) -> list[Any]:
    """The data of each event, parsed, but for the end mark."""
    assert reply.headers["content-type"] == "text/event-stream"
    lines = [line.removeprefix("data: ") for line in reply.text.splitlines() if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def said(chunks: list[Any]) -> str:
    return "".join(
        choice["delta"].get("content") or "" for chunk in chunks if chunk != "[DONE]" for choice in chunk["choices"]
    )


def test_a_whole_answer(ask: Ask) -> None:
    reply = ask("ok-n5").json()
    assert reply["choices"][0]["message"]["content"] == "0 1 2 3 4"
    assert reply["choices"][0]["finish_reason"] == "stop"
    assert reply["usage"] == {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}


def test_a_stream_has_a_role_a_token_per_event_and_an_end(ask: Ask) -> None:
    role, *tokens, finish, done = events(ask("ok-n5", stream=True))
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [token["choices"][0]["delta"]["content"] for token in tokens] == ["0", " 1", " 2", " 3", " 4"]
    assert (finish["choices"][0]["finish_reason"], done) == ("stop", "[DONE]")


def test_a_stream_reports_usage_and_cost_when_asked(ask: Ask) -> None:
    usage = events(ask("ok-n5-cost0.002", stream=True, stream_options={"include_usage": True}))[-2]
    assert usage["choices"] == []
    assert usage["usage"] == {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8, "cost": 0.002}


def test_a_limit_cuts_the_answer(ask: Ask) -> None:
    choice = ask("ok-n50", max_tokens=2).json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("0 1", "length")


@pytest.mark.parametrize("stream", [False, True])
def test_a_schema_gets_its_first_instance(ask: Ask, stream: bool) -> None:
    reply = ask("ok", stream=stream, response_format=FORMAT)
    text = said(events(reply)) if stream else reply.json()["choices"][0]["message"]["content"]
    assert json.loads(text) == {"choice": "B", "size": 3}


def test_wrong_schema_then_right(ask: Ask) -> None:
    answers = [ask("wrong-schema-then-ok", response_format=FORMAT).json() for _ in range(2)]
    keys = [set(json.loads(answer["choices"][0]["message"]["content"])) for answer in answers]
    assert keys == [{"unexpected"}, {"choice", "size"}]


def test_a_tool_that_has_to_be_called_is_called(ask: Ask) -> None:
    choice = ask("ok", tools=[TOOL], tool_choice={"type": "function", "function": {"name": "measure"}}).json()[
        "choices"
    ][0]
    (call,) = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls"
    assert (call["function"]["name"], json.loads(call["function"]["arguments"])) == (
        "measure",
        {"choice": "B", "size": 3},
    )


def test_parallel_calls_come_in_pieces_that_alternate(ask: Ask) -> None:
    chunks = events(ask("tool-calls2", stream=True, tools=[TOOL]))[1:-2]
    pieces = [chunk["choices"][0]["delta"]["tool_calls"][0] for chunk in chunks]
    assert [piece["index"] for piece in pieces[:4]] == [0, 1, 0, 1]
    for index in (0, 1):
        arguments = "".join(piece["function"]["arguments"] for piece in pieces if piece["index"] == index)
        assert json.loads(arguments) == {"choice": "B", "size": 3}
    assert len({piece["id"] for piece in pieces if "id" in piece}) == 2


def test_embeddings_are_unit_vectors_that_depend_on_the_text(ask: Ask) -> None:
    reply = ask("ok-dim16", path="/embeddings", input=["a", "b", "a"]).json()
    a, b, second_a = (item["embedding"] for item in reply["data"])
    assert a == second_a != b
    assert sum(value * value for value in b) == pytest.approx(1, abs=1e-6)
    assert len(b) == 16
    assert reply["usage"]["prompt_tokens"] == 3


def test_messages_are_streamed_as_anthropic_does(ask: Ask) -> None:
    reply = events(ask("ok-n3", path="/messages", stream=True, max_tokens=100))
    kinds = [event["type"] for event in reply]
    assert kinds[:3] == ["message_start", "content_block_start", "ping"]
    assert kinds[3:6] == ["content_block_delta"] * 3
    assert kinds[6:] == ["content_block_stop", "message_delta", "message_stop"]
    assert "".join(event["delta"]["text"] for event in reply[3:6]) == "0 1 2"
    assert reply[0]["message"]["usage"]["input_tokens"] == 3
    assert (reply[7]["delta"]["stop_reason"], reply[7]["usage"]["output_tokens"]) == ("end_turn", 3)


def test_messages_call_tools_as_anthropic_does(ask: Ask) -> None:
    tool = {"name": "measure", "input_schema": SCHEMA}
    request_fields = {"tools": [tool], "tool_choice": {"type": "tool", "name": "measure"}}
    (block,) = ask("ok", path="/messages", **request_fields).json()["content"]
    assert (block["type"], block["name"], block["input"]) == ("tool_use", "measure", {"choice": "B", "size": 3})
    streamed = events(ask("ok", path="/messages", stream=True, **request_fields))
    arguments = "".join(event["delta"].get("partial_json", "") for event in streamed if "delta" in event)
    assert json.loads(arguments) == block["input"]
    assert streamed[-2]["delta"]["stop_reason"] == "tool_use"


def test_models_are_listed(server: Any, client: httpx.Client) -> None:
    assert "ok" in [model["id"] for model in client.get(f"{server.url}/models").json()["data"]]
