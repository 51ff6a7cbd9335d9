"""llama.cpp through the C functions of its binding: one model, one sequence. Lives only in the worker process.

The binding's own class `Llama` reserves a row of logits for every token of a batch, cuts what it reuses of a prompt
where the last bits of logits depend on it, and does not say why a model cannot be loaded.
"""

import collections
import contextlib
import ctypes
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import llama_cpp  # noqa: TID253 - imported by the decoder alone, in its worker process
import numpy as np

from agentlab.errors import BadRequestError, ModelFileError, WorkerDiedError
from agentlab.gguf.engine import EngineConfig

_WARNING, _CONTINUED = 3, 5  # ggml_log_level: debug 1, info 2, warning 3, error 4, continuation of the last one 5
_PIECE_BYTES = 1024
_BUFFER = re.compile(rb"(\S+) model buffer size")
_TOP_K, _MIN_P = 40, 0.05  # llama.cpp's own
_IF_MEMORY = "If it ran out of memory, use a smaller context, batch or model."
_OF_THIS_MODEL = (
    "An adapter fits only its own base model; create one with `agentlab adapters export NAME --format gguf "
    "--out NAME.gguf`."
)
_KV_TYPES = {"f16": 1, "q8_0": llama_cpp.GGML_TYPE_Q8_0, "q4_0": llama_cpp.GGML_TYPE_Q4_0}
_api: Any = llama_cpp  # its functions are typed for pointers that it does not export


