"""The local models that are loaded: one process each, within the memory that was planned."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from agentlab.errors import GateError
from agentlab.gguf.engine import EngineConfig
from agentlab.pipeline.settings import Engine
from agentlab.pipeline.sizing import LocalModel, Sizes
from agentlab.workers.chat import ChatEngine, Loaded
from agentlab.workers.memory import Memory


class LocalEngine(ChatEngine, Protocol):
    """A `ChatEngine` that can be loaded ahead of its first question."""

    def load(self, *, cancelled: Callable[[], bool] = ...) -> Loaded:
        """Load the model; see `gguf.process.WorkerEngine.load`."""
        ...

    def measured(self) -> Memory | None:
        """What its process takes and has taken; None where that cannot be seen."""
        ...


@dataclass(slots=True)
class _Resident:
    engine: LocalEngine
    settings: Engine
    bytes: int


class Residents:
    """Loads and unloads. Used by one thread."""

    def __init__(
        self,
        models: Mapping[str, LocalModel],
        *,
        sizes: Sizes,
        threads: int,
        make: Callable[[EngineConfig], LocalEngine],
        told: Callable[..., object],
    ) -> None:
        """`told` is given the events `model.loaded` and `model.evicted`."""
        self._models, self._sizes, self.budget, self._threads = models, sizes, sizes.budget, threads
        self._make, self._told = make, told
        self._here: dict[str, _Resident] = {}  # the least recently used first

    @property
    def names(self) -> tuple[str, ...]:
        """The models that are loaded."""
        return tuple(self._here)

    def engine(
        self, name: str, settings: Engine, *, upcoming: Sequence[str], cancelled: Callable[[], bool]
    ) -> LocalEngine:
        """The model, loaded with these settings. What has to go for it is what is needed last among `upcoming`.

        Raises:
            GateError: it takes more than all models together may.
            AgentlabError: it cannot be loaded; see `ChatEngine.chat`.
        """
        here = self._here.get(name)
        if here is not None and here.settings == settings:
            self._here[name] = self._here.pop(name)
            return here.engine
        if here is not None:
            self.evict(name)
        needed = self._sizes(name, settings)
        if needed > self.budget.ram:
            raise GateError(
                f"Model {name} takes {needed >> 20} MiB with a context of {settings.context}, and all models together "
                f"may take {self.budget.ram >> 20} MiB.",
                hint="Raise resources.ram_gib, or lower n_ctx.",
            )
        self._make_room(needed, upcoming)
        model = self._models[name]
        engine = self._make(settings.config(model.path, threads=self._threads, memory_bytes=self.budget.ram))
        try:
            loaded = engine.load(cancelled=cancelled)
        except BaseException:
            engine.close()
            raise
        self._here[name] = _Resident(engine, settings, needed)
        self._told(
            "model.loaded",
            name,
            seconds=round(loaded.seconds, 4),
            resident_bytes=loaded.resident_bytes,
            estimate_bytes=needed,
        )
        return engine

    def _make_room(self, needed: int, upcoming: Sequence[str]) -> None:
        """Unload until `needed` bytes fit, the model that is used furthest in the future first (Belady 1966)."""
        order = list(upcoming)
        while self._here and needed + sum(each.bytes for each in self._here.values()) > self.budget.ram:
            self.evict(max(self._here, key=lambda name: order.index(name) if name in order else len(order)))

    def evict(self, name: str) -> None:
        """Unload a model; nothing happens if it is not loaded."""
        here = self._here.pop(name, None)
        if here is not None:
            self._unload(name, here)

    def only(self, name: str) -> None:
        """Unload every other model."""
        for other in [other for other in self._here if other != name]:
            self.evict(other)

    def _unload(self, name: str, here: _Resident) -> None:
        taken, began = here.engine.measured(), time.monotonic()
        here.engine.close()
        seconds = round(time.monotonic() - began, 4)
        self._told("model.evicted", name, seconds=seconds, peak_bytes=None if taken is None else taken.peak)
        if taken is not None:
            self._sizes.learn(name, here.settings, taken.peak)

    def close(self) -> None:
        """Unload all."""
        for name in self.names:
            self.evict(name)
