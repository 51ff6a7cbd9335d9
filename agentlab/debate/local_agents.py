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
from agentlab.debate.speakers import TurnReply, TurnRequest
from agentlab.errors import ModelFileError
from agentlab.gguf import metadata
from agentlab.hf.batch import AnswerBatch, AnswerRow
from agentlab.hf.decoder import ends_of
from agentlab.hf.likelihood import Choice, score
from agentlab.hf.prefill import CachedPast, Prompt, common, slides
from agentlab.lora.catalogue import find as find_adapter
from agentlab.lora.rowwise import Rowwise
from agentlab.lora.stacked import BASE
from agentlab.models.base_model import find_base
from agentlab.tasks.labelled import prompt, prompts_and_choices
from agentlab.tasks.questions import QuizQuestion
from agentlab.train.adapter_base import check_fit
from agentlab.train.base import TrainingBase, check_files, load_base
from agentlab.train.chat_template import ChatTemplate, TemplateRefusesError
from agentlab.train.conversations import ConversationTurn as Message
from agentlab.train.scoring import apply_adapters, score_choices
from agentlab.workers import memory

_ANSWER = "Answer:"
_RIGHT, _LABELS = Message("user", "Is this answer right? Reply with Yes or No."), ("Yes", "No")
_WORTH = 16  # tokens of a common beginning that are worth being copied
_MEMORY = 1 << 30  # bytes of keys and values that are kept at least; as many as the weights take, if that is more
_ENDING = 8  # tokens around an answer, at most
_LESS = "Lower `rows`, as in --set rows=8, to process fewer turns at once."


def check_agents(config: DebateConfig, workspace: Workspace) -> dict[str, Path]:
    """The adapters of the agents that have one, seen to be there, to go together, and to fit a base that is imported.

    Nothing is loaded; see `check_fit`.

    Raises:
        MissingFileError, UnknownNameError: there is no such base or adapter, or the base is no checkpoint.
        UsageError: an adapter was made for another base, or its layers are not the base's.
        DataError, ModelFileError: an adapter is damaged, or its numbers are none that a training makes.
    """
    adapter_folders = {
        agent.name: find_adapter(agent.adapter, workspace) for agent in config.agents if agent.adapter is not None
    }
    base = find_base(config.base, workspace)
    if base.source is not None:
        metadata.read(base.source)
    else:
        check_files(base.path)
    check_fit(adapter_folders.values(), base)
    return adapter_folders


@dataclass(slots=True)
class _Read:
    """Tokens that an adapter has read, and their keys and values."""

    adapter: int
    tokens: Sequence[int]
    past: CachedPast | None


@dataclass(slots=True)
class _Turn:
    """A turn in the making; `read` is what is known of it, or of something that begins alike."""

    asked: TurnRequest
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
    adapter_folders = check_agents(config, workspace)
    folders = list(dict.fromkeys(adapter_folders.values()))
    base = load_base(path, "fp32" if config.dtype == "float32" else "bf16", "sdpa")
    with apply_adapters(base, folders, config.dtype, any_base=True) as adapters, _asking(base.model, stop):
        names = [agent.name for agent in config.agents if agent.model is None]
        indices = {name: folders.index(adapter_folders[name]) if name in adapter_folders else BASE for name in names}
        yield LocalSpeakers(base, adapters, indices, config.rows)


