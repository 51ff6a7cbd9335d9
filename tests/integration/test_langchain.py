"""LangChain over HTTP: tools in pieces, fallbacks, errors, against a real server on loopback."""

import asyncio
import json
from collections.abc import Callable, Iterator

import pytest

pytest.importorskip("langchain_core", reason="needs the extra langchain")

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool

from agentlab.errors import AllModelsFailedError
from agentlab.integrations.langchain import AgentlabChatModel, chat_model
from agentlab.llm.config import LLMConfig
from tests.unit.bench.mock.running import in_thread

Make = Callable[..., AgentlabChatModel]


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool
def say(words: str) -> str:
    """Say something."""
    return words


@pytest.fixture
def make(workspace: object) -> Iterator[Make]:
    """A chat model whose models have these scripts, in the order in which they are asked."""
    models = []
    with in_thread() as server:

        def model(*scripts: str) -> AgentlabChatModel:
            config = LLMConfig.model_validate(
                {
                    "providers": {"mock": {"kind": "openai_compat", "base_url": server.url}},
                    "models": {f"m{i}": {"provider": "mock", "id": script} for i, script in enumerate(scripts)},
                    "roles": {"primary": [f"m{i}" for i in range(len(scripts))]},
                    "defaults": {"retries": 0, "timeout": {"first_token": 2, "idle": 1, "total": 5}},
                }
            )
            models.append(chat_model(config))
            return models[-1]

        yield model
        for chat in models:
            chat.close()


def test_a_model_that_fails_is_replaced_and_the_answer_says_so(make: Make) -> None:
    answer = make("503", "close-3-of-8", "ok-n3-cost0.5").invoke("hello")
    assert answer.content == "0 1 2"
    assert [(attempt["model"], attempt["error"]) for attempt in answer.response_metadata["attempts"]] == [
        ("m0", "ServerFaultError"),
        ("m1", "LLMTruncatedError"),
        ("m2", None),
    ]
    assert answer.response_metadata["cost_usd"] == 0.5
    assert answer.usage_metadata is None or answer.usage_metadata["output_tokens"] >= 3


def test_a_stream_that_cannot_begin_is_replaced_unseen(make: Make) -> None:
    chunks = list(make("429-ra60", "ok-n4").stream("hello"))
    assert "".join(chunk.content for chunk in chunks) == "0 1 2 3"
    assert chunks[-1].response_metadata["model_name"] == "m1"


def test_calls_of_tools_come_in_pieces_and_are_put_together_by_index(make: Make) -> None:
    model = make("tool-calls2").bind_tools([add, say])
    answer = model.invoke("add")
    assert [call["name"] for call in answer.tool_calls] == ["add", "say"]
    chunks = list(model.stream("add"))
    indices = {piece["index"] for chunk in chunks for piece in chunk.tool_call_chunks}
    assert indices == {0, 1}
    full_message = sum(chunks[1:], chunks[0])
    assert [(call["name"], call["args"]) for call in full_message.tool_calls] == [
        (call["name"], call["args"]) for call in answer.tool_calls
    ]


def test_the_results_of_tools_go_back_to_the_model(make: Make) -> None:
    model = make("tool-then-ok-n2").bind_tools([add])
    messages: list[HumanMessage | AIMessage | ToolMessage] = [HumanMessage("1 + 2")]
    answer = model.invoke(messages)
    (call,) = answer.tool_calls
    result = ToolMessage(json.dumps(add.invoke(call["args"])), tool_call_id=call["id"])
    assert model.invoke([*messages, answer, result]).content == "0 1"


async def _astreamed(model: AgentlabChatModel) -> str:
    return "".join([chunk.content async for chunk in model.astream("hello")])


def test_the_loop_of_an_application_is_used_as_it_is(make: Make) -> None:
    model = make("ok-n3")
    for _ in range(2):
        assert asyncio.run(_astreamed(model)) == "0 1 2"


def test_when_all_models_fail_the_error_names_every_attempt(make: Make) -> None:
    with pytest.raises(AllModelsFailedError) as caught:
        make("500", "empty").invoke("hello")
    assert [line.split(":")[0] for line in caught.value.failures] == ["m0", "m1"]


def test_an_agent_of_langgraph_calls_a_tool_and_goes_on(make: Make) -> None:
    graph = pytest.importorskip("langgraph.graph", reason="needs the extra langgraph")
    from langgraph.prebuilt import ToolNode, tools_condition

    model = make("tool-then-ok-n3").bind_tools([add])
    agent = graph.StateGraph(graph.MessagesState)
    agent.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    agent.add_node("tools", ToolNode([add]))
    agent.add_edge(graph.START, "model")
    agent.add_conditional_edges("model", tools_condition)
    agent.add_edge("tools", "model")
    messages = agent.compile().invoke({"messages": [HumanMessage("1 + 2")]})["messages"]
    assert [message.type for message in messages] == ["human", "ai", "tool", "ai"]
    assert messages[-1].content == "0 1 2"
