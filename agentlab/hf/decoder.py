"""A checkpoint loaded with transformers: prompts and texts of answers. Lives only in the worker, on one thread."""

import math
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch  # noqa: TID253 - imported by the decoder alone, in its worker process

from agentlab import machine
from agentlab.errors import BadRequestError, ModelFileError, UsageError, WorkerDiedError
from agentlab.hf.batch import AnswerBatch, AnswerRow, Token
from agentlab.hf.cache import HEADROOM
from agentlab.hf.checkpoint import loading, read_config
from agentlab.hf.fingerprint import fingerprint_of
from agentlab.hf.onednn_weights import pack_weights
from agentlab.lora.card import read_card
from agentlab.lora.rowwise import rowwise
from agentlab.lora.stacked import BASE
from agentlab.workers.chat import Chunk, EngineRequest, StopFinder
from agentlab.workers.templates import TemplateRefusesError, prepare, render_chat

_BROKEN = "\ufffd"  # stands for bytes that are no whole character yet
_PATIENCE = 32  # tokens; a character has four bytes at most, but a token may end one and begin the next
_PARTS = 3  # of the memory that loading left: one is for keys and values, one for moving them


class HfDecoder:
    """Owns a model, its tokenizer and the adapters that were asked for. Not thread-safe."""

    def __init__(self, path: str, dtype: str, threads: int) -> None:
        """Load the model; see `HfConfig`. Code that comes with a checkpoint is never run, pickles are never read.

        Raises:
            ModelFileError: the checkpoint cannot be loaded, or there is no chat template.
        """
        prepare()
        torch.set_num_threads(threads)
        self._path, self._device = Path(path), machine.device()
        self._open = ExitStack()  # never closed: the process ends with the decoder
        with loading(f"transformers cannot load {path}"):
            self._tokenizer, self._model = _load(path, dtype)
            self._model.to(self._device).eval()
            self._open.enter_context(pack_weights(self._model))
        if not self._tokenizer.chat_template:
            raise ModelFileError(
                f"{path} has no chat template, so it cannot chat.",
                hint="Use an instruct model, for example `agentlab models import smollm2-135m`.",
            )
        self._adapters = self._open.enter_context(rowwise(self._model, [], any_base=True))
        self._slots: dict[str | None, int] = {None: BASE}
        self._batch = AnswerBatch(self._model, self._adapters, ends_of(self._model.generation_config, self._tokenizer))
        self._context: int | None = getattr(self._model.config, "max_position_embeddings", None)
        self._room = machine.free_bytes(self._device) // _PARTS // _bytes_of_token(self._model)
        self._rows: dict[AnswerRow, deque[Token | None] | None] = {}  # in their order: see `_next`; None has to wait
        self._note = self._batch.slow

    def chat(self, request: EngineRequest) -> Generator[Chunk, None, None]:
        """Decode an answer, side by side with others. Closing the iterator stops it. No schema is enforced.

        Raises:
            BadRequestError: the template refuses the messages.
            ContextOverflowError: prompt and answer do not fit the context.
            MissingFileError, ModelFileError: there is no such adapter, or it cannot be used with this model.
        """
        prompt = self._tokenize(request.messages)
        max_tokens = request.max_tokens if self._context is None else request.tokens_within(self._context, len(prompt))
        generator = torch.Generator(self._device).manual_seed(request.seed % (1 << 63))
        adapter = self._adapter_slot(request.adapter)
        row = AnswerRow(adapter, prompt, max_tokens, request.temperature, request.top_p, generator, request.logprob)
        text, stops = Detokenizer(self._decode), StopFinder(request.stop)
        count, logprob, finish = 0, 0.0, None
        self._rows[row] = None
        try:
            while finish is None and not stops.found:
                token = self._next(row)
                if token is None:
                    yield Chunk()
                    continue
                finish = token.finish
                if finish != "stop":
                    count, logprob = count + 1, logprob + (token.logprob or 0.0)
                    yield Chunk(text=stops.feed(text.feed(token.token)))
        finally:
            del self._rows[row]
            self._batch.evict([row])
        last_text = stops.feed(text.flush()) + stops.remaining_text()
        note, self._note = self._note, None  # once is enough
        yield Chunk(
            text=last_text,
            finish="stop" if finish == "stop" or stops.found else "length",
            prompt_tokens=len(prompt),
            completion_tokens=count,
            logprob=logprob / count if request.logprob and count and math.isfinite(logprob) else None,
            note=note,
        )

    def _adapter_slot(self, adapter: str | None) -> int:
        """Where an adapter is in the stack; it is read when it is first asked for."""
        if adapter not in self._slots:
            folder = Path(adapter or "")
            try:
                self._check_base(folder)
                self._slots[adapter] = self._adapters.put(folder)
            except UsageError as error:
                raise ModelFileError(
                    f"{folder.name} cannot be used with {self._path.name}: {error.message}", hint=error.hint
                ) from error
            self._note = self._adapters.slow or self._note
        return self._slots[adapter]

    def _check_base(self, adapter: Path) -> None:
        """Shapes do not tell two checkpoints of one architecture apart; the card of an adapter does, if it has one."""
        base = read_card(adapter).base
        if base.fingerprint and base.fingerprint != fingerprint_of(self._path):
            raise UsageError(
                "its fingerprint shows that it was trained on another base model.",
                hint=f"Use the base that it was trained on: {base.path or 'its path is unknown'}.",
            )

    def _may_enter(self, row: AnswerRow) -> bool:
        """Whether it is the next one, and there is memory for it beside those that are in."""
        inside = [queued_row for queued_row, tokens in self._rows.items() if tokens is not None]
        longest = max(len(queued_row.prompt) + queued_row.max_tokens for queued_row in (row, *inside)) + HEADROOM
        is_next = row is next(queued_row for queued_row, tokens in self._rows.items() if tokens is None)
        return is_next and (not inside or longest * (len(inside) + 1) <= self._room)

    def _next(self, row: AnswerRow) -> Token | None:
        """The next token of a row; None while it waits, or while its prompt is read.

        Whoever has none left has a step made, and a piece of the prompts read: all that are in get a token, or a None.
        So rows that ask by turns get one in each turn, and those that come in one turn are read together.
        """
        tokens = self._rows[row]
        if tokens is None:
            if self._may_enter(row):
                self._batch.enter([row])
                self._rows[row] = deque()
            return None
        if not tokens:
            if row not in self._batch:
                raise WorkerDiedError("The model failed in the middle of an answer.", hint="Try again.")
            inside = {queued_row: waiting for queued_row, waiting in self._rows.items() if waiting is not None}
            for advance in (self._batch.step, self._batch.read):
                for token in advance():
                    inside[token.row].append(token)
            for waiting in inside.values():
                if not waiting:
                    waiting.append(None)
        return tokens.popleft()

    def _decode(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _tokenize(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        try:
            prompt = render_chat(self._tokenizer, messages, prompt=True)
        except TemplateRefusesError as error:
            raise BadRequestError(f"The model's chat template rejects the messages: {error}.") from error
        try:
            tokens: list[int] = self._tokenizer(prompt, add_special_tokens=False)["input_ids"]
        except (TypeError, UnicodeError) as error:  # the first is how tokenizers say it
            raise BadRequestError("The prompt contains a lone surrogate, which is not a character.") from error
        if not tokens:
            raise BadRequestError("The model's chat template turns the messages into an empty prompt.")
        return tokens


def _load(path: str, dtype: str) -> tuple[Any, Any]:
    """(tokenizer, model) of a checkpoint folder."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    read_config(Path(path))
    only_here = {"local_files_only": True, "trust_remote_code": False}
    tokenizer: Any = AutoTokenizer.from_pretrained(path, **only_here)
    make: Any = AutoModelForCausalLM.from_pretrained
    model, loading_info = make(path, dtype=dtype, use_safetensors=True, output_loading_info=True, **only_here)
    if loading_info["missing_keys"]:  # transformers makes them up
        raise ValueError(f"its files lack {', '.join(sorted(loading_info['missing_keys'])[:3])}")
    return tokenizer, model


def _bytes_of_token(model: Any) -> int:
    """What a token takes in the cache: keys and values of every layer."""
    config = model.config.get_text_config(decoder=True)
    heads = getattr(config, "num_attention_heads", 1)
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    key_value_heads = getattr(config, "num_key_value_heads", None) or heads
    return int(2 * config.num_hidden_layers * key_value_heads * size * model.dtype.itemsize)


def ends_of(config: Any, tokenizer: Any) -> frozenset[int]:
    """The tokens after which an answer is over."""
    eos_token_id = config.eos_token_id
    ends = eos_token_id if isinstance(eos_token_id, list) else [eos_token_id]
    return frozenset(token for token in (*ends, tokenizer.eos_token_id) if token is not None)


class Detokenizer:
    """A token is no text by itself: it may be a part of a character, and its space depends on its neighbours.

    So each new one is decoded behind those before it, back to the last place where the text was whole, and what is
    more than their text is its own: linear in the length of the answer.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._tokens: list[int] = []
        self._before = 0  # where decoding begins
        self._said = 0  # up to here the text was given out

    def feed(self, token: int) -> str:
        """The text that this token completes, often none."""
        self._tokens.append(token)
        new = self._new()
        if not new or (new.endswith(_BROKEN) and len(self._tokens) - self._said < _PATIENCE):
            return ""
        self._before, self._said = self._said, len(self._tokens)
        return new

    def flush(self) -> str:
        """What is left when the answer ends in the middle of a character."""
        return self._new()

    def _new(self) -> str:
        emitted_text = self._decode(self._tokens[self._before : self._said])
        return self._decode(self._tokens[self._before :])[len(emitted_text) :]
