"""A GGUF model that answers: prompt, grammar and token loop. Lives only in the worker process, on one thread."""

import codecs
import math
import time
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from agentlab.errors import BadRequestError, MissingExtraError, ModelFileError
from agentlab.gguf.engine import EngineConfig
from agentlab.gguf.schema import grammar_of
from agentlab.workers import memory
from agentlab.workers.chat import Chunk, EngineRequest, StopFinder
from agentlab.workers.templates import TemplateRefusesError, prepare, render

_TOP_P = 0.95  # llama.cpp's own
_MAX_GRAMMAR = 1 << 18  # characters; parsing takes time that grows faster than the text
_REINSTALL = (
    "Run `agentlab doctor` to check the build, or `pip install --force-reinstall llama-cpp-python` to rebuild it."
)


class GgufDecoder:
    """Owns the loaded model. Not thread-safe."""

    def __init__(self, config: EngineConfig) -> None:
        """Load the model.

        Raises:
            MissingExtraError: llama-cpp-python cannot be imported.
            ModelFileError: the file cannot be loaded, or has no chat template.
        """
        try:
            from agentlab.gguf.native import Native
        except (ImportError, OSError, RuntimeError) as error:
            raise MissingExtraError(f"llama-cpp-python cannot be loaded: {error}.", hint=_REINSTALL) from error
        prepare()
        memory.bound_memory(config.memory_bytes)
        self._native = Native(config)
        self._capacity = config.context
        self._read: list[int] = []  # the tokens of the last prompt that are in the model's memory, from position 0 on
        self._template = self._native.template() or ""
        if not self._template:
            raise ModelFileError(
                f"{config.path} has no chat template, so it cannot chat.",
                hint="Use an instruct model, for example `agentlab models pull smollm2-135m`.",
            )
        self._tokens = dict(zip(("bos_token", "eos_token"), self._native.ends(), strict=True))

    def chat(self, request: EngineRequest) -> Generator[Chunk, None, None]:
        """Decode an answer. Closing the iterator stops the decoding.

        Raises:
            BadRequestError: the template refuses the messages, or the schema has no grammar.
            ContextOverflowError: prompt and answer do not fit the context.
            WorkerDiedError: llama.cpp cannot go on; the worker has to end.
        """
        prompt = self._tokenize(request.messages)
        max_tokens = request.tokens_within(self._capacity, len(prompt))
        grammar = None if request.schema is None else _grammar(request.schema)
        top_p = _TOP_P if request.top_p is None else request.top_p
        with self._native.sampling(grammar, request.temperature, top_p, request.seed) as draw:
            began = time.perf_counter()
            reused = yield from self._evaluate(prompt)
            ready = time.perf_counter()
            text, stops = codecs.getincrementaldecoder("utf-8")("replace"), StopFinder(request.stop)
            count, logprob = 0, 0.0
            while (data := self._native.piece(token := draw())) is not None:
                count += 1
                if request.logprob:
                    logprob += self._native.logprob(token)
                if piece := stops.feed(text.decode(data)):
                    yield Chunk(text=piece)
                if stops.found or count == max_tokens:
                    break
                self._native.evaluate([token])
        yield Chunk(
            text=stops.feed(text.decode(b"", final=True)) + stops.remaining_text(),
            finish="stop" if data is None or stops.found else "length",
            prompt_tokens=len(prompt),
            completion_tokens=count,
            reused_tokens=reused,
            prefill_seconds=ready - began,
            decode_seconds=time.perf_counter() - ready,
            logprob=logprob / count if request.logprob and count and math.isfinite(logprob) else None,
        )

    def _evaluate(self, prompt: Sequence[int]) -> Generator[Chunk, None, int]:
        """Read a prompt, as far as the last one did not begin with the same batches; return how many tokens it did.

        Between batches comes an empty piece, so that reading can be stopped there.
        """
        batch = self._native.batch
        reused = self._native.cut(reusable(self._read, prompt, batch))
        del self._read[reused:]
        for start in range(reused, len(prompt), batch):
            if start > reused:
                yield Chunk()
            tokens = prompt[start : start + batch]
            self._native.evaluate(tokens)
            self._read += tokens
        self._native.wait()
        return reused

    def _tokenize(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        try:
            prompt = render(self._template, messages, self._tokens)
        except TemplateRefusesError as error:
            raise BadRequestError(f"The model's chat template rejects the messages: {error}.") from error
        tokens = self._native.tokenize(prompt)
        if not tokens:
            raise BadRequestError("The model's chat template turns the messages into an empty prompt.")
        return tokens


def _grammar(schema: Mapping[str, Any]) -> str:
    grammar = grammar_of(schema)
    if len(grammar) > _MAX_GRAMMAR:
        raise BadRequestError(
            f"The schema's grammar has {len(grammar)} characters, which is too long; limit the schema's repetitions."
        )
    return grammar


def reusable(cached: Sequence[int], prompt: Sequence[int], batch: int) -> int:
    """Tokens at the beginning of `prompt` whose place in the attention cache is the one a fresh start would make.

    A batch's rounding depends on which tokens it holds, so only whole batches are taken over: then every later batch is
    cut as in a fresh start, and no bit of any logit differs. The last token is never among them, because its logits are
    wanted. `cached`: tokens that were evaluated in batches of `batch` from position 0 on.
    """
    shared, limit = 0, min(len(cached), len(prompt) - 1)
    while (end := shared + batch) <= limit and cached[shared:end] == prompt[shared:end]:
        shared = end
    return shared
