"""The seam to a language model that runs here: what it is asked, and the pieces of its answer."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from agentlab.errors import ContextOverflowError


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """One chat completion.

    Attributes:
        schema: a JSON schema that the decoder enforces, if it can.
        seconds: a safety net.
        stop: texts that end the answer; they are not part of it.
        top_p: share of the probability that is sampled from; None leaves it to the engine.
        logprob: whether `Chunk.logprob` is wanted.
        clamp: `max_tokens` may be more than the prompt leaves room for; the answer is as long as there is room.
        adapter: the folder of an adapter, where the engine takes one per answer; None for the model alone.
    """

    messages: Sequence[Mapping[str, str]]
    schema: Mapping[str, Any] | None = None
    max_tokens: int = 256
    temperature: float = 0.0
    seed: int = 0
    seconds: float = 300.0
    stop: tuple[str, ...] = ()
    top_p: float | None = None
    logprob: bool = False
    clamp: bool = False
    adapter: str | None = None

    def tokens_within(self, context: int, prompt: int) -> int:
        """How many tokens the answer may have beside a prompt of `prompt` tokens in a context of `context`.

        Raises:
            ContextOverflowError: there is no room for it.
        """
        room = context - prompt
        if room < (1 if self.clamp else self.max_tokens):
            raise ContextOverflowError(
                f"The prompt has {prompt} tokens and the answer may have {self.max_tokens}, but the context holds "
                f"{context}.",
                hint="Shorten the prompt, lower max_tokens, or load the model with a larger context.",
            )
        return min(self.max_tokens, room)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of an answer. The last one has `finish` ("stop" or "length"), both token counts, and what else is known.

    Attributes:
        reused_tokens: of the prompt, those that were known from the call before.
        prefill_seconds: for reading the rest of the prompt.
        decode_seconds: for the answer, from the prompt's end on.
        logprob: mean natural log-probability of the answer's tokens under the raw logits, before temperature, top_p
            and schema; None when it was not asked for, or no token was generated.
        note: what the user should know of how it was computed, such as that it took a slow way.
    """

    text: str = ""
    finish: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    reused_tokens: int | None = None
    prefill_seconds: float | None = None
    decode_seconds: float | None = None
    logprob: float | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What loading took: time, and memory right after it (0 bytes where the system does not say: not Linux)."""

    seconds: float
    resident_bytes: int
    private_bytes: int


class ChatEngine(Protocol):
    """A loaded model. It may be called from several threads; what it cannot do at a time waits."""

    def chat(self, request: EngineRequest, *, cancelled: Callable[[], bool] = lambda: False) -> Iterator[Chunk]:
        """Stream an answer.

        Raises:
            MissingFileError: no such file.
            ModelFileError: the file cannot be loaded, or holds no chat template.
            MissingExtraError: the library that runs it is absent or broken.
            BadRequestError: the messages or the schema cannot be used with this model.
            WorkerDiedError: the process died; the next call starts a new one.
            LLMTimeoutError: `request.seconds` ran out.
            LLMCancelledError: `cancelled` returned True.
            ContextOverflowError: prompt and answer do not fit the context.
        """
        ...

    def close(self) -> None:
        """Stop the process and free the memory. Safe to call twice."""
        ...


class StopFinder:
    """Finds the texts that end an answer, while it comes in pieces. Pure.

    What may be the beginning of a stop text is held back until it is clear.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.found = False

    def feed(self, piece: str) -> str:
        """The text that is certain by now. Once a stop text was found (`found`), nothing more comes."""
        if not self._stops or self.found:
            return "" if self.found else piece
        self._held += piece
        # which one ends first, as if the text came one character at a time: then its pieces do not matter
        ends = [(position + len(stop), position) for stop in self._stops if (position := self._held.find(stop)) >= 0]
        if ends:
            self.found = True
            keep = min(ends)[1]
        else:
            keep = len(self._held) - max(map(self._begun_length, self._stops))
        certain_text, self._held = self._held[:keep], self._held[keep:]
        return certain_text

    def remaining_text(self) -> str:
        return "" if self.found else self._held

    def _begun_length(self, stop: str) -> int:
        """How many characters at the end of what is held begin this stop text."""
        longest = min(len(stop) - 1, len(self._held))
        return next((size for size in range(longest, 0, -1) if self._held.endswith(stop[:size])), 0)
