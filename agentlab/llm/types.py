"""Plain data that crosses the language-model seam."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar

T = TypeVar("T")

# How much can be asked of a model: pick one letter; make one flat edit; write a whole JSON document.
Tier = Literal["pick", "edit", "full"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool that a model asks for. `arguments` is JSON as the model wrote it: checked by who runs it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation. `tool_calls` are an assistant's; `tool_call_id` says which call a tool answers."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""


@dataclass(frozen=True, slots=True)
class Tool:
    """What a model may call. `parameters` is a JSON schema of an object."""

    name: str
    description: str
    parameters: Mapping[str, Any]


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
class ModelRequest:
    """What a provider is asked."""

    model: str
    messages: tuple[Message, ...]
    schema: Mapping[str, Any] | None = None  # JSON schema of the answer; the provider enforces it if it can
    temperature: float = 0.0
    max_tokens: int = 256
    seed: int = 0
    json_only: bool = False  # the answer has to be some JSON object; ignored beside `schema`
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"  # auto, none, required, or the name of the tool that has to be called
    stop: tuple[str, ...] = ()  # texts that end the answer
    top_p: float | None = None  # share of the probability that is sampled from; None leaves it to the provider

    @property
    def offers_tools(self) -> bool:
        return bool(self.tools) and self.tool_choice != "none"


@dataclass(frozen=True, slots=True)
class ToolPiece:
    """A piece of a tool call: pieces of the same `index` belong together, their `arguments` are joined."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of an answer. The stream is complete only if some delta carried `finish`.

    `reasoning` is what a model thinks aloud before it answers: it counts as begun and is no part of the answer.
    """

    text: str = ""
    finish: str | None = None
    usage: Usage | None = None
    reasoning: str = ""
    tools: tuple[ToolPiece, ...] = ()


class ChatModel(Protocol):
    """One provider; `ModelRequest.model` names which of its models. Errors are the RemoteError family."""

    def stream(self, request: ModelRequest) -> AsyncIterator[Delta]: ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Embeddings:
    """One vector per text, in the order of the texts."""

    vectors: tuple[tuple[float, ...], ...]
    usage: Usage


class EmbeddingModel(Protocol):
    """A provider that turns texts into vectors. Errors as of `ChatModel`."""

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings: ...


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at one model. `error` is the kind of the error, None when it answered.

    `assumed_usd` is what it is taken to have cost when the provider did not say; no part of `usage`.
    """

    model: str
    error: str | None
    message: str = ""
    usage: Usage = field(default_factory=Usage)
    assumed_usd: float | None = None


class WireTimes:
    """When bytes went over the wire, in the loop's seconds: what a benchmark counts from and to. None: not known.

    `sent`: the latest request was handed to the system, to its last byte. `came`: the latest bytes of the reply were
    read. Pieces that were read together have the same.
    """

    __slots__ = ("came", "sent")

    def __init__(self) -> None:
        self.sent: float | None = None
        self.came: float | None = None


WIRE: ContextVar[WireTimes | None] = ContextVar("agentlab.llm.wire", default=None)  # filled in by requests of this task


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds until the answer began (None: it never did), and until it was there."""

    first: float | None
    total: float


@dataclass(frozen=True, slots=True)
class Completion(Generic[T]):
    """An answer: `value` is what the schema made of `text` (the text itself without a schema)."""

    value: T
    text: str
    model: str
    usage: Usage
    attempts: tuple[Attempt, ...]
    cached: bool = False  # replayed from the run's events, or from the response cache
    tool_calls: tuple[ToolCall, ...] = ()
    finish: str = "stop"
    timing: Timing | None = None  # None for an answer that was replayed
