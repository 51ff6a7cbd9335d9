"""A conversation with one speaker or several: each hears the same questions and keeps a history of its own."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from types import TracebackType
from typing import Self

from agentlab.errors import AgentlabError
from agentlab.llm.options import Options
from agentlab.llm.router import Router
from agentlab.llm.types import Completion, Message
from agentlab.persona.cast import Cast, Speaker
from agentlab.runs.context import Context
from agentlab.runs.document import Block, Document, Text

TASK = "chat"


class Answer(Document):
    """What one speaker said. `model` is its name in the config; None is unknown. Times in seconds, money in USD."""

    speaker: str
    model: str
    text: str
    finish: str
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    first_seconds: float | None
    seconds: float | None

    @classmethod
    def of(cls, speaker: Speaker, found: Completion[str]) -> "Answer":
        """From the router's."""
        return cls(
            speaker=speaker.name or found.model,
            model=found.model,
            text=found.text,
            finish=found.finish,
            input_tokens=found.usage.input_tokens,
            output_tokens=found.usage.output_tokens,
            cost_usd=found.usage.cost_usd,
            first_seconds=found.timing.first if found.timing else None,
            seconds=found.timing.total if found.timing else None,
        )


class Turn(Document):
    """A question and what every speaker answered."""

    question: str
    answers: list[Answer]


class Transcript(Document):
    """The answer of `agentlab llm ask` and `agentlab llm chat` with `--json`."""

    turns: list[Turn]

    def blocks(self) -> list[Block]:
        """Nothing: whoever does not ask for JSON has heard it."""
        return [Text(answer.text) for turn in self.turns for answer in turn.answers]


class Talk:
    """Use as a context manager: workers are started with the first question and end with the block."""

    def __init__(self, cast: Cast, context: Context, options: Options, system: str | None) -> None:
        """`system` goes to all; None leaves each speaker the message that it was trained with.

        Raises:
            MissingError, UsageError: a key or a file that is needed is not there.
        """
        self._cast, self._context, self._options = cast, context, options
        self.system = system
        self._said: list[list[Message]] = [[] for _ in cast.speakers]
        self._router = self._made()
        self._router.check()

    def _made(self) -> Router:
        return Router(self._cast.config, env=self._context.env, workspace=self._context.workspace)

    @property
    def speakers(self) -> tuple[Speaker, ...]:
        """In the order in which they are heard."""
        return self._cast.speakers

    def reset(self) -> None:
        """Forget what was said; the system message stays."""
        for said in self._said:
            said.clear()

    def system_of(self, speaker: Speaker) -> str:
        """The system message that a speaker is given; empty for none."""
        return (self.system if self.system is not None else speaker.system) or ""

    async def ask(self, text: str) -> AsyncGenerator[tuple[Speaker, str | Answer | AgentlabError], None]:
        """The pieces of the first speaker's answer, then the answer as a whole, or why there is none; then the next's.

        All are asked at once if they fit into the memory, else each is loaded for its turn. What was heard of an
        answer by the time that the generator is closed stays in the history.
        """
        heard: list[asyncio.Queue[str | None]] = [asyncio.Queue() for _ in self.speakers]
        tasks: list[asyncio.Task[Answer | AgentlabError]] = []

        def begin(place: int) -> None:
            task = asyncio.ensure_future(self._answer(place, text, heard[place]))
            task.add_done_callback(lambda _: heard[place].put_nowait(None))
            tasks.append(task)

        try:
            for place in range(len(self.speakers)) if self._cast.together else ():
                begin(place)
            for place, speaker in enumerate(self.speakers):
                if not self._cast.together:
                    begin(place)
                while (piece := await heard[place].get()) is not None:
                    yield speaker, piece
                yield speaker, await tasks[place]
                if not self._cast.together:
                    await self._router.aclose()  # ends the worker, and frees its memory for the next
                    self._router = self._made()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(self, place: int, text: str, heard: "asyncio.Queue[str | None]") -> Answer | AgentlabError:
        speaker, history, said = self.speakers[place], self._said[place], list[str]()
        question, system = Message("user", text), self.system_of(speaker)
        messages = [*([Message("system", system)] if system else []), *history, question]
        options = replace(self._options, model=speaker.model, strategy="single" if speaker.model else None)
        live = self._router.stream(messages, TASK, options=options)
        try:
            async for delta in live:
                if delta.text:
                    said.append(delta.text)
                    heard.put_nowait(delta.text)
            return Answer.of(speaker, live.completion)
        except AgentlabError as error:
            return error
        finally:
            if said:
                history += [question, Message("assistant", "".join(said))]

    def close(self) -> None:
        """End the workers."""
        self._router.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
