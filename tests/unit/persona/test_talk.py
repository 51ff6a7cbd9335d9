"""Talking to several: each hears the questions, has a history of its own, and is heard in its turn."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path

import pytest

from agentlab.config.workspace import Workspace
from agentlab.errors import AgentlabError, WorkerDiedError
from agentlab.llm.config import LLMConfig
from agentlab.llm.options import Options
from agentlab.llm.router import Router
from agentlab.llm.types import Delta, Message, ModelRequest, Usage
from agentlab.persona import talk
from agentlab.persona.talk import Cast, Speaker, SpeakerAnswer, Talk
from agentlab.runs.context import Context


class Voice:
    """Says its words, each question's own after it."""

    def __init__(self, *words: str, fails: bool = False) -> None:
        self.words, self.fails, self.closed = words, fails, 0
        self.heard: list[tuple[Message, ...]] = []

    async def stream(self, request: ModelRequest) -> AsyncIterator[Delta]:
        self.heard.append(request.messages)
        for word in self.words:
            yield Delta(text=word)
            await asyncio.sleep(0)
        if self.fails:
            raise WorkerDiedError("It died.")
        yield Delta(finish="stop", usage=Usage(1, len(self.words)))

    async def close(self) -> None:
        self.closed += 1


def talk_of(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    voices: dict[str, Voice],
    *,
    system: str | None = None,
    together: bool = True,
    live: bool = True,
    anybody: bool = False,
) -> Talk:
    config = LLMConfig.model_validate(
        {
            "providers": {"none": {"kind": "scripted"}},
            "models": {name: {"provider": "none", "id": name} for name in voices},
            "roles": {"primary": list(voices)},
            "defaults": {"retries": 0},
            "ledger": {"enabled": False},
        }
    )
    monkeypatch.setattr(talk, "Router", lambda *args, **keywords: Router(*args, **keywords, models=voices))
    speakers = tuple(Speaker(name, name, f"Be {name}.") for name in voices)
    cast = Cast(config, (Speaker(""),) if anybody else speakers, together)
    return Talk(cast, Context(Workspace(folder, folder), {}), Options(), system, live=live)


def heard(one: Talk, text: str) -> list[tuple[str, str]]:
    """(speaker, piece or the text of the answer in brackets or the kind of the error)"""

    async def listen() -> list[tuple[str, str]]:
        async with aclosing(one.ask(text)) as pieces:
            return [(speaker.name, _shown(piece)) async for speaker, piece in pieces]

    return asyncio.run(listen())


def _shown(piece: str | SpeakerAnswer | AgentlabError) -> str:
    if isinstance(piece, str):
        return piece
    return f"[{piece.text}]" if isinstance(piece, SpeakerAnswer) else piece.kind


def said(messages: Sequence[Message]) -> list[str]:
    return [message.content for message in messages]


@pytest.mark.parametrize("together", [True, False])
def test_answers_come_in_order_and_histories_are_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, together: bool
) -> None:
    a, b = Voice("E", "e"), Voice("B")
    with talk_of(tmp_path, monkeypatch, {"a": a, "b": b}, together=together) as one:
        assert heard(one, "Who?") == [("a", "E"), ("a", "e"), ("a", "[Ee]"), ("b", "B"), ("b", "[B]")]
        heard(one, "And then?")
        one.reset()
        one.system = "Be short."
        heard(one, "Again?")
    assert [said(request) for request in a.heard] == [
        ["Be a.", "Who?"],
        ["Be a.", "Who?", "Ee", "And then?"],
        ["Be short.", "Again?"],
    ]
    assert said(b.heard[1]) == ["Be b.", "Who?", "B", "And then?"]
    assert (a.closed > 2) is not together  # the memory of one is free before the next is loaded


def test_one_that_fails_lets_the_others_be_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with talk_of(tmp_path, monkeypatch, {"a": Voice(fails=True), "b": Voice("B")}, system="") as one:
        (first, error), *rest = heard(one, "Who?")
        assert first == "a"
        assert error.endswith("Error")
        assert rest == [("b", "B"), ("b", "[B]")]
        assert one.system_of(one.speakers[0]) == ""


def test_what_was_heard_of_an_answer_that_was_stopped_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = Voice("A", *"a" * 100_000), Voice()
    with talk_of(tmp_path, monkeypatch, {"a": a, "b": b}, system="") as one:

        async def stop() -> None:
            async with aclosing(one.ask("Who?")) as pieces:
                async for _ in pieces:
                    break

        asyncio.run(stop())
        a.words = ("B",)
        heard(one, "Go on")
    question, answer, follow_up = said(a.heard[1])
    assert (question, follow_up) == ("Who?", "Go on")
    assert answer.startswith("A")
    assert said(b.heard[1]) == ["Go on"]  # it had not said a word


@pytest.mark.parametrize("live", [True, False])
def test_what_nobody_has_seen_yet_may_come_from_another_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, live: bool
) -> None:
    voices = {"a": Voice("half", " an", fails=True), "b": Voice("B")}
    with talk_of(tmp_path, monkeypatch, voices, live=live, anybody=True) as one:
        if live:
            assert heard(one, "Who?") == [("", "half"), ("", " an"), ("", "LLMTruncatedError")]
        else:
            assert heard(one, "Who?") == [("", "[B]")]
            heard(one, "And then?")
            assert said(voices["b"].heard[1]) == ["Who?", "B", "And then?"]