class Native:
    """A loaded model and its context, which holds the tokens of one sequence. Not thread-safe."""

    def __init__(self, config: EngineConfig, outputs: int = 1) -> None:
        """Load the model, with room for the logits of so many tokens of a batch.

        Raises:
            ModelFileError: it cannot be loaded, or there is not enough memory for its context.
        """
        self._log: collections.deque[str] = collections.deque(maxlen=5)
        self.buffers: set[str] = set()  # names of those that hold weights, such as CPU_Mapped, CPU_REPACK and AMX
        self._log_callback = _listen(self._log, self.buffers)  # kept: the library holds a bare pointer to it
        _api.llama_backend_init()
        self.batch = min(config.batch, config.context)
        try:
            self._model = self._or_fail(
                _api.llama_model_load_from_file(os.fsencode(config.path), model_params(config)), f"load {config.path}"
            )
            adapter = None if config.adapter is None else self._adapter(config.adapter)  # goes before the context
            self._context = self._or_fail(
                _api.llama_init_from_model(self._model, context_params(config, self.batch, outputs)),
                f"create a context of {config.context} tokens for {config.path}",
            )
        except MemoryError as error:
            raise ModelFileError(f"There is not enough memory to load {config.path}.", hint=_IF_MEMORY) from error
        if adapter is not None:
            _api.llama_set_adapters_lora(self._context, adapter, 1, (ctypes.c_float * 1)(1.0))
        self._memory = _api.llama_get_memory(self._context)
        self._vocabulary = _api.llama_model_get_vocab(self._model)
        self._size = _api.llama_vocab_n_tokens(self._vocabulary)
        self._token = (ctypes.c_int32 * 1)()
        self._single = _api.llama_batch_get_one(self._token, 1)
        self._pieces: dict[int, bytes | None] = {}  # as tokens come; the vocabulary bounds it

    def _adapter(self, path: Path) -> Any:
        adapter = _api.llama_adapter_lora_init(self._model, os.fsencode(path))
        return (_api.llama_adapter_lora_p_ctypes * 1)(self._or_fail(adapter, f"use the adapter {path}", _OF_THIS_MODEL))

    def _or_fail(self, handle: Any, action: str, hint: str = _IF_MEMORY) -> Any:
        if not handle:
            reason = " ".join(self._log) or "it gave no reason."
            raise ModelFileError(f"llama.cpp cannot {action}: {reason}", hint=hint)
        return handle

    def template(self) -> str | None:
        source = _api.llama_model_chat_template(self._model, None)
        return None if source is None else str(source.decode(errors="replace"))

    def ends(self) -> tuple[str, str]:
        """The texts of the tokens that begin and end a text, empty where there is none."""
        tokens = _api.llama_vocab_bos(self._vocabulary), _api.llama_vocab_eos(self._vocabulary)
        begin, end = (
            _api.llama_vocab_get_text(self._vocabulary, token).decode(errors="replace") if token >= 0 else ""
            for token in tokens
        )
        return begin, end

    def tokenize(self, text: str) -> list[int]:
        """The tokens of a rendered prompt; special tokens are read from the text and none are added."""
        data = text.encode(errors="replace")
        room = len(data) + 8
        tokens = (ctypes.c_int32 * room)()
        count = _api.llama_tokenize(self._vocabulary, data, len(data), tokens, room, False, True)
        if count < 0:
            raise BadRequestError("The model's vocabulary has no tokens for the prompt.")
        return tokens[:count]

    def piece(self, token: int) -> bytes | None:
        """The bytes of a token, none for a special one; None for one that ends an answer."""
        if token not in self._pieces:
            ends = _api.llama_vocab_is_eog(self._vocabulary, token)
            self._pieces[token] = None if ends else self._bytes(token)
        return self._pieces[token]

    def _bytes(self, token: int) -> bytes:
        buffer = ctypes.create_string_buffer(_PIECE_BYTES)
        size = _api.llama_token_to_piece(self._vocabulary, token, buffer, _PIECE_BYTES, 0, False)
        return buffer.raw[: max(size, 0)]

    def cut(self, keep: int) -> int:
        """Forget all tokens from position `keep` on; how many are left: `keep`, or 0.

        A recurrent model cannot go back, and one with a sliding window may have forgotten what it would need.
        """
        is_whole = keep > 0 and _api.llama_memory_seq_pos_min(self._memory, 0) == 0
        if is_whole and _api.llama_memory_seq_rm(self._memory, 0, keep, -1):
            return keep
        _api.llama_memory_clear(self._memory, False)
        return 0

    def evaluate(self, tokens: Sequence[int]) -> None:
        """Append at most `batch` tokens to the sequence and compute the logits of the last one.

        Raises:
            WorkerDiedError: it cannot be done, most likely for want of memory; this object is of no more use.
        """
        if len(tokens) == 1:
            self._token[0], batch = tokens[0], self._single
        else:
            array = (ctypes.c_int32 * len(tokens))(*tokens)
            batch = _api.llama_batch_get_one(array, len(tokens))
        status = _api.llama_decode(self._context, batch)
        if status:
            raise WorkerDiedError(f"llama.cpp could not continue (status {status}): {' '.join(self._log)}")

    def window(self, tokens: Sequence[int]) -> Any:
        """Logits behind each of `tokens`, a text of its own: float32 (tokens, vocabulary). Raises as `evaluate`."""
        self.cut(0)
        batch = _api.llama_batch_init(len(tokens), 0, 1)
        try:
            batch.n_tokens = len(tokens)
            for position, token in enumerate(tokens):
                batch.token[position], batch.pos[position], batch.logits[position] = token, position, 1
                batch.n_seq_id[position], batch.seq_id[position][0] = 1, 0
            if status := _api.llama_decode(self._context, batch):
                raise WorkerDiedError(f"llama.cpp could not evaluate a window (status {status}): {' '.join(self._log)}")
        finally:
            _api.llama_batch_free(batch)
        rows = _api.llama_get_logits(self._context)
        return np.ctypeslib.as_array(rows, shape=(len(tokens), self._size)).copy()

    @property
    def vocabulary(self) -> int:
        return int(self._size)

    def wait(self) -> None:
        """Return when the logits are there: a GPU computes while we go on."""
        _api.llama_synchronize(self._context)

    def free(self) -> None:
        _api.llama_free(self._context)
        _api.llama_model_free(self._model)

    def logits(self) -> Any:
        """Of the last token evaluated: float32 of shape (vocabulary,), valid until the next one is."""
        return np.ctypeslib.as_array(_api.llama_get_logits_ith(self._context, -1), shape=(self._size,))

    def logprob(self, token: int) -> float:
        """Natural logarithm of the probability that the raw logits give a token."""
        row = self.logits()
        top = row.max()
        return float(row[token] - top) - math.log(float(np.exp(row - top).sum(dtype=np.float64)))

    @contextlib.contextmanager
    def sampling(self, grammar: str | None, temperature: float, top_p: float, seed: int) -> Iterator[Callable[[], int]]:
        """A function that draws the next token, as often as one was evaluated.

        Raises:
            BadRequestError: llama.cpp does not parse the grammar.
        """
        chain, bound = _api.llama_sampler_chain_init(_api.llama_sampler_chain_default_params()), None
        try:
            if grammar is not None:
                bound = _api.llama_sampler_init_grammar(self._vocabulary, grammar.encode(), b"root")
                if not bound:
                    raise BadRequestError("llama.cpp rejects the grammar of the schema.")
                _api.llama_sampler_chain_add(chain, bound)
            for sampler in _samplers(temperature, top_p, seed):
                _api.llama_sampler_chain_add(chain, sampler)
            yield lambda: self._draw(chain, bound if temperature == 0 else None)
        finally:
            _api.llama_sampler_free(chain)

    def _draw(self, chain: Any, bound: Any) -> int:
        """The next token. `bound` is the chain's grammar if it takes the likeliest token that this allows.

        That one is most often the likeliest of all, and asking the grammar about one token instead of every one in the
        vocabulary saves a quarter of the time that a token takes (measured with SmolLM2: 14.9 against 20.2 ms).
        """
        if bound is not None:
            row = self.logits()
            likeliest = _api.llama_token_data(int(row.argmax()), float(row.max()), 0.0)
            alone = _api.llama_token_data_array(ctypes.pointer(likeliest), 1, -1, False)
            _api.llama_sampler_apply(bound, ctypes.byref(alone))
            if likeliest.logit > -math.inf:
                _api.llama_sampler_accept(chain, likeliest.id)
                return int(likeliest.id)
        return int(_api.llama_sampler_sample(chain, self._context, -1))


