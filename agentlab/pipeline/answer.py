"""A question put to one model, what came of it, and the key under which the answer is found again. Pure."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

VERSION = 2  # of the key: raised when the same fields come to mean another answer


@dataclass(frozen=True, slots=True)
class PipelineAnswer:
    """What a call came to. Tokens, seconds and costs that nobody counted are None."""

    text: str
    finish: str  # why it ended: `stop` or `length`
    model: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    reused_tokens: int | None = None  # of the prompt, those that needed no reading: the model had just read them
    prefill_seconds: float | None = None
    decode_seconds: float | None = None
    logprob: float | None = None  # mean log-probability per token, natural logarithm
    cost_usd: float | None = None

    def figures(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "text"}

    @classmethod
    def of(cls, figures: Mapping[str, Any], text: str) -> "PipelineAnswer":
        """Inverse of `figures`; a TypeError if they are not figures of an answer."""
        return cls(text=text, **figures)


@dataclass(frozen=True, slots=True)
class PipelineQuestion:
    """Everything that decides an answer's text."""

    messages: tuple[tuple[str, str], ...]  # pairs of role and content
    model: str
    fingerprint: str  # of its file, or `router:PROVIDER:ID`
    numerics: Mapping[str, Any]  # what else decides its arithmetic: flash, kv_type, batch, gpu_layers, engine's build
    temperature: float
    top_p: float | None
    max_tokens: int
    seed: int | None
    stop: tuple[str, ...] = ()
    schema: Mapping[str, Any] | None = None
    logprob: bool = False  # whether it is wanted; an answer without it does not do then

    def summary(self) -> dict[str, Any]:
        """The question as plain JSON of bounded size: long texts are their SHA-256 and length in characters.

        A schema keeps the order of its keys: the grammar made of it asks for the properties in that order.
        """
        return {
            "messages": [{"role": role, "sha": sha_of(text), "chars": len(text)} for role, text in self.messages],
            "model": self.model,
            "fingerprint": self.fingerprint,
            "numerics": dict(self.numerics),
            "temperature": float(self.temperature) + 0.0,  # 0, 0.0 and -0.0 are one temperature
            "top_p": None if self.top_p is None else float(self.top_p),
            "max_tokens": self.max_tokens,
            "seed": self.seed,
            "stop": list(self.stop),
            "schema": None if self.schema is None else sha_of(_json(self.schema, sort_keys=False)),
            "logprob": self.logprob,
        }


def key_of(question: PipelineQuestion) -> str:
    """SHA-256 (64 hex digits) of the question; equal for equal questions only.

    Raises:
        ValueError: a number is not finite.
    """
    # the file counts, not its name
    decides = {name: value for name, value in question.summary().items() if name != "model"}
    return sha_of(canonical({"version": VERSION, **decides}))


def canonical(value: Any) -> str:
    """The one JSON text of plain data: keys sorted, no spaces. NaN is refused: it is not JSON."""
    return _json(value, sort_keys=True)


def _json(value: Any, *, sort_keys: bool) -> str:
    return json.dumps(value, sort_keys=sort_keys, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha_of(text: str) -> str:
    """SHA-256 of a text as `encode_text`, 64 hex digits."""
    return hashlib.sha256(encode_text(text)).hexdigest()


def encode_text(text: str) -> bytes:
    """UTF-8; half a character, which a model's token may leave behind, keeps its place (`surrogatepass`)."""
    return text.encode("utf-8", "surrogatepass")


def decode_text(content: bytes) -> str:
    """Inverse of `encode_text`; a ValueError if it is not such bytes."""
    return content.decode("utf-8", "surrogatepass")
