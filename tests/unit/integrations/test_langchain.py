"""The chat model without a server: config, options and structured answers, over a scripted model."""

import asyncio

import pytest
from pydantic import BaseModel
from typing_extensions import TypedDict

pytest.importorskip("langchain_core", reason="needs the extra langchain")

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from agentlab.errors import AgentlabError, BadRequestError, UnknownNameError
from agentlab.integrations.langchain import chat_model
from agentlab.llm.config import LLMConfig
from agentlab.llm.types import Tool

pytestmark = pytest.mark.usefixtures("workspace")


class River(BaseModel):
    """A river."""

    name: str
    navigable: bool


class Mountain(TypedDict):
    """A mountain."""

    name: str


def scripted(mode="first", **script):
    return LLMConfig.model_validate(
        {
            "providers": {"s": {"kind": "scripted", "mode": mode, **script}},
            "models": {"one": {"provider": "s", "id": "x"}, "two": {"provider": "s", "id": "y"}},
            "roles": {"primary": ["one"], "fallback": ["two"]},
            "ledger": {"enabled": False},
        }
    )


@pytest.fixture
def make():
    models = []

    def model(config="scripted", **fields):
        models.append(chat_model(config, **fields))
        return models[-1]

    yield model
    for open_model in models:
        open_model.close()


def test_an_answer_says_who_gave_it_and_what_it_took(make):
    answer = make().invoke([SystemMessage("Be brief."), HumanMessage("hello there")])
    assert answer.content == "This is a scripted answer."
    assert answer.usage_metadata == {"input_tokens": 4, "output_tokens": 5, "total_tokens": 9}
    assert answer.response_metadata["model_name"] == "scripted"
    assert answer.response_metadata["cost_usd"] == 0
    assert [attempt["error"] for attempt in answer.response_metadata["attempts"]] == [None]


def test_a_stream_adds_up_to_the_answer(make):
    chunks = list(make().stream("hello"))
    answer = sum(chunks[1:], chunks[0])
    assert len(chunks) > 3
    assert answer.content == "This is a scripted answer."
    assert answer.usage_metadata["output_tokens"] == 5
    assert answer.response_metadata["finish_reason"] == "stop"


def test_every_way_of_asking_works_from_one_loop_after_another(make):
    model = make()

    async def ask():
        pieces = [chunk.content async for chunk in model.astream("hello")]
        return (await model.ainvoke("hello")).content, "".join(pieces)

    assert asyncio.run(ask()) == asyncio.run(ask()) == ("This is a scripted answer.",) * 2


def test_a_synchronous_stream_works_inside_a_running_loop(make):
    async def ask():
        return "".join(chunk.content for chunk in make().stream("hello"))

    assert asyncio.run(ask()) == "This is a scripted answer."


def test_leaving_a_stream_early_gives_the_call_up(make):
    stream = make().stream("hello")
    assert next(stream).content == "This "
    stream.close()


def test_a_structured_answer_is_a_checked_value(make):
    model = make()
    assert model.with_structured_output(River).invoke("a river") == River(name="x", navigable=False)
    assert asyncio.run(model.with_structured_output(River).ainvoke("a river")).name == "x"
    assert model.with_structured_output(Mountain).invoke("a mountain") == {"name": "x"}
    assert model.with_structured_output(River.model_json_schema()).invoke("a river")["name"] == "x"
    assert list(model.with_structured_output(River).stream("a river")) == [River(name="x", navigable=False)]


def test_the_raw_message_comes_with_the_value_or_the_error(make):
    result = make().with_structured_output(River, include_raw=True).invoke("a river")
    assert isinstance(result["raw"], AIMessage)
    assert (result["parsed"].name, result["parsing_error"]) == ("x", None)
    asking = make(scripted("garbage")).with_structured_output(River, include_raw=True)
    for result in (asking.invoke("a river"), asyncio.run(asking.ainvoke("a river"))):
        assert (result["raw"], result["parsed"]) == (None, None)
        assert isinstance(result["parsing_error"], AgentlabError)


def test_fields_and_bound_options_reach_the_router(make):
    model = make(scripted(), temperature=0.5, max_tokens=7, stop=["END"], seed=3)
    bound = model.bind_tools([River], tool_choice="any").bind(temperature=0.1, model="two")
    _, options, _ = model._read_call([HumanMessage("x")], None, bound.kwargs)
    assert (options.temperature, options.max_tokens, options.stop, options.seed) == (0.1, 7, ("END",), 3)
    assert (options.model, options.tool_choice) == ("two", "required")
    (tool,) = options.tools
    assert tool == Tool("River", "A river.", tool.parameters)
    assert set(tool.parameters["properties"]) == {"name", "navigable"}


def test_only_the_named_model_is_asked(make):
    assert make(scripted(), model="two").invoke("x").response_metadata["model_name"] == "two"
    with pytest.raises(UnknownNameError, match="three"):
        make(scripted(), model="three").invoke("x")


def test_langchain_s_words_for_clocks_and_retries_change_the_config(make):
    defaults = make(timeout=7, max_retries=3)._router.config.defaults
    assert (defaults.timeout.total, defaults.retries) == (7, 3)


def test_bad_input_is_refused_with_our_errors(make):
    with pytest.raises(UnknownNameError, match="no-such-preset"):
        chat_model("no-such-preset")
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    with pytest.raises(BadRequestError, match="image_url"):
        make().invoke([HumanMessage([picture])])


def test_what_a_trace_shows(make):
    model = make(temperature=0.5)
    assert model._get_ls_params()["ls_provider"] == "agentlab"
    assert model._get_ls_params()["ls_model_name"] == "scripted"
    assert model._identifying_params["temperature"] == 0.5
    assert model.get_num_tokens("one two three") > 0
