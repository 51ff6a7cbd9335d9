"""What arrived, so that a test can say: the fallback got exactly one request."""

import hashlib
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any

MOST_MODELS, MOST_ARRIVALS = 1024, 1024
_OTHERS = "(others)"


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request. `at` is in seconds of the monotonic clock, which all processes of a machine share."""

    at: float
    sha256: str
    key: bool


@dataclass(slots=True)
class ModelSeen:
    """What one model was asked: all are counted, the newest are kept.

    Attributes:
        finished: replies that were sent to their end, errors included.
        left: when clients left before that end.
    """

    count: int = 0
    finished: int = 0
    arrivals: deque[Arrival] = field(default_factory=lambda: deque(maxlen=MOST_ARRIVALS))
    left: deque[float] = field(default_factory=lambda: deque(maxlen=MOST_ARRIVALS))


class Seen:
    """By model name; the names beyond the first 1024 share one entry."""

    def __init__(self) -> None:
        self._models: dict[str, ModelSeen] = {}
        self.open = 0  # connections now
        self.connections = 0  # connections ever

    def of(self, model: str) -> ModelSeen:
        """What a model was asked."""
        if model not in self._models and len(self._models) >= MOST_MODELS:
            model = _OTHERS
        return self._models.setdefault(model, ModelSeen())

    def arrived(self, model: str, body: bytes, *, key: bool, at: float) -> int:
        """Note a request; how many of this model came before it."""
        seen = self.of(model)
        seen.arrivals.append(Arrival(at, hashlib.sha256(body).hexdigest(), key))
        seen.count += 1
        return seen.count - 1

    def reset(self) -> None:
        """Forget all requests: every script starts again. Connections stay counted while they are open."""
        self._models.clear()
        self.connections = self.open

    def as_dict(self) -> dict[str, Any]:
        """As plain data: `models` by name, and `connections`."""
        models = {
            name: {
                "count": seen.count,
                "finished": seen.finished,
                "left": list(seen.left),
                "arrivals": [asdict(arrival) for arrival in list(seen.arrivals)],
            }
            for name, seen in list(self._models.items())
        }
        return {"models": models, "connections": {"open": self.open, "total": self.connections}}
