"""Who answers when personas are talked to, and the conversation.

Names of adapters and models become a config of language models. Each speaker hears the same questions and keeps a
history of its own.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Self

from agentlab import machine
from agentlab.config.base import escape
from agentlab.config.workspace import Workspace
from agentlab.errors import AgentlabError, UsageError
from agentlab.llm.config import LLMConfig
from agentlab.llm.options import Options
from agentlab.llm.provider_config import GgufProvider
from agentlab.llm.providers.local import adapter_place, hf_adapter
from agentlab.llm.router import Router
from agentlab.llm.types import Completion, Message
from agentlab.lora.card import read_card
from agentlab.lora.catalogue import find as find_adapter
from agentlab.models import store
from agentlab.models.base_model import find_base, import_base
from agentlab.runs.context import Context
from agentlab.runs.document import AnswerDocument, Block, Text
from agentlab.train.adapter_base import base_of, same_base

_LIBRARIES = {"hf": 700 << 20, "gguf": 200 << 20}  # bytes of a worker beside its weights
_ENDING = ".gguf"
TASK = "chat"


@dataclass(frozen=True, slots=True)
class Speaker:
    """One who answers."""

    name: str
    model: str | None = None  # its name in the config; None for whom that asks
    system: str | None = None  # the message that it was trained with


@dataclass(frozen=True, slots=True)
class Cast:
    """Speakers and the config that they are asked through; `together`: all of them fit into the memory at a time."""

    config: LLMConfig
    speakers: tuple[Speaker, ...]
    together: bool = True


@dataclass(frozen=True, slots=True)
class _Voice:
    """A local model."""

    speaker: Speaker
    provider: Mapping[str, Any]  # of the config, with paths as they are
    process: tuple[Path | None, ...]  # what answers, which adapters of one checkpoint share
    bytes: int  # about what the process takes


def cast_of(
    config: LLMConfig,
    adapters: Sequence[str],
    model: str | None,
    workspace: Workspace,
    importing: Callable[[str], object],
    refused: dict[str, AgentlabError] | None = None,
) -> Cast:
    """The speakers that a command line means.

    Args:
        config: whom to ask without adapters, and how in any case.
        adapters: PEFT folders and GGUF files, by name in `adapters/` or by path; each one is a speaker.
        model: of the config, or of this machine; of adapters it is the base, which else their card or config tells.
        importing: told the name of a GGUF base that has to be made a checkpoint first, which takes half a minute, once.
        refused: filled with the adapters that cannot speak and why, as long as one can; None lets the first end it.

    Raises:
        UsageError: a name is unknown, or a base does not belong to an adapter.
        MissingFileError: a base is not on this machine.
    """
    if not adapters:
        if model is None or model in config.models:
            return Cast(config, (Speaker(model or "", model),))
        path = store.find(model, workspace)
        return _cast(config, [_voice(store.stem_of(path.name) or str(path), path, None, None)])
    voices: dict[str, _Voice] = {}
    for name in dict.fromkeys(adapters):
        try:
            voice = _with_adapter(name, model, config, workspace, importing)
        except AgentlabError as error:
            if refused is None:
                raise
            refused[Path(name).name] = error
            continue
        if voice.speaker.name in voices:
            raise UsageError(f"Two adapters are called {voice.speaker.name}.", hint="Rename one of the folders.")
        voices[voice.speaker.name] = voice
    if refused and not voices:
        raise next(iter(refused.values()))
    return _cast(config, list(voices.values()))


def _with_adapter(
    name: str, model: str | None, config: LLMConfig, workspace: Workspace, importing: Callable[[str], object]
) -> _Voice:
    file = adapter_place(name, workspace)
    if file.suffix != _ENDING and not file.is_dir():
        file = file.with_name(f"{file.name}{_ENDING}")
    if file.is_file():
        return _voice(file.stem, store.find(model or _gguf_of(config, file), workspace), file, None)
    folder = hf_adapter(f"adapter {name}", str(find_adapter(name, workspace)), workspace)
    path = checkpoint_of(folder, model, workspace, importing)
    return _voice(folder.name, path, folder, read_card(folder).data.system)


def checkpoint_of(folder: Path, model: str | None, workspace: Workspace, importing: Callable[[str], object]) -> Path:
    """The base of an adapter folder as a checkpoint; the other arguments as in `cast_of`.

    Raises:
        UsageError: it is not the one that the adapter was trained on.
        MissingFileError: it is not on this machine.
    """
    base = find_base(str(base_of(folder, model, workspace)), workspace)
    if not base.path.is_dir():
        importing(store.stem_of(base.name))
    path = import_base(base)
    if same_base(folder, path, any_base=True) is False:
        raise UsageError(
            f"{folder.name} was trained on a different base model, not {path}: the fingerprints differ.",
            hint="Choose its base with --model (`debate ping`: --base); `agentlab models list` shows all models.",
        )
    return path


def _gguf_of(config: LLMConfig, file: Path) -> str:
    """The first GGUF model of a config: a GGUF adapter does not say which file it is for."""
    model_paths = (provider.model_path for provider in config.providers.values() if isinstance(provider, GgufProvider))
    name = next(model_paths, None)
    if name is None:
        raise UsageError(
            f"{file.name} does not name its base model.", hint="Pass the GGUF file of its base with --model."
        )
    return name


def _voice(name: str, base: Path, adapter: Path | None, system: str | None) -> _Voice:
    kind, weights = ("gguf", [base]) if base.is_file() else ("hf", list(base.glob("*.safetensors")))
    provider = {"kind": kind, "model_path": escape(str(base))}
    if adapter is not None:
        provider["adapter"] = escape(str(adapter))
    needed = sum(part.stat().st_size for part in weights) + _LIBRARIES[kind]
    return _Voice(Speaker(name, name, system), provider, (base, adapter if kind == "gguf" else None), needed)


def _cast(config: LLMConfig, voices: Sequence[_Voice]) -> Cast:
    speakers = tuple(voice.speaker for voice in voices)
    names = [speaker.name for speaker in speakers]
    processes = {voice.process: voice.bytes for voice in voices}
    together = len(processes) == 1 or sum(processes.values()) <= machine.memory().available
    tree = {
        **config.model_dump(include={"defaults", "budget", "ledger"}),
        "providers": {voice.speaker.name: voice.provider for voice in voices},
        "models": {name: {"provider": name, "id": "local", "price": {"input": 0, "output": 0}} for name in names},
        "roles": {"primary": names},
        "threads": machine.threads(config.threads, workers=len(processes) if together else 1),
    }
    return Cast(LLMConfig.model_validate(tree, context={"env": {}}), speakers, together)


class SpeakerAnswer(AnswerDocument):
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
    def of(cls, speaker: Speaker, completion: Completion[str]) -> "SpeakerAnswer":
        return cls(
            speaker=speaker.name or completion.model,
            model=completion.model,
            text=completion.text,
            finish=completion.finish,
            input_tokens=completion.usage.input_tokens,
            output_tokens=completion.usage.output_tokens,
            cost_usd=completion.usage.cost_usd,
            first_seconds=completion.timing.first if completion.timing else None,
            seconds=completion.timing.total if completion.timing else None,
        )


class TalkTurn(AnswerDocument):
    """A question and what every speaker answered."""

    question: str
    answers: list[SpeakerAnswer]


class Transcript(AnswerDocument):
    """The answer of `agentlab llm ask` and `agentlab llm chat` with `--json`."""

    turns: list[TalkTurn]

    def blocks(self) -> list[Block]:
        answers = chain.from_iterable(turn.answers for turn in self.turns)
        return [Text(answer.text) for answer in answers]


class Talk:
    """Use as a context manager: workers are started with the first question and end with the block."""

    def __init__(
        self, cast: Cast, context: Context, options: Options, system: str | None, *, live: bool = True
    ) -> None:
        """`system` goes to all; None leaves each speaker the message that it was trained with.

        `live`: pieces of answers are shown while they come. Else only whole answers are, and until then another
        model of the config may still give it.

        Raises:
            MissingError, UsageError: a key or a file that is needed is not there.
        """
        self._cast, self._context, self._options, self._live = cast, context, options, live
        self.system = system
        self._histories: list[list[Message]] = [[] for _ in cast.speakers]
        self._router = self._new_router()
        self._router.check()

    def _new_router(self) -> Router:
        return Router(self._cast.config, env=self._context.env, workspace=self._context.workspace)

    @property
    def speakers(self) -> tuple[Speaker, ...]:
        return self._cast.speakers

    def reset(self) -> None:
        """Forget what was said; the system message stays."""
        for history in self._histories:
            history.clear()

    def system_of(self, speaker: Speaker) -> str:
        return (self.system if self.system is not None else speaker.system) or ""

    async def ask(self, text: str) -> AsyncGenerator[tuple[Speaker, str | SpeakerAnswer | AgentlabError], None]:
        """The pieces of the first speaker's answer, then the answer as a whole, or why there is none; then the next's.

        All are asked at once if they fit into the memory, else each is loaded for its turn. What was heard of an
        answer by the time that the generator is closed stays in the history.
        """
        queues: list[asyncio.Queue[str | None]] = [asyncio.Queue() for _ in self.speakers]
        tasks: list[asyncio.Task[SpeakerAnswer | AgentlabError]] = []

        def begin(index: int) -> None:
            task = asyncio.ensure_future(self._answer(index, text, queues[index]))
            task.add_done_callback(lambda _: queues[index].put_nowait(None))
            tasks.append(task)

        try:
            for index in range(len(self.speakers)) if self._cast.together else ():
                begin(index)
            for index, speaker in enumerate(self.speakers):
                if not self._cast.together:
                    begin(index)
                while (piece := await queues[index].get()) is not None:
                    yield speaker, piece
                yield speaker, await tasks[index]
                if not self._cast.together:
                    await self._router.aclose()  # ends the worker, and frees its memory for the next
                    self._router = self._new_router()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(self, index: int, text: str, queue: "asyncio.Queue[str | None]") -> SpeakerAnswer | AgentlabError:
        speaker, history, pieces = self.speakers[index], self._histories[index], list[str]()
        question, system = Message("user", text), self.system_of(speaker)
        messages = [*([Message("system", system)] if system else []), *history, question]
        options = replace(self._options, model=speaker.model, strategy="single" if speaker.model else None)
        try:
            if not self._live:
                answer = await self._router.complete(messages, TASK, options=options)
                pieces.append(answer.text)
                return SpeakerAnswer.of(speaker, answer)
            live = self._router.stream(messages, TASK, options=options)
            async for delta in live:
                if delta.text:
                    pieces.append(delta.text)
                    queue.put_nowait(delta.text)
            return SpeakerAnswer.of(speaker, live.completion)
        except AgentlabError as error:
            return error
        finally:
            if pieces:
                history += [question, Message("assistant", "".join(pieces))]

    def close(self) -> None:
        self._router.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
