"""Plain data that crosses the language-model seam."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar

T = TypeVar("T")

# How much can be asked of a model: pick one letter; make one flat edit; write a whole JSON document.
Tier = Literal["pick", "edit", "full"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Usage:
    """What a call consumed. None is unknown, never zero."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None

    def __add__(self, other: "Usage") -> "Usage":
        """Sum of what is known: unknown plus known is known, unknown plus unknown stays unknown."""

        def plus(a: float | None, b: float | None) -> Any:
            return (a or 0) + (b or 0) if (a is not None or b is not None) else None

        return Usage(
            plus(self.input_tokens, other.input_tokens),
            plus(self.output_tokens, other.output_tokens),
            plus(self.cost_usd, other.cost_usd),
        )


@dataclass(frozen=True, slots=True)
class Request:
    """What a provider is asked. `schema` is a JSON schema for the answer."""

    model: str
    messages: tuple[Message, ...]
    schema: Mapping[str, Any] | None = None
    temperature: float = 0.0
    max_tokens: int = 256
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of an answer. The stream is complete only if some delta carried `finish`."""

    text: str = ""
    finish: str | None = None
    usage: Usage | None = None


class ChatModel(Protocol):
    """One provider; `Request.model` names which of its models. Errors are the RemoteError family."""

    def stream(self, request: Request) -> AsyncIterator[Delta]:
        """Answer piece by piece."""
        ...

    async def close(self) -> None:
        """Free connections or processes."""
        ...


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at one model. `error` is the kind of the error, None when it answered."""

    model: str
    error: str | None
    message: str = ""
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True, slots=True)
class Completion(Generic[T]):
    """An answer: `value` is what the schema made of `text` (the text itself without a schema)."""

    value: T
    text: str
    model: str
    usage: Usage
    attempts: tuple[Attempt, ...]
    cached: bool = False  # replayed from the run's events