class LocalSpeakers:
    """See `Speakers`. `adapter_indices`: of each agent, its adapter's place or BASE; `rows`: turns side by side."""

    def __init__(self, base: TrainingBase, adapters: Rowwise, adapter_indices: Mapping[str, int], rows: int) -> None:
        self._base, self._template = base, ChatTemplate(base.tokenizer)
        self._model, self._tokenizer = base.model, base.tokenizer
        self._adapters, self._adapter_indices, self._rows = adapters, adapter_indices, rows
        self._batch = AnswerBatch(self._model, adapters, ends_of(self._model.generation_config, base.tokenizer))
        self._context: int | None = getattr(self._model.config, "max_position_embeddings", None)
        self._keeps = self._batch.slow is None and not slides(self._model)
        self._kept: dict[str, _Read] = {}  # by dialogue, the oldest first
        self._max_kept_bytes = max(_MEMORY, sum(parameter.nbytes for parameter in base.model.parameters()))

    def forget(self) -> None:
        self._kept.clear()

    @torch.inference_mode()
    def answer(self, requests: Sequence[TurnRequest]) -> list[TurnReply]:
        """At most `rows` turns at a time, by adapter. Where one does not fit the context, its reply says so.

        Raises:
            ModelFileError: so many turns at once do not fit in memory.
        """
        attempts = [self._begin_turn(request) for request in requests]
        turns = [attempt for attempt in attempts if isinstance(attempt, _Turn)]
        turns.sort(key=lambda turn: turn.read.adapter)
        try:
            for start in range(0, len(turns), self._rows):
                self._wave(turns[start : start + self._rows])
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, torch.OutOfMemoryError) or memory.ran_out(error):
                raise ModelFileError(f"There is not enough memory for {len(turns)} turns.", hint=_LESS) from error
            raise
        return [attempt if isinstance(attempt, TurnReply) else _build_reply(attempt) for attempt in attempts]

    def score(self, questions: Sequence[QuizQuestion]) -> dict[str, dict[str, Scored]]:
        """How choices stand under each agent alone, by question: by its adapter, whatever persona it is told to be."""
        fitting = [question for question in questions if question.choices and self._fits(question)]
        indices = list(dict.fromkeys(self._adapter_indices.values()))
        score_rows = score_choices(self._base, self._adapters, indices, prompts_and_choices(fitting), lambda _: None)
        scores_by_index: dict[int, dict[str, Scored]] = {}
        for index, row in zip(indices, score_rows, strict=True):
            scores_by_index[index] = {q.id: scored.finite for q, scored in zip(fitting, row, strict=True)}
        return {agent: scores_by_index[index] for agent, index in self._adapter_indices.items()}

    def _fits(self, question: QuizQuestion) -> bool:
        texts = [self._template.render(prompt(question), prompt=True), max(question.choices, key=len)]
        return self._context is None or sum(len(self._ids(self._plain(text))) for text in texts) <= self._context

    def _begin_turn(self, request: TurnRequest) -> _Turn | TurnReply:
        """A turn whose prompt fits the context, or why there is none."""
        messages = [Message(message.role, self._plain(message.content)) for message in request.messages]
        try:
            prompt = last = self._template.render(messages, prompt=True)
            if "p_true" in request.confidences:
                last = self._template.render([*messages, Message("assistant", "?"), _RIGHT], prompt=True)
        except TemplateRefusesError as error:
            return TurnReply(error=f"The chat template rejected the messages: {error}.")
        tokens = self._ids(prompt)
        ending = max((len(self._ids(self._plain(choice))) + _ENDING for choice in request.choices), default=0)
        needed = len(self._ids(last)) + request.max_tokens + ending
        if self._context is not None and needed > self._context:
            reason = f"Prompt and answer need {needed:,} tokens; the context holds {self._context:,}."
            return TurnReply(error=reason, input_tokens=len(tokens), overflow=True)
        return _Turn(request, messages, prompt, tokens, _Read(self._adapter_indices[request.agent], (), None))

    def _wave(self, turns: Sequence[_Turn]) -> None:
        for turn in turns:
            turn.read = self._find_kept_read(turn)
        self._speak([turn for turn in turns if turn.asked.max_tokens])
        self._choose([turn for turn in turns if turn.asked.choices])
        self._judge([turn for turn in turns if "p_true" in turn.asked.confidences and turn.text])
        for turn in turns:
            if turn.asked.dialogue and turn.asked.max_tokens and turn.read.past is not None:
                self._kept.pop(turn.asked.dialogue, None)
                self._kept[turn.asked.dialogue] = turn.read
            turn.read = _Read(turn.read.adapter, (), None)  # the rest of the call needs the memory
        while (
            len(self._kept) > 1
            and sum(read.past.bytes for read in self._kept.values() if read.past) > self._max_kept_bytes
        ):
            del self._kept[next(iter(self._kept))]

    def _find_kept_read(self, turn: _Turn) -> _Read:
        reads = [read for read in self._kept.values() if read.adapter == turn.read.adapter]
        best = max(reads, key=lambda read: common([read.tokens, turn.tokens]), default=turn.read)
        return best if best.tokens and common([best.tokens, turn.tokens]) >= _WORTH else turn.read

    def _speak(self, turns: Sequence[_Turn]) -> None:
        rows: dict[AnswerRow, _Turn] = {}
        for turn in turns:
            request, read = turn.asked, turn.read
            row = AnswerRow(
                read.adapter,
                turn.tokens,
                request.max_tokens,
                request.temperature,
                generator=torch.Generator(self._model.device).manual_seed(request.seed),
                logprob="logprob" in request.confidences and not request.choices,
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
                answer = turn.logprobs[self._answer_start(turn.said) : len(turn.said)]
                _put(turn, "logprob", math.exp(sum(answer) / len(answer)) if answer else None)

    def _answer_start(self, tokens: Sequence[int]) -> int:
        """The first token behind the last `Answer:`; without one, the first of all."""
        before, marker, _ = self._text(tokens).rpartition(_ANSWER)
        begin = len(before) + len(marker)
        return bisect_right(range(len(tokens)), begin, key=lambda last: len(self._text(tokens[: last + 1])))

    def _choose(self, turns: Sequence[_Turn]) -> None:
        choices = []
        for turn in turns:
            turn.text = f"{turn.text.partition(_ANSWER)[0].strip()}\n{_ANSWER}".lstrip()
            texts = [f" {self._plain(choice)}" for choice in turn.asked.choices]
            choices.append(self._build_choice(turn, turn.prompt + turn.text, texts))
        for turn, scored in zip(turns, score(self._model, self._adapters, choices), strict=True):
            turn.choice = turn.asked.choices[scored.likeliest_index()]
            turn.text = f"{turn.text} {turn.choice}"
            if "logprob" in turn.asked.confidences:
                _put(turn, "logprob", max(scored.shares()))

    def _judge(self, turns: Sequence[_Turn]) -> None:
        """Whether the agent calls its own answer right."""
        choices = []
        for turn in turns:
            messages = [*turn.messages, Message("assistant", self._plain(turn.text)), _RIGHT]
            choices.append(self._build_choice(turn, self._template.render(messages, prompt=True), _LABELS))
        for turn, scored in zip(turns, score(self._model, self._adapters, choices), strict=True):
            _put(turn, "p_true", scored.shares("sum")[0])

    def _build_choice(self, turn: _Turn, text: str, texts: Sequence[str]) -> Choice:
        """What could follow a text that begins with the prompt, read behind what is known of it."""
        before, read = self._ids(text), turn.read
        known_tokens = common([read.tokens, before]) if read.past else 0
        prompt = Prompt(read.adapter, before, read.past if known_tokens else None, known_tokens)
        return Choice(prompt, [self._ids(continuation) for continuation in texts])

    # -- tokens -------------------------------------------------------------------------------------------------------

    def _plain(self, text: str) -> str:
        """The text as nothing but text: special tokens in it are spelt otherwise, halves of characters are `?`."""
        return self._template.without_control(text.encode(errors="replace").decode())

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _text(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _build_reply(turn: _Turn) -> TurnReply:
    return TurnReply(turn.text, turn.choice, turn.confidences, len(turn.tokens), len(turn.said))


def _put(turn: _Turn, kind: Confidence, value: float | None) -> None:
    if value is not None and math.isfinite(value):
        turn.confidences[kind] = value


@contextmanager
def _asking(model: Any, stop: Callable[[], object]) -> Iterator[None]:
    """Let the model ask between its layers whether it is to stop: one pass may take seconds."""

    def ask(*_: Any) -> None:
        stop()

    lists = [module for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
    with ExitStack() as hooks:
        for layer in max(lists, key=len, default=()):
            hooks.enter_context(layer.register_forward_pre_hook(ask))
        yield
