"""A model loaded with llama.cpp: prompt, grammar and token loop. Lives only in the worker process, on one thread."""

import codecs
import collections
import contextlib
import ctypes
import io
import json
import os
from collections.abc import Generator, Mapping, Sequence
from datetime import datetime
from typing import Any

from agentlab.errors import BadRequestError, ContextOverflowError, MissingExtraError, ModelFileError
from agentlab.gguf.schema import enforceable
from agentlab.workers.chat import Chunk
from agentlab.workers.stops import StopFinder

_WARNING, _CONTINUED = 3, 5  # ggml_log_level: debug 1, info 2, warning 3, error 4, continuation of the last one 5
_PIECE_BYTES = 1024
_TOP_P = 0.95  # llama.cpp's own
_MAX_GRAMMAR = 1 << 18  # characters; parsing takes time that grows faster than the text
_IF_MEMORY = "If memory is what it lacks, use a smaller context, batch or model."
_REINSTALL = "`agentlab doctor` checks the build; `pip install --force-reinstall llama-cpp-python` makes a new one."


class Decoder:
    """Owns a `llama_cpp.Llama`. Not thread-safe."""

    def __init__(self, path: str, context: int, threads: int, batch: int, gpu_layers: int, reuse_prefix: bool) -> None:
        """Load the model; see `EngineConfig`.

        Raises:
            MissingExtraError: llama-cpp-python cannot be imported.
            ModelFileError: the file cannot be loaded, or has no chat template.
        """
        try:
            import llama_cpp
        except (ImportError, OSError, RuntimeError) as error:
            raise MissingExtraError(f"llama-cpp-python cannot be loaded: {error}.", hint=_REINSTALL) from error
        self._api: Any = llama_cpp
        self._context, self._reuse_prefix = context, reuse_prefix
        log: collections.deque[str] = collections.deque(maxlen=5)
        self._log_callback = _log_to_stderr(llama_cpp, log)  # kept: the library holds a bare pointer to it
        try:
            # `verbose` off would point the process's stderr at /dev/null while loading, and an assertion dies unheard.
            # What the Python layer prints then is dropped here; llama.cpp's own log comes through the callback.
            with contextlib.redirect_stderr(io.StringIO()):
                self._llama: Any = llama_cpp.Llama(
                    path,
                    n_ctx=context,
                    n_batch=batch,
                    n_ubatch=batch,
                    n_threads=threads,
                    n_threads_batch=threads,
                    n_gpu_layers=gpu_layers,
                    verbose=True,
                )
        except (ValueError, MemoryError) as error:
            said = " ".join(log) or str(error)
            raise ModelFileError(f"llama.cpp cannot load {path}: {said}", hint=_IF_MEMORY) from error
        self._llama.verbose = False
        self._vocabulary = llama_cpp.llama_model_get_vocab(self._llama.model)
        self._template = self._read_template(path)

    def _read_template(self, path: str) -> Any:
        source = self._llama.metadata.get("tokenizer.chat_template")
        if not source:
            raise ModelFileError(
                f"{path} holds no chat template, so it cannot be talked to.",
                hint="Use an instruct model, for example `agentlab models pull smollm2-135m`.",
            )
        from llama_cpp.llama_chat_format import Jinja2ChatFormatter

        # Rendered in Jinja's immutable sandbox: a template is code that came with the file.
        template: Any = Jinja2ChatFormatter(
            template=source,
            eos_token=self._text(self._llama.token_eos()),
            bos_token=self._text(self._llama.token_bos()),
        )
        # Some templates write today's date into the prompt; an answer must not depend on the day.
        template.strftime_now = lambda form: datetime(2025, 1, 1).strftime(form)  # noqa: DTZ001 - a constant
        return template

    def _text(self, token: int) -> str:
        return self._api.llama_vocab_get_text(self._vocabulary, token).decode(errors="replace") if token >= 0 else ""

    def chat(
        self,
        messages: Sequence[Mapping[str, str]],
        schema: Mapping[str, Any] | None,
        max_tokens: int,
        temperature: float,
        seed: int,
        stop: Sequence[str],
        top_p: float | None,
    ) -> Generator[Chunk, None, None]:
        """Decode an answer; see `ChatRequest`. Closing the iterator stops the decoding.

        Raises:
            BadRequestError: the template refuses the messages, or the schema has no grammar.
            ContextOverflowError: prompt and `max_tokens` together exceed the context.
        """
        prompt = self._tokenize(messages)
        if len(prompt) + max_tokens > self._context:
            raise ContextOverflowError(
                f"The prompt has {len(prompt)} tokens and the answer may have {max_tokens}, but the context holds "
                f"{self._context}.",
                hint="Shorten the prompt, lower max_tokens, or load the model with a larger context.",
            )
        grammar = None if schema is None else self._grammar(schema)
        if not self._reuse_prefix:
            self._llama.reset()
            self._api.llama_memory_clear(self._api.llama_get_memory(self._llama.ctx), True)
        self._llama.set_seed(seed % 0xFFFFFFFF)  # 0xFFFFFFFF itself asks llama.cpp for a random seed
        text, stops, count, ended = codecs.getincrementaldecoder("utf-8")("replace"), StopFinder(stop), 0, False
        nucleus = _TOP_P if top_p is None else top_p
        for token in self._llama.generate(prompt, temp=temperature, top_p=nucleus, grammar=grammar):
            ended = bool(self._api.llama_vocab_is_eog(self._vocabulary, token))
            if ended:
                break
            count += 1
            if piece := stops.feed(text.decode(self._piece(token))):
                yield Chunk(text=piece)
            if stops.found or count == max_tokens:
                break
        rest = stops.feed(text.decode(b"", final=True)) + stops.rest()
        finish = "stop" if ended or stops.found else "length"
        yield Chunk(text=rest, finish=finish, prompt_tokens=len(prompt), completion_tokens=count)

    def _tokenize(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        from jinja2 import TemplateError

        try:
            prompt = self._template(messages=[dict(message) for message in messages]).prompt
        except (TemplateError, ValueError, TypeError, KeyError) as error:
            raise BadRequestError(f"The model's chat template refuses the messages: {error}.") from error
        tokens: list[int] = self._llama.tokenize(prompt.encode(errors="replace"), add_bos=False, special=True)
        if not tokens:
            raise BadRequestError("The model's chat template makes an empty prompt of the messages.")
        return tokens

    def _grammar(self, schema: Mapping[str, Any]) -> Any:
        """The schema as a grammar that llama.cpp is known to parse; it does not survive one that it cannot parse."""
        from llama_cpp.llama_grammar import LlamaGrammar

        try:
            grammar = LlamaGrammar.from_json_schema(json.dumps(enforceable(schema)), verbose=False)
        except Exception as error:  # the converter raises whatever a hostile schema trips it over
            raise BadRequestError(f"The schema cannot be turned into a grammar: {error!r:.300}.") from error
        if len(grammar._grammar) > _MAX_GRAMMAR:
            raise BadRequestError(
                f"The schema makes a grammar of {len(grammar._grammar)} characters; bound its repeats."
            )
        sampler = self._api.llama_sampler_init_grammar(self._vocabulary, grammar._grammar.encode(), b"root")
        if not sampler:
            raise BadRequestError("llama.cpp rejects the grammar of the schema.")
        self._api.llama_sampler_free(sampler)
        return grammar

    def _piece(self, token: int) -> bytes:
        """The bytes of a token. The binding's own buffer holds 32 and quietly cuts longer ones."""
        buffer = ctypes.create_string_buffer(_PIECE_BYTES)
        size = self._api.llama_token_to_piece(self._vocabulary, token, buffer, _PIECE_BYTES, 0, False)
        return buffer.raw[: max(size, 0)]


def _log_to_stderr(api: Any, recent: collections.deque[str]) -> Any:
    """Send llama.cpp's warnings and errors to stderr and to `recent`."""
    level = 0

    @api.llama_log_callback  # type: ignore[untyped-decorator] # ctypes
    def callback(said: int, text: bytes, _: object) -> None:
        nonlocal level
        level = level if said == _CONTINUED else said
        if level >= _WARNING and level != _CONTINUED:
            os.write(2, text)
            recent.append(text.decode(errors="replace").strip()[:300])

    api.llama_log_set(callback, ctypes.c_void_p(0))
    return callback
