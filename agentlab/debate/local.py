"""Agents that answer in this process: a checkpoint, alone or under LoRA adapters, all of a wave side by side.

Numbers depend in their last bits on what is computed together and on what was read before. Both follow from the config
and from what was asked since the memory was last empty: the same calls in the same order give the same bits.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch  # noqa: TID253 - reached lazily, where agents are opened

from agentlab.answers.choices import Scored
from agentlab.config.workspace import Workspace
from agentlab.debate.config import Confidence, DebateConfig
from agentlab.debate.speakers import Asked, Said
from agentlab.errors import ModelFileError
from agentlab.gguf import metadata
from agentlab.hf.batch import Batch, Row
from agentlab.hf.decoder import ends_of
from agentlab.hf.likelihood import Choice, score
from agentlab.hf.prefill import Past, Prompt, common, slides
from agentlab.lora.catalogue import find as find_adapter
from agentlab.lora.rowwise import Rowwise
from agentlab.lora.stacked import BASE
from agentlab.models.base_model import find_base
from agentlab.tasks.labelled import asked as labelled
from agentlab.tasks.labelled import prompt
from agentlab.tasks.questions import Question
from agentlab.train.adapter_base import check_fit
from agentlab.train.base import Base, check_files, load_base
from agentlab.train.chat_template import ChatTemplate, TemplateRefusesError
from agentlab.train.conversations import Turn as Message
from agentlab.train.scoring import applied, score_choices
from agentlab.workers import memory

_ANSWER = "Answer:"
_RIGHT, _LABELS = Message("user", "Is this answer right? Reply with Yes or No."), ("Yes", "No")
_WORTH = 16  # tokens of a common beginning that are worth being copied
_MEMORY = 1 << 30  # bytes of keys and values that are kept at least; as many as the weights take, if that is more
_ENDING = 8  # tokens around an answer, at most
_LESS = "Use a smaller --set rows=N: fewer turns side by side."


def check_agents(config: DebateConfig, workspace: Workspace) -> dict[str, Path]:
    """The adapters of the agents that have one, seen to be there, to go together, and to fit a base that is imported.

    Nothing is loaded; see `check_fit`.

    Raises:
        MissingFileError, UnknownNameError: there is no such base or adapter, or the base is no checkpoint.
        UsageError: an adapter was made for another base, or its layers are not the base's.
        DataError, ModelFileError: an adapter is damaged, or its numbers are none that a training makes.
    """
    named = {agent.name: find_adapter(agent.adapter, workspace) for agent in config.agents if agent.adapter is not None}
    base = find_base(config.base, workspace)
    if base.source is not None:
        metadata.read(base.source)
    else:
        check_files(base.path)
    check_fit(named.values(), base)
    return named


@dataclass(slots=True)
class _Read:
    """Tokens that an adapter has read, and their keys and values."""

    adapter: int
    tokens: Sequence[int]
    past: Past | None


@dataclass(slots=True)
class _Turn:
    """A turn in the making; `read` is what is known of it, or of something that begins alike."""

    asked: Asked
    messages: Sequence[Message]
    prompt: str
    tokens: Sequence[int]
    read: _Read
    said: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    text: str = ""
    choice: str | None = None
    confidences: dict[Confidence, float] = field(default_factory=dict)


@contextmanager
def local_speakers(
    config: DebateConfig, path: Path, workspace: Workspace, stop: Callable[[], object] = lambda: None
) -> Iterator["LocalSpeakers"]:
    """A checkpoint folder and its adapters, loaded inside the `with` block.

    `stop` raises what ends the work, and is asked several times a second.

    Raises:
        UsageError, DataError, ModelFileError: as `check_agents`; or the base does not fit the memory.
    """
    named = check_agents(config, workspace)
    folders = list(dict.fromkeys(named.values()))
    base = load_base(path, "fp32" if config.dtype == "float32" else "bf16", "sdpa")
    with applied(base, folders, config.dtype, any_base=True) as adapters, _asking(base.model, stop):
        own = [agent.name for agent in config.agents if agent.model is None]
        places = {name: folders.index(named[name]) if name in named else BASE for name in own}
        yield LocalSpeakers(base, adapters, places, config.rows)


class LocalSpeakers:
    """See `Speakers`."""

    def __init__(self, base: Base, adapters: Rowwise, places: Mapping[str, int], rows: int) -> None:
        """`places` of the agents' adapters; at most so many `rows` are turns side by side."""
        self._base, self._template = base, ChatTemplate(base.tokenizer)
        self._model, self._tokenizer = base.model, base.tokenizer
        self._adapters, self._places, self._rows = adapters, places, rows
        self._batch = Batch(self._model, adapters, ends_of(self._model.generation_config, base.tokenizer))
        self._context: int | None = getattr(self._model.config, "max_position_embeddings", None)
        self._keeps = self._batch.slow is None and not slides(self._model)
        self._kept: dict[str, _Read] = {}  # by dialogue, the oldest first
        self._most = max(_MEMORY, sum(each.nbytes for each in base.model.parameters()))

    def forget(self) -> None:
        """Let go of all keys and values."""
        self._kept.clear()

    @torch.inference_mode()
    def answer(self, asked: Sequence[Asked]) -> list[Said]:
        """So many turns at a time, by adapter. What does not fit the context is told.

        Raises:
            ModelFileError: so many turns do not fit the memory.
        """
        begun = [self._begun(each) for each in asked]
        turns = sorted((each for each in begun if isinstance(each, _Turn)), key=lambda turn: turn.read.adapter)
        try:
            for start in range(0, len(turns), self._rows):
                self._wave(turns[start : start + self._rows])
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, torch.OutOfMemoryError) or memory.ran_out(error):
                raise ModelFileError(f"{len(turns)} turns do not fit the memory.", hint=_LESS) from error
            raise
        return [each if isinstance(each, Said) else _said(each) for each in begun]

    def score(self, questions: Sequence[Question]) -> dict[str, dict[str, Scored]]:
        """How choices stand under each agent alone, by question: by its adapter, whatever persona it is told to be."""
        fitting = [question for question in questions if question.choices and self._fits(question)]
        places = list(dict.fromkeys(self._places.values()))
        found = score_choices(self._base, self._adapters, places, labelled(fitting), lambda _: None)
        chosen = {
            place: {q.id: each.finite for q, each in zip(fitting, row, strict=True)}
            for place, row in zip(places, found, strict=True)
        }
        return {agent: chosen[place] for agent, place in self._places.items()}

    def _fits(self, question: Question) -> bool:
        texts = [self._template.render(prompt(question), prompt=True), max(question.choices, key=len)]
        return self._context is None or sum(len(self._ids(self._plain(text))) for text in texts) <= self._context

    def _begun(self, asked: Asked) -> _Turn | Said:
        """A turn whose prompt fits the context, or why there is none."""
        messages = [Message(each.role, self._plain(each.content)) for each in asked.messages]
        try:
            prompt = last = self._template.render(messages, prompt=True)
            if "p_true" in asked.confidences:
                last = self._template.render([*messages, Message("assistant", "?"), _RIGHT], prompt=True)
        except TemplateRefusesError as error:
            return Said(error=f"The chat template refuses the messages: {error}.")
        tokens = self._ids(prompt)
        ending = max((len(self._ids(self._plain(choice))) + _ENDING for choice in asked.choices), default=0)
        needed = len(self._ids(last)) + asked.max_tokens + ending
        if self._context is not None and needed > self._context:
            why = f"Prompt and answer take {needed:,} tokens, the context has {self._context:,}."
            return Said(error=why, input_tokens=len(tokens), overflow=True)
        return _Turn(asked, messages, prompt, tokens, _Read(self._places[asked.agent], (), None))

    def _wave(self, turns: Sequence[_Turn]) -> None:
        """Turns side by side, from their prompts to their confidences."""
        for turn in turns:
            turn.read = self._remembered(turn)
        self._speak([turn for turn in turns if turn.asked.max_tokens])
        self._choose([turn for turn in turns if turn.asked.choices])
        self._judge([turn for turn in turns if "p_true" in turn.asked.confidences and turn.text])
        for turn in turns:
            if turn.asked.dialogue and turn.asked.max_tokens and turn.read.past is not None:
                self._kept.pop(turn.asked.dialogue, None)
                self._kept[turn.asked.dialogue] = turn.read
            turn.read = _Read(turn.read.adapter, (), None)  # the rest of the call needs the memory
        while len(self._kept) > 1 and sum(each.past.bytes for each in self._kept.values() if each.past) > self._most:
            del self._kept[next(iter(self._kept))]

    def _remembered(self, turn: _Turn) -> _Read:
        """What begins most like the prompt, of all that its adapter has read and is kept."""
        mine = [each for each in self._kept.values() if each.adapter == turn.read.adapter]
        best = max(mine, key=lambda each: common([each.tokens, turn.tokens]), default=turn.read)
        return best if best.tokens and common([best.tokens, turn.tokens]) >= _WORTH else turn.read

    def _speak(self, turns: Sequence[_Turn]) -> None:
        rows: dict[Row, _Turn] = {}
        for turn in turns:
            asked, read = turn.asked, turn.read
            row = Row(
                read.adapter,
                turn.tokens,
                asked.max_tokens,
                asked.temperature,
                generator=torch.Generator(self._model.device).manual_seed(asked.seed),
                logprob="logprob" in asked.confidences and not asked.choices,
                past=read.past,
                known=common([read.tokens, turn.tokens]) if read.past else 0,
                keep=self._keeps,
            )
            rows[row] = turn
        for tokens in self._batch.run(rows, max(1, len(rows)), waves=True):
            for token in tokens:
                turn = rows[token.row]
                turn.said.append(token.token)
                turn.logprobs.append(math.nan if token.logprob is None else token.logprob)
                if token.finish:
                    turn.read = _Read(turn.read.adapter, [*turn.tokens, *turn.said[:-1]], token.row.past)
                    token.row.past = None
                if token.finish == "stop":
                    turn.said.pop()
        for turn in turns:
            turn.text = self._plain(self._text(turn.said)).strip()
            if "logprob" in turn.asked.confidences and not turn.asked.choices:
                answer = turn.logprobs[self._answer_in(turn.said) : len(turn.said)]
                _put(turn, "logprob", math.exp(sum(answer) / len(answer)) if answer else None)

    def _answer_in(self, said: Sequence[int]) -> int:
        """The first token behind the last `Answer:`; without one, the first of all."""
        before, found, _ = self._text(said).rpartition(_ANSWER)
        begin = len(before) + len(found)
        return bisect_right(range(len(said)), begin, key=lambda last: len(self._text(said[: last + 1])))

    def _choose(self, turns: Sequence[_Turn]) -> None:
        """The likeliest choice behind what was said."""
        asked = []
        for turn in turns:
            turn.text = f"{turn.text.partition(_ANSWER)[0].strip()}\n{_ANSWER}".lstrip()
            texts = [f" {self._plain(each)}" for each in turn.asked.choices]
            asked.append(self._behind(turn, turn.prompt + turn.text, texts))
        for turn, found in zip(turns, score(self._model, self._adapters, asked), strict=True):
            turn.choice = turn.asked.choices[found.chosen()]
            turn.text = f"{turn.text} {turn.choice}"
            if "logprob" in turn.asked.confidences:
                _put(turn, "logprob", max(found.shares()))

    def _judge(self, turns: Sequence[_Turn]) -> None:
        """Whether the agent calls its own answer right."""
        asked = []
        for turn in turns:
            messages = [*turn.messages, Message("assistant", self._plain(turn.text)), _RIGHT]
            asked.append(self._behind(turn, self._template.render(messages, prompt=True), _LABELS))
        for turn, found in zip(turns, score(self._model, self._adapters, asked), strict=True):
            _put(turn, "p_true", found.shares("sum")[0])

    def _behind(self, turn: _Turn, text: str, texts: Sequence[str]) -> Choice:
        """What could follow a text that begins with the prompt, read behind what is known of it."""
        before, read = self._ids(text), turn.read
        known = common([read.tokens, before]) if read.past else 0
        prompt = Prompt(read.adapter, before, read.past if known else None, known)
        return Choice(prompt, [self._ids(each) for each in texts])

    # -- tokens -------------------------------------------------------------------------------------------------------

    def _plain(self, text: str) -> str:
        """The text as nothing but text: special tokens in it are spelt otherwise, halves of characters are `?`."""
        return self._template.without_control(text.encode(errors="replace").decode())

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _text(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _said(turn: _Turn) -> Said:
    return Said(turn.text, turn.choice, turn.confidences, len(turn.tokens), len(turn.said))


def _put(turn: _Turn, kind: Confidence, value: float | None) -> None:
    if value is not None and math.isfinite(value):
        turn.confidences[kind] = value


@contextmanager
def _asking(model: Any, stop: Callable[[], object]) -> Iterator[None]:
    """Let the model ask between its layers whether it is to stop: one pass may take seconds."""

    def ask(*_: Any) -> None:
        stop()

    lists = [each for each in model.modules() if isinstance(each, torch.nn.ModuleList)]
    with ExitStack() as hooks:
        for layer in max(lists, key=len, default=()):
            hooks.enter_context(layer.register_forward_pre_hook(ask))
        yield
