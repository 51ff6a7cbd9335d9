import base64
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.llm.serve import replies
from agentlab.llm.types import Completion, Delta, Embeddings, ToolCall, ToolPiece, Usage


def answer(**changes) -> Completion:
    given = {"value": "Hi", "text": "Hi", "model": "m", "usage": Usage(3, 2), "attempts": ()} | changes
    return Completion(**given)


def choice(document):
    return document["choices"][0]


def events(content: bytes) -> list:
    lines = [block.removeprefix("data: ") for block in content.decode().split("\n\n") if block]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


class TestCompletion:
    def test_an_answer(self):
        document = replies.completion(answer(), "chatcmpl-1", 7)
        assert (document["id"], document["object"], document["created"]) == ("chatcmpl-1", "chat.completion", 7)
        assert document["model"] == "m"
        assert choice(document)["message"]["content"] == "Hi"
        assert choice(document)["finish_reason"] == "stop"
        assert document["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}

    def test_tool_calls(self):
        called = answer(value="", text="", tool_calls=(ToolCall("c", "look", "{}"),), finish="tool_calls")
        message = choice(replies.completion(called, "x", 0))["message"]
        assert message["content"] is None
        assert message["tool_calls"] == [
            {"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}
        ]

    def test_a_checked_answer_is_pure_json(self):
        shown = choice(replies.completion(answer(value={"a": "ü"}, text='Sure! {"a": "ü"}'), "x", 0))["message"][
            "content"
        ]
        assert json.loads(shown) == {"a": "ü"}

    def test_what_is_unknown_is_not_zero(self):
        assert replies.usage(Usage(3, None)) is None
        assert replies.usage(Usage()) is None
        assert replies.usage(Usage(3, 2, 0.5))["cost"] == 0.5


class TestPieces:
    PIECES = replies.Pieces("id", 7, "agentlab", include_usage=False)

    def test_text_reasoning_and_calls(self):
        deltas = [Delta(text="Hi"), Delta(reasoning="hm"), Delta(tools=(ToolPiece(1, "c", "look", "{"),))]
        said = [choice(events(self.PIECES.piece(delta))[0])["delta"] for delta in deltas]
        assert said == [
            {"content": "Hi"},
            {"reasoning_content": "hm"},
            {
                "tool_calls": [
                    {"index": 1, "id": "c", "type": "function", "function": {"name": "look", "arguments": "{"}}
                ]
            },
        ]

    def test_later_pieces_of_a_call_do_not_repeat_its_name(self):
        piece = choice(events(self.PIECES.piece(Delta(tools=(ToolPiece(0, arguments="}"),))))[0])["delta"]
        assert piece == {"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]}

    def test_a_piece_that_says_nothing_is_no_event(self):
        assert self.PIECES.piece(Delta(finish="stop", usage=Usage(1, 1))) == b""

    def test_the_end_names_the_model_that_answered(self):
        last, done = events(self.PIECES.closing(answer(finish="length")))
        assert (last["model"], choice(last)["finish_reason"], done) == ("m", "length", "[DONE]")

    def test_usage_when_it_is_asked_for(self):
        pieces = replies.Pieces("id", 7, "agentlab", include_usage=True)
        assert events(pieces.opening())[0]["usage"] is None
        _, used, done = events(pieces.closing(answer()))
        assert (used["choices"], used["usage"]["total_tokens"], done) == ([], 5, "[DONE]")

    @given(st.text(alphabet=st.characters(codec=None)))
    def test_no_text_breaks_an_event(self, text):
        content = self.PIECES.piece(Delta(text=f"x{text}"))
        assert content.count(b"\n") == 2
        assert choice(events(content)[0])["delta"]["content"] == f"x{text}".encode(errors="replace").decode()


class TestEmbeddings:
    FOUND = Embeddings(((0.5, -1.0), (2.0, 0.25)), Usage(4, 0))

    def test_numbers(self):
        document = replies.embeddings(self.FOUND, "m", as_base64=False)
        assert [row["embedding"] for row in document["data"]] == [[0.5, -1.0], [2.0, 0.25]]
        assert [row["index"] for row in document["data"]] == [0, 1]
        assert document["usage"] == {"prompt_tokens": 4, "total_tokens": 4}

    def test_base64(self):
        packed = replies.embeddings(self.FOUND, "m", as_base64=True)["data"][0]["embedding"]
        assert struct.unpack("<2f", base64.b64decode(packed)) == (0.5, -1.0)

    @pytest.mark.parametrize("as_base64", [True, False])
    def test_unknown_usage(self, as_base64):
        assert replies.embeddings(Embeddings((), Usage()), "m", as_base64=as_base64)["usage"] is None
