"""One request under the stop-watch.

All times are seconds of one monotonic clock. The first piece is the first that holds text, reasoning or a part of a
tool call, never the empty piece that only names the role; the last piece is the last of that kind. A piece is stamped
with the moment when its bytes were read, where they came over a wire, or else as soon as it is handed over.
"""

from array import array
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from agentlab.bench.failures import cause_of
from agentlab.errors import LLMTruncatedError, RemoteError
from agentlab.llm.types import Delta, Usage, Wire

Clock = Callable[[], float]

_LONGEST_MESSAGE = 200
_UNKNOWN = Usage()


@dataclass(slots=True)
class Reading:
    """What one request did. `ended` None: it was still open when its stage ended.

    Attributes:
        index: its number within the stage; prompt and seed follow from it.
        scheduled: when it was to be sent; without a schedule, when it was sent.
        sent: when it was sent, to its last byte if it went over a wire.
        stamps: when each piece of content arrived.
        output: when the first piece arrived that is no reasoning.
        ended: when the stream ended, or broke.
        error: the kind of the error, of a strategy that of its last attempt; None if it answered.
        text: the answer, kept only where it is counted by a tokenizer.
    """

    index: int
    scheduled: float
    sent: float
    stamps: "array[float]" = field(default_factory=lambda: array("d"))
    output: float | None = None
    ended: float | None = None
    characters: int = 0
    usage: Usage = _UNKNOWN
    error: str | None = None
    message: str = ""
    text: list[str] | None = None

    @property
    def answered(self) -> bool:
        """Whether an answer is there, and whole."""
        return self.ended is not None and self.error is None

    def fail(self, error: RemoteError, now: float) -> None:
        """It ended in this error."""
        self.error = cause_of(error).__name__
        self.message = " ".join(error.message.split())[:_LONGEST_MESSAGE]
        self.ended = now


async def take(reading: Reading, deltas: AsyncIterator[Delta], clock: Clock, wire: Wire) -> None:
    """Fill in the reading from the stream of its request. An error of the router's kinds is part of the reading."""
    finished = False
    stamp = reading.stamps.append
    try:
        async for delta in deltas:
            now = clock() if wire.came is None else wire.came
            if delta.text or delta.tools:
                stamp(now)
                if reading.output is None:
                    reading.output = now
                reading.characters += len(delta.text)
                if reading.text is not None:
                    reading.text.append(delta.text)
            elif delta.reasoning:
                stamp(now)
                reading.characters += len(delta.reasoning)
            if delta.usage is not None:
                reading.usage = delta.usage
            finished = finished or delta.finish is not None
        if not finished:
            raise LLMTruncatedError("The answer ended without a finish reason.")
        if not reading.stamps:
            raise LLMTruncatedError("The answer is empty.")
    except RemoteError as error:
        reading.fail(error, clock())
    else:
        reading.ended = clock()
