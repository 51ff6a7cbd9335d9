"""The seam to a language model that runs here: what it is asked, and the pieces of its answer."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One chat completion.

    Attributes:
        schema: a JSON schema that the decoder enforces, if it can.
        seconds: a safety net.
        stop: texts that end the answer; they are not part of it.
        top_p: share of the probability that is sampled from; None leaves it to the engine.
    """

    messages: Sequence[Mapping[str, str]]
    schema: Mapping[str, Any] | None = None
    max_tokens: int = 256
    temperature: float = 0.0
    seed: int = 0
    seconds: float = 300.0
    stop: tuple[str, ...] = ()
    top_p: float | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of an answer. The last one has `finish` ("stop" or "length") and both token counts."""

    text: str = ""
    finish: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class ChatEngine(Protocol):
    """A loaded model. One call at a time; a second caller waits."""

    def chat(self, request: ChatRequest, *, cancelled: Callable[[], bool] = lambda: False) -> Iterator[Chunk]:
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
