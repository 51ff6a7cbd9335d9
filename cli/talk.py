"""Talking at a terminal or through pipes: questions from standard input, answers while they come."""

import asyncio
import contextlib
import sys
from collections.abc import Callable, Iterator

from agentlab.errors import AgentlabError, UsageError
from agentlab.persona.talk import SpeakerAnswer, Talk, TalkTurn

from .screen import Screen

_MOST_BYTES = 1 << 20  # of a question
_COMMANDS = "/system TEXT, /reset, /help, /exit; Ctrl-C stops an answer; press it twice to exit"


async def turn(screen: Screen, talk: Talk, text: str) -> TalkTurn:
    """Ask, and show what comes.

    Raises:
        AgentlabError: of the first speaker that did not answer, when all have been heard.
    """
    answers, errors, last = list[SpeakerAnswer](), list[AgentlabError](), None
    with screen.progress() as bar:
        names = ", ".join(speaker.name for speaker in talk.speakers)
        bar.update(f"waiting for the first token from {names}; a local model is loaded first")
        async with contextlib.aclosing(talk.ask(text)) as pieces:
            async for speaker, piece in pieces:
                bar.close()
                if speaker is not last and len(talk.speakers) > 1:
                    screen.write(f"{'' if last is None else chr(10)}{speaker.name}:\n")
                last = speaker
                if isinstance(piece, str):
                    screen.write(piece)
                elif isinstance(piece, SpeakerAnswer):
                    screen.write("" if piece.text.endswith("\n") else "\n")
                    answers.append(piece)
                    if piece.finish == "length":
                        screen.hint("the answer was cut off; raise --max-tokens N")
                else:
                    errors.append(piece)
    if errors:
        raise errors[0]
    return TalkTurn(question=text, answers=answers)


def importing(screen: Screen) -> Callable[[str], None]:
    """What is told when a base has to be made a checkpoint first."""
    return lambda base: screen.say(f"importing {base} as a checkpoint, once (half a minute)")


def conversation(screen: Screen, talk: Talk) -> Iterator[TalkTurn]:
    """The turns of a talk, until the input ends or somebody leaves. At a terminal a failure does not end it.

    Raises:
        KeyboardInterrupt: the second Ctrl-C without a line between them.
    """
    stopped = False
    screen.hint(_COMMANDS)
    while True:
        try:
            line = _line(screen)
            stopped = False
            if line is None or (line.startswith("/") and not _obey(screen, talk, line)):
                return
            if line.strip() and not line.startswith("/"):
                yield asyncio.run(turn(screen, talk, line))
        except KeyboardInterrupt:
            if stopped:
                raise
            stopped = True
            screen.prompt("\n")
            screen.hint("press Ctrl-C again to exit")
        except AgentlabError as error:
            if screen.json_mode or not sys.stdin.isatty():
                raise
            screen.error(error, command="llm chat")


def _obey(screen: Screen, talk: Talk, line: str) -> bool:
    """Do what a line with a slash says; whether the talk goes on."""
    word, _, argument = line.strip().partition(" ")
    if word in ("/exit", "/quit"):
        return False
    if word == "/reset":
        talk.reset()
        screen.say("the conversation was cleared")
    elif word == "/system":
        talk.system = argument.strip() or talk.system
        for speaker in talk.speakers:
            screen.say(f"{speaker.name + ': ' if speaker.name else ''}{talk.system_of(speaker) or 'no system message'}")
    else:
        screen.say(_COMMANDS if word == "/help" else f"unknown command {word}; known: {_COMMANDS}")
    return True


def _line(screen: Screen) -> str | None:
    """The next line of standard input; None at its end."""
    if sys.stdin is None:
        return None
    if sys.stdin.isatty() and sys.stdout.isatty():
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 - gives `input` keys to edit and recall a line
        try:
            return typed_text(input("> "))
        except EOFError:
            screen.write("\n")
            return None
    if sys.stdin.isatty():
        screen.prompt("> ")
    line = _read(sys.stdin.buffer.readline)
    return line.rstrip("\r\n") if line else None


def prompt(question: str | None) -> str:
    """The question of `ask`: as typed, or else all of standard input."""
    if question is not None and question != "-":
        text = typed_text(question)
    elif sys.stdin is None or (question is None and sys.stdin.isatty()):
        text = ""
    else:
        text = _read(sys.stdin.buffer.read)
    if not text.strip():
        raise UsageError("No question was given.", hint="Pass it as an argument, or - to read standard input.")
    return text


def _read(read: Callable[[int], bytes]) -> str:
    try:
        data = read(_MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"Standard input cannot be read: {error.strerror}.") from error
    if len(data) > _MOST_BYTES:
        raise UsageError(f"The question is longer than {_MOST_BYTES >> 20} MiB.", hint="Ask about part of it.")
    return _text(data)


def typed_text(text: str) -> str:
    """What was typed, if it is text: Python hides bytes that are not UTF-8 in it.

    Raises:
        UsageError: it is none.
    """
    return _text(text.encode(errors="surrogateescape"))


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UsageError("The question is not UTF-8.", hint="Convert it, for example with iconv.") from error
