import json

import pytest

from agentlab.llm.serve.faults import RefusedError
from agentlab.llm.serve.responses import read_response
from agentlab.llm.types import Completion, Delta, Message, Tool, ToolCall, ToolPiece, Usage

TOOL = {"type": "function", "name": "look", "description": "Looks.", "parameters": {"type": "object"}, "strict": True}
CALL = {
    "type": "function_call",
    "call_id": "c1",
    "name": "look",
    "arguments": "{}",
    "id": "fc_1",
    "status": "completed",
}


def call(**changes):
    return read_response({"model": "m", "input": "Hello", **changes})


def reply(**changes):
    return call(**changes).reply("1", 7)


def answer(**changes) -> Completion:
    fields = {"value": "Hi", "text": "Hi", "model": "q", "usage": Usage(3, 2), "attempts": ()} | changes
    return Completion(**fields)


def events(content: bytes) -> list:
    blocks = [block.split("\n") for block in content.decode().split("\n\n") if block]
    documents = [json.loads(data.removeprefix("data: ")) for _, data in blocks]
    assert [name.removeprefix("event: ") for name, _ in blocks] == [document["type"] for document in documents]
    return documents


class TestRequest:
    def test_a_text_and_instructions(self):
        assert call(instructions="Be brief.").messages == (Message("system", "Be brief."), Message("user", "Hello"))

    def test_a_conversation_with_tools(self):
        items = [
            {"role": "developer", "content": "Be brief."},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello"}]},
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"},
            {"role": "assistant", "content": [{"type": "output_text", "text": "Well", "annotations": []}], "id": "msg"},
            {**CALL, "id": "fc_1", "status": "completed"},
            {**CALL, "call_id": "c2"},
            {"type": "function_call_output", "call_id": "c1", "output": "red"},
            {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "blue"}]},
        ]
        assert call(input=items).messages == (
            Message("system", "Be brief."),
            Message("user", "Hello"),
            Message("assistant", "Well", (ToolCall("c1", "look", "{}"), ToolCall("c2", "look", "{}"))),
            Message("tool", "red", (), "c1"),
            Message("tool", "blue", (), "c2"),
        )

    def test_options(self):
        schema = {"type": "object", "properties": {}}
        request = call(
            temperature=0.5,
            top_p=0.9,
            max_output_tokens=10**9,
            tools=[TOOL],
            tool_choice={"type": "function", "name": "look"},
            text={"format": {"type": "json_schema", "name": "x", "schema": schema, "strict": True}},
            parallel_tool_calls=False,
        )
        options = request.options
        assert (options.temperature, options.top_p, options.max_tokens) == (0.5, 0.9, 131_072)
        assert (options.tools, options.tool_choice) == ((Tool("look", "Looks.", {"type": "object"}),), "look")
        assert (options.json_schema, request.one_tool) == (schema, True)
        assert call(text={"format": {"type": "json_object"}}).options.json_only

    @pytest.mark.parametrize(
        "harmless",
        [
            {"store": True, "metadata": {"a": "b"}, "user": "me", "service_tier": "flex", "truncation": "auto"},
            {"reasoning": {"effort": "low"}, "text": {"verbosity": "low", "format": {"type": "text"}}},
            {"include": ["reasoning.encrypted_content"], "background": False, "max_tool_calls": 3},
            {"previous_response_id": None, "conversation": None, "tools": [], "tool_choice": "auto"},
        ],
    )
    def test_labels_and_wishes_change_nothing(self, harmless):
        assert call(**harmless).options == call().options

    @pytest.mark.parametrize(
        ("changes", "param"),
        [
            ({"input": []}, "input"),
            (
                {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
                "input[0].content[0].type",
            ),
            ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
            ({"previous_response_id": "resp_1"}, "previous_response_id"),
            ({"conversation": "conv_1"}, "conversation"),
            ({"prompt": {"id": "p"}}, "prompt"),
            ({"background": True}, "background"),
            ({"include": ["message.output_text.logprobs"]}, "include"),
            ({"tools": [{"type": "web_search"}]}, "tools[0]"),
            ({"tools": [TOOL, TOOL]}, "tools[1].name"),
            ({"tool_choice": "required"}, "tool_choice"),
            ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format"),
            ({"text": {"format": {"type": "json_schema", "schema": {"a": [[]] * 999}}}}, "text.format"),
            ({"top_logprobs": 2}, "top_logprobs"),
            ({"stop": "x"}, "stop"),
        ],
    )
    def test_what_cannot_be_kept_is_refused_by_name(self, changes, param):
        with pytest.raises(RefusedError) as caught:
            call(**changes)
        assert param in caught.value.param
        assert "<" not in caught.value.param


class TestDocument:
    def test_an_answer(self):
        document = reply(metadata={"a": "b"}, temperature=0.5).whole_document(answer())
        assert (document["object"], document["status"], document["model"], document["created_at"]) == (
            "response",
            "completed",
            "q",
            7,
        )
        assert document["output"][0]["content"][0]["text"] == "Hi"
        assert (document["usage"]["input_tokens"], document["usage"]["output_tokens"]) == (3, 2)
        assert (document["store"], document["metadata"], document["temperature"]) == (False, {"a": "b"}, 0.5)

    def test_one_that_was_cut(self):
        document = reply().whole_document(answer(finish="length"))
        assert (document["status"], document["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})

    def test_calls(self):
        called = answer(text="", value="", tool_calls=(ToolCall("c1", "look", "{}"),), finish="tool_calls")
        (item,) = reply(tools=[TOOL]).whole_document(called)["output"]
        assert (item["type"], item["call_id"], item["arguments"]) == ("function_call", "c1", "{}")


class TestEvents:
    def test_text(self):
        pieces = reply()
        stream = events(pieces.piece(Delta(text="H")) + pieces.piece(Delta(text="i")) + pieces.closing(answer()))
        assert [event["type"].removeprefix("response.") for event in stream] == [
            "created",
            "in_progress",
            "output_item.added",
            "content_part.added",
            "output_text.delta",
            "output_text.delta",
            "output_text.done",
            "content_part.done",
            "output_item.done",
            "completed",
        ]
        assert [event["sequence_number"] for event in stream] == list(range(10))
        assert stream[-1]["response"]["output"] == [stream[-2]["item"]] == reply().whole_document(answer())["output"]

    def test_text_then_calls_one_item_after_the_other(self):
        """Calls that come mixed are told one after the other, and text that comes late is not lost."""
        calls = (ToolCall("c1", "look", '{"a":1}'), ToolCall("c2", "look", "{}"))
        pieces, content = reply(tools=[TOOL]), b""
        for delta in (
            Delta(text="Well"),
            Delta(tools=(ToolPiece(0, "c1", "look", '{"a"'), ToolPiece(1, "c2", "look", "{"))),
            Delta(tools=(ToolPiece(1, arguments="}"), ToolPiece(0, arguments=":1}"))),
            Delta(text=", so"),
        ):
            content += pieces.piece(delta)
        stream = events(content + pieces.closing(answer(text="Well, so", value="Well, so", tool_calls=calls)))
        opened = [event["output_index"] for event in stream if event["type"].endswith(("item.added", "item.done"))]
        assert opened == [0, 0, 1, 1, 2, 2, 3, 3]
        output = stream[-1]["response"]["output"]
        assert [item.get("arguments") or item["content"][0]["text"] for item in output] == [
            "Well",
            '{"a":1}',
            ", so",
            "{}",
        ]
        done = [event for event in stream if event["type"] == "response.function_call_arguments.done"]
        assert [event["arguments"] for event in done] == ['{"a":1}', "{}"]

    def test_what_was_said_is_not_said_again_where_the_whole_answer_reads_otherwise(self):
        """A secret is masked in the whole answer, and half a character mended."""
        pieces = reply()
        content = pieces.piece(Delta(text="Ask post")) + pieces.piece(Delta(text="gres \ud800"))
        masked = "Ask [redacted] ?"
        stream = events(content + pieces.closing(answer(text=masked, value=masked)))
        (item,) = stream[-1]["response"]["output"]
        assert item["content"][0]["text"] == "Ask postgres ?"

    def test_an_empty_answer_is_an_item_all_the_same(self):
        stream = events(reply().closing(answer(text="", value="")))
        assert stream[-1]["response"]["output"][0]["content"][0]["text"] == ""

    def test_one_that_breaks_off_has_failed(self):
        pieces = reply()
        pieces.piece(Delta(text="Hi"))
        (failed,) = events(pieces.broken({"error": {"message": "It broke off.", "code": "broken_off"}}))
        assert (failed["type"], failed["response"]["status"]) == ("response.failed", "failed")
        assert failed["response"]["error"] == {"code": "server_error", "message": "It broke off."}
