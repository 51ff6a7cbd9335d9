"""A file of conversations is read whole or refused with all that is wrong with it."""

import gzip
import hashlib
import json
import os
from pathlib import Path

import pytest

from agentlab.errors import DataError, MissingFileError
from agentlab.train import conversations
from agentlab.train.conversations import Conversation, ConversationTurn, read_conversations

U, A, S = ({"role": role, "content": f"{role} speaks"} for role in ("user", "assistant", "system"))


@pytest.fixture
def write(tmp_path):
    def write(*lines):
        path = tmp_path / "data.jsonl"
        path.write_bytes(b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines))
        return path

    return write


def of(*messages, **fields):
    return {"messages": list(messages), **fields}


def refusal(path):
    with pytest.raises(DataError) as caught:
        read_conversations(path)
    return caught.value


def test_turns_are_read_with_the_numbers_of_their_lines(write):
    path = write(of(S, U, A), b"  \r", of(U, A, U, A, id=7, tags=["x"], source={"other": 1}))
    conversation_list = read_conversations(path).conversations
    assert [conversation.line for conversation in conversation_list] == [1, 3]
    assert conversation_list[0].turns == (
        ConversationTurn("system", "system speaks"),
        ConversationTurn("user", "user speaks"),
        ConversationTurn("assistant", "assistant speaks"),
    )
    assert [turn.role for turn in conversation_list[1].turns] == ["user", "assistant"] * 2


def test_only_a_newline_ends_a_line(write):
    text = "one\u2028two\u2029three\x0cfour\x85five\rsix"
    line = json.dumps(of(U, {"role": "assistant", "content": text}), ensure_ascii=False).encode()
    assert read_conversations(write(line, of(U, A))).conversations[0].turns[1].content == text


def test_duplicates_are_kept(write):
    assert read_conversations(write(of(U, A), of(U, A))).conversations == tuple(
        Conversation(line, (ConversationTurn(**U), ConversationTurn(**A))) for line in (1, 2)
    )


def content(value):
    return of(U, {"role": "assistant", "content": value})


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"{", "the line is not JSON: Expecting property name"),
        (b'\xef\xbb\xbf{"messages": []}', "the line starts with a byte order mark; save the file as UTF-8 without one"),
        (b'{"messages": "\xff"}', "the line is not UTF-8"),
        (b"[" * 100_000, "the line is nested too deeply"),
        (b'{"id": NaN}', "the line is not valid JSON: it contains NaN"),
        (b'{"id": ' + b"9" * 5000 + b"}", "the line contains an integer with 5000 digits"),
        (b'{"messages": 1, "messages": 2}', "the line has a duplicate key in an object"),
        (b"null", "the line is null"),
        ([], "`messages` is missing or empty"),
        ("text", "`messages` is missing or empty"),
        ({}, "`messages` is missing or empty"),
        ({"messages": {}}, "`messages` is missing or empty"),
        (of(), "`messages` is missing or empty"),
        (of(*[U, A] * 300), "600 messages exceed the limit of 512"),
        (of(U, "A"), "message 2: not an object with `role` and `content`"),
        (of(U, {"content": "A"}), "message 2: role is missing; expected one of system, user, assistant"),
        (of(U, {"role": "bot\n", "content": "A"}), r"message 2: role is 'bot\n'; expected one of"),
        (of(U, {"role": ["user"], "content": "A"}), "message 2: role is ['user']; expected one of"),
        (of(U, {"role": "assistant"}), "message 2: content is not a string"),
        (content(None), "message 2: content is not a string"),
        (content([{"type": "text", "text": "A"}]), "message 2: content is not a string"),
        (content(" \n"), "message 2: content is empty"),
        (content("\ud83e"), "message 2: content contains a lone surrogate"),
        (of(U, {**A, "tool_calls": []}), "message 2: unsupported keys besides role and content: 'tool_calls'"),
        (of(U, S, A), "message 2: role is system, but a system message must come first"),
        (of(S, S, U, A), "message 2: role is system, but a system message must come first"),
        (of(A, U), "message 1: role is assistant, but it should be user"),
        (of(S, A), "message 2: role is assistant, but it should be user"),
        (of(U, U, A), "message 2: role is user, but it should be assistant"),
        (of(U, A, A), "message 3: role is assistant, but it should be user"),
        (of(U, A, U), "message 3: the last message must be the assistant's"),
        (of(S), "message 1: the last message must be the assistant's"),
    ],
)
def test_a_broken_line_is_named_with_what_is_wrong(write, line, problem):
    path = write(of(U, A), line)
    assert f"{path}:2: {problem}" in refusal(path).message


def test_all_problems_come_at_once_and_their_list_is_bounded(write):
    path = write(of(A), of({"role": "x", "content": ""}, U), *[{}] * 200)
    message = refusal(path).message
    assert f"{path}:1: message 1: role is assistant" in message
    assert f"{path}:2: message 1: role is 'x'" in message
    assert f"{path}:2: message 1: content is empty" in message
    assert message.endswith("... and 173 more")
    assert len(message.splitlines()) == 32


def test_lines_and_files_are_bounded(write, monkeypatch):
    monkeypatch.setattr(conversations, "LONGEST_LINE", 200)
    path = write(of(U, A), content("x" * 1000), of(U, A), content("y" * 200))
    assert f"{path}:2: the line is longer" in (message := refusal(path).message)
    assert f"{path}:4: the line is longer" in message
    assert ":3:" not in message
    monkeypatch.setattr(conversations, "MOST_BYTES", 1000)
    assert "is larger than 0 MiB" in refusal(path).message
    monkeypatch.setattr(conversations, "MOST_CONVERSATIONS", 1)
    assert "has more than 1 conversations" in refusal(write(of(U, A), of(U, A))).message


def test_an_endless_line_is_not_read_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(conversations, "LONGEST_LINE", 100)
    monkeypatch.setattr(conversations, "MOST_BYTES", 1000)
    path = tmp_path / "data.jsonl"
    path.write_bytes(b"x" * 5000)
    with path.open("rb") as file, pytest.raises(DataError, match="is larger than"):
        list(conversations._values(file, path, bytes))
    assert "is larger than" in refusal(path).message


def test_a_file_without_conversations_and_no_file_at_all(write, tmp_path):
    assert "contains no conversations" in refusal(write(b"", b" ")).message
    with pytest.raises(MissingFileError, match="No such data file:"):
        read_conversations(tmp_path / "absent.jsonl")


def test_what_is_there_and_no_plain_file_is_called_what_it_is(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "is a pipe or device" in refusal(tmp_path / "pipe").message
    assert "is a pipe or device" in refusal(Path(os.devnull)).message
    assert "is a folder" in refusal(tmp_path).message


def test_a_compressed_file_is_to_be_unpacked(tmp_path):
    path = tmp_path / "data.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(of(U, A)).encode()))
    assert "is compressed" in refusal(path).message
    assert "gunzip" in refusal(path).hint


def test_the_hash_is_of_the_bytes_that_were_read(write):
    path = write(of(U, A), b" ", of(U, A, id=2))
    content = path.read_bytes()
    result = read_conversations(path)
    path.unlink()
    assert result.sha256 == f"sha256:{hashlib.sha256(content).hexdigest()}"