def _samplers(temperature: float, top_p: float, seed: int) -> list[Any]:
    if temperature == 0:
        return [_api.llama_sampler_init_greedy()]
    return [
        _api.llama_sampler_init_top_k(_TOP_K),
        _api.llama_sampler_init_top_p(top_p, 1),
        _api.llama_sampler_init_min_p(_MIN_P, 1),
        _api.llama_sampler_init_temp(temperature),
        _api.llama_sampler_init_dist(seed % 0xFFFFFFFF),  # 0xFFFFFFFF itself asks for a random seed
    ]


def model_params(config: EngineConfig) -> Any:
    """How llama.cpp is told to load a model."""
    params = _api.llama_model_default_params()
    params.n_gpu_layers = 0x7FFFFFFF if config.gpu_layers == -1 else config.gpu_layers
    params.use_extra_bufts = config.repack
    return params


def context_params(config: EngineConfig, batch: int, outputs: int = 1) -> Any:
    """How llama.cpp is told to make room for a sequence, and for so many rows of logits."""
    params = _api.llama_context_default_params()
    params.n_ctx = config.context
    params.n_batch = params.n_ubatch = batch
    params.n_outputs_max = outputs  # where only a batch's last token is asked for its logits, no room for the others
    params.n_threads = params.n_threads_batch = config.threads
    params.flash_attn_type = _api.LLAMA_FLASH_ATTN_TYPE_ENABLED if config.flash else _api.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.type_k = params.type_v = _KV_TYPES[config.kv_type]
    return params


def _listen(recent: collections.deque[str], buffers: set[str]) -> Any:
    """Send llama.cpp's warnings and errors to stderr and to `recent`, and what it calls its buffers to `buffers`."""
    level = 0

    @_api.llama_log_callback  # type: ignore[untyped-decorator] # ctypes
    def callback(log_level: int, text: bytes, _: object) -> None:
        nonlocal level
        level = level if log_level == _CONTINUED else log_level
        if match := _BUFFER.search(text):
            buffers.add(match[1].decode(errors="replace"))
        if level >= _WARNING and level != _CONTINUED:
            os.write(2, text)
            recent.append(text.decode(errors="replace").strip()[:300])

    _api.llama_log_set(callback, ctypes.c_void_p(0))
    return callback
