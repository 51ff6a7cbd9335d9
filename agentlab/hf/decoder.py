"""A checkpoint loaded with transformers: prompt and token loop. Lives only in the worker process, on one thread."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch  # noqa: TID253 - imported by the decoder alone, in its worker process

from agentlab import machine
from agentlab.errors import BadRequestError, ModelFileError
from agentlab.hf.batch import pick as pick
from agentlab.hf.clock import stop_clock
from agentlab.hf.packed import packed
from agentlab.workers import memory
from agentlab.workers.chat import ChatRequest, Chunk, StopFinder

_NEEDED = "It needs config.json, safetensors and a tokenizer, of an architecture that transformers brings itself."
_LESS = "Use a smaller model, or close other programs."
_BROKEN = "\ufffd"  # stands for bytes that are no whole character yet
_PATIENCE = 32  # tokens; a character has four bytes at most, but a token may end one and begin the next


class Decoder:
    """Owns a model and its tokenizer. Not thread-safe."""

    def __init__(self, path: str, adapter: str | None, threads: int) -> None:
        """Load the model; see `HfConfig`. Code that comes with a checkpoint is never run, pickles are never read.

        Raises:
            ModelFileError: checkpoint or adapter cannot be loaded, or there is no chat template.
        """
        torch.set_num_threads(threads)
        self._device = machine.device()
        self._packing = ExitStack()  # never closed: the process ends with the decoder
        try:
            self._tokenizer, self._model = _load(path, adapter)
            self._model.to(self._device).eval()
            self._packing.enter_context(packed(self._model))
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, MemoryError) as error:
            where = path if adapter is None else f"{path} with {adapter}"
            raise ModelFileError(
                f"transformers cannot load {where}: {type(error).__name__}: {str(error)[:300]}",
                hint=_LESS if memory.ran_out(error) else _NEEDED,
            ) from error
        if not self._tokenizer.chat_template:
            raise ModelFileError(
                f"{path} holds no chat template, so it cannot be talked to.",
                hint="Use an instruct model, for example `agentlab models import smollm2-135m`.",
            )
        self._ends = _ends(self._model.generation_config, self._tokenizer)
        self._context: int | None = getattr(self._model.config, "max_position_embeddings", None)

    def chat(self, request: ChatRequest) -> Generator[Chunk, None, None]:
        """Decode an answer. Closing the iterator stops the decoding. No schema is enforced, no logprob is given.

        Raises:
            BadRequestError: the template refuses the messages.
            ContextOverflowError: prompt and answer do not fit the context.
        """
        prompt = self._tokenize(request.messages)
        most = request.max_tokens if self._context is None else request.tokens_within(self._context, len(prompt))
        generator = torch.Generator(self._device).manual_seed(request.seed % (1 << 63))
        text, stops = Detokenizer(self._decode), StopFinder(request.stop)
        cache, tokens, count, ended = None, prompt, 0, False
        while count < most and not stops.found:
            logits, cache = self._forward(tokens, cache)
            token = pick(logits, request.temperature, request.top_p, generator)
            ended = token in self._ends
            if ended:
                break
            count, tokens = count + 1, [token]
            if piece := stops.feed(text.feed(token)):
                yield Chunk(text=piece)
        rest = stops.feed(text.rest()) + stops.rest()
        finish = "stop" if ended or stops.found else "length"
        yield Chunk(text=rest, finish=finish, prompt_tokens=len(prompt), completion_tokens=count)

    @torch.inference_mode()
    def _forward(self, tokens: Sequence[int], cache: Any) -> tuple[torch.Tensor, Any]:
        """(logits of the next token, float of shape (vocabulary,); the attention cache with these tokens)."""
        given = torch.tensor([tokens], device=self._device)
        out = self._model(input_ids=given, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return out.logits[0, -1].float(), out.past_key_values

    def _decode(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _tokenize(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        from jinja2 import TemplateError

        try:
            # rendered in Jinja's immutable sandbox: a template is code that came with the checkpoint
            prompt = self._tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                tokenize=False,
                add_generation_prompt=True,
            )
        except (TemplateError, ValueError, TypeError, KeyError) as error:
            raise BadRequestError(f"The model's chat template refuses the messages: {error}.") from error
        try:
            tokens: list[int] = self._tokenizer(prompt, add_special_tokens=False)["input_ids"]
        except (TypeError, UnicodeError) as error:  # the first is how tokenizers say it
            raise BadRequestError("The prompt holds half of a character (a lone surrogate).") from error
        if not tokens:
            raise BadRequestError("The model's chat template makes an empty prompt of the messages.")
        return tokens


def _load(path: str, adapter: str | None) -> tuple[Any, Any]:
    """(tokenizer, model) of a checkpoint folder."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    stop_clock()
    only_here = {"local_files_only": True, "trust_remote_code": False}
    tokenizer: Any = AutoTokenizer.from_pretrained(path, **only_here)
    model: Any = AutoModelForCausalLM.from_pretrained(path, dtype="auto", use_safetensors=True, **only_here)
    if adapter is None:
        return tokenizer, model
    from peft import PeftModel

    if not (Path(adapter) / "adapter_model.safetensors").is_file():
        raise ValueError("the adapter has no safetensors")  # peft would read a pickle instead
    return tokenizer, PeftModel.from_pretrained(model, adapter, is_trainable=False, local_files_only=True)


def _ends(config: Any, tokenizer: Any) -> frozenset[int]:
    """The tokens after which an answer is over."""
    given = config.eos_token_id
    ends = given if isinstance(given, list) else [given]
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

    def rest(self) -> str:
        """What is left when the answer ends in the middle of a character."""
        return self._new()

    def _new(self) -> str:
        known = self._decode(self._tokens[self._before : self._said])
        return self._decode(self._tokens[self._before :])[len(known) :]
