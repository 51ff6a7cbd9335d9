"""Who answers when personas are talked to, and the conversation.

Names of adapters and models become a config of language models. Each speaker hears the same questions and keeps a
history of its own.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
from agentlab.models.base_model import find_base, imported
from agentlab.runs.context import Context
from agentlab.runs.document import Block, Document, Text
from agentlab.train.adapter_base import base_of, same_base

_LIBRARIES = {"hf": 700 << 20, "gguf": 200 << 20}  # bytes of a worker beside its weights
_ENDING = ".gguf"
TASK = "chat"


@dataclass(frozen=True, slots=True)
class Speaker:
    """One who answers. `model` is its name in the config, None for whom that asks; `system` it was trained with."""

    name: str
    model: str | None = None
    system: str | None = None


@dataclass(frozen=True, slots=True)
class Cast:
    """Speakers and the config that they are asked through; `together`: all of them fit into the memory at a time."""

    config: LLMConfig
    speakers: tuple[Speaker, ...]
    together: bool = True


@dataclass(frozen=True, slots=True)
class _Voice:
    """A local model: a provider of the config, with paths as they are.

    `process` is what answers, which adapters of one checkpoint share; `bytes` about what it takes.
    """

    speaker: Speaker
    provider: Mapping[str, Any]
    process: tuple[Path | None, ...]
    bytes: int


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
            raise UsageError(f"Two adapters are called {voice.speaker.name}.", hint="Give one folder another name.")
        voices[voice.speaker.name] = voice
    if refused and not voices:
        raise next(iter(refused.values()))
    return _cast(config, list(voices.values()))


def _with_adapter(
    name: str, model: str | None, config: LLMConfig, workspace: Workspace, importing: Callable[[str], object]
) -> _Voice:
    place = adapter_place(name, workspace)
    file = place if place.suffix == _ENDING or place.is_dir() else place.with_name(f"{place.name}{_ENDING}")
    if file.is_file():
        return _voice(file.stem, store.find(model or _gguf_of(config, file), workspace), file, None)
    folder = hf_adapter(f"adapter {name}", str(find_adapter(name, workspace)), workspace)
    path = checkpoint_of(folder, model, workspace, importing)
    return _voice(folder.name, path, folder, read_card(folder).data.system)


def checkpoint_of(folder: Path, given: str | None, workspace: Workspace, importing: Callable[[str], object]) -> Path:
    """The base of an adapter folder as a checkpoint; the other arguments as in `cast_of`.

    Raises:
        UsageError: it is not the one that the adapter was trained on.
        MissingFileError: it is not on this machine.
    """
    base = find_base(str(base_of(folder, given, workspace)), workspace)
    if not base.path.is_dir():
        importing(store.stem_of(base.name))
    path = imported(base)
    if same_base(folder, path, any_base=True) is False:
        raise UsageError(
            f"{folder.name} was trained on another base model than {path}: the fingerprints differ.",
            hint="Name the right one with --model (`debate ping`: --base); `agentlab models list` shows all.",
        )
    return path


def _gguf_of(config: LLMConfig, file: Path) -> str:
    """The first GGUF model of a config: a GGUF adapter does not say which file it is for."""
    found = (each.model_path for each in config.providers.values() if isinstance(each, GgufProvider))
    name = next(found, None)
    if name is None:
        raise UsageError(f"{file.name} does not say which model it is for.", hint="Name a GGUF file with --model.")
    return name


def _voice(name: str, base: Path, adapter: Path | None, system: str | None) -> _Voice:
    kind, weights = ("gguf", [base]) if base.is_file() else ("hf", list(base.glob("*.safetensors")))
    provider = {"kind": kind, "model_path": escape(str(base))}
    if adapter is not None:
        provider["adapter"] = escape(str(adapter))
    needed = sum(part.stat().st_size for part in weights) + _LIBRARIES[kind]
    return _Voice(Speaker(name, name, system), provider, (base, adapter if kind == "gguf" else None), needed)


def _cast(config: LLMConfig, voices: Sequence[_Voice]) -> Cast:
    """One model for each voice, with the settings of `config`."""
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
        try:
            if not self._live:
                answer = await self._router.complete(messages, TASK, options=options)
                said.append(answer.text)
                return Answer.of(speaker, answer)
            live = self._router.stream(messages, TASK, options=options)
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
        self._router.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
