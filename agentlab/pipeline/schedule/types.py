"""What a scheduler is asked, and what it answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from agentlab.errors import GateError


@dataclass(frozen=True, slots=True)
class Job:
    """Work for one model. A need that is not among the jobs is done already; without a model it takes no room."""

    id: str
    model: str | None
    needs: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Room:
    """What models take (bytes) and what loading them takes (seconds), together at most `budget` bytes.

    `resident` are models that are loaded already, the one unused for longest first; they may be evicted.
    """

    sizes: Mapping[str, int]
    load_seconds: Mapping[str, float]
    budget: int
    resident: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Load:
    """Load a model that is not resident."""

    model: str


@dataclass(frozen=True, slots=True)
class Evict:
    """Give back the room of a resident model."""

    model: str


@dataclass(frozen=True, slots=True)
class RunJob:
    """Do a job: what it needs is done, and its model is resident."""

    job: str


Step = Load | Evict | RunJob


@dataclass(frozen=True, slots=True)
class Schedule:
    """Steps in order. `exact`: no other order and no other evictions take fewer seconds of loading."""

    steps: tuple[Step, ...]
    method: Literal["exact", "greedy", "lru"]
    room: Room

    @property
    def loads(self) -> int:
        return sum(isinstance(step, Load) for step in self.steps)

    @property
    def seconds(self) -> float:
        return sum(self.room.load_seconds[step.model] for step in self.steps if isinstance(step, Load))

    @property
    def peak(self) -> int:
        return max(self.resident_bytes(), default=0)

    def resident_bytes(self) -> tuple[int, ...]:
        initial_bytes = sum(self.room.sizes[model] for model in self.room.resident)
        return tuple(accumulate((self._change(step) for step in self.steps), initial=initial_bytes))[1:]

    def _change(self, step: Step) -> int:
        match step:
            case Load(model):
                return self.room.sizes[model]
            case Evict(model):
                return -self.room.sizes[model]
            case RunJob():
                return 0


class NoRoomError(GateError):
    """A model does not fit the budget even alone."""

    def __init__(self, job: str, model: str, size: int, budget: int) -> None:
        short = _mib(size - budget)
        super().__init__(
            f"Model {model} needs {_mib(size)}, but the limit for all models together is {_mib(budget)}: "
            f"{job} needs another {short} to run.",
            hint="Raise resources.ram_gib, lower n_ctx, use kv_type q8_0 or choose a smaller file.",
        )
        self.job, self.model, self.size, self.budget = job, model, size, budget


def _mib(size: int) -> str:
    return f"{-(-size // 2**20):,} MiB"
