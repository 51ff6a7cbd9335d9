"""The seam to a language model that runs here: what it is asked, and the pieces of its answer."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from agentlab.errors import ContextOverflowError


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """One chat completion."""

    messages: Sequence[Mapping[str, str]]
    schema: Mapping[str, Any] | None = None  # a JSON schema that the decoder enforces, if it can
    max_tokens: int = 256
    temperature: float = 0.0
    seed: int = 0
    seconds: float = 300.0  # a safety net
    stop: tuple[str, ...] = ()  # texts that end the answer; they are not part of it
    top_p: float | None = None  # share of the probability that is sampled from; None leaves it to the engine
    logprob: bool = False  # whether `Chunk.logprob` is wanted
    clamp: bool = False  # `max_tokens` may be more than there is room for; the answer is then as long as there is room
    adapter: str | None = None  # the folder of one, where the engine takes one per answer; None for the model alone

    def tokens_within(self, context: int, prompt: int) -> int:
        """How many tokens the answer may have beside a prompt; `context` and `prompt` are in tokens, too.

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

    `logprob` is the mean natural log-probability of the answer's tokens under the raw logits, before temperature, top_p
    and schema; None when it was not asked for, or no token was generated.
    """

    text: str = ""
    finish: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    reused_tokens: int | None = None  # of the prompt, those that were known from the call before
    prefill_seconds: float | None = None  # for reading the rest of the prompt
    decode_seconds: float | None = None  # for the answer, from the prompt's end on
    logprob: float | None = None
    note: str | None = None  # what the user should know of how it was computed, such as that it took a slow way


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

    def close(self) -> None: ...


class StopFinder:
    """Finds the texts that end an answer, while it comes in pieces; what may begin one is held back. Pure."""

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
