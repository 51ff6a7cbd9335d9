"""How much memory each local model is planned with; and those that are loaded, one process each, within it."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from agentlab import machine
from agentlab.errors import GateError
from agentlab.gguf.dry_run import dry_run
from agentlab.gguf.engine import EngineConfig
from agentlab.gguf.fingerprint import engine_build
from agentlab.gguf.memory import MemoryEstimate, MemoryShape, estimate
from agentlab.gguf.metadata import GgufMetadata
from agentlab.gguf.records import LoadHistory
from agentlab.gguf.trusted_settings import Proofs
from agentlab.pipeline.config import Resources
from agentlab.pipeline.registry import Availability
from agentlab.pipeline.settings import Engine
from agentlab.workers.chat_process import ChatProcess

Tried = Callable[[EngineConfig], EngineConfig]
_GIB = 1 << 30
_SHARE = 0.8  # of the machine's memory, for models
_START_SECONDS, _BYTES_PER_SECOND = 0.4, 1.5e9  # a worker's start, and reading a file that the system has cached


@dataclass(frozen=True, slots=True)
class PipelineLocalModel:
    """A usable GGUF file."""

    name: str
    path: Path
    metadata: GgufMetadata
    fingerprint: str
    engine: Engine  # how this run's answers are computed with it, as far as their keys go
    usable: Engine  # the same without what is not sound on this machine; see `settle`
    why: str = ""  # what is against the settings that the config and our defaults wish for


def settle(
    model: Availability, wished: EngineConfig, proofs: Proofs, recorded: Mapping[str, bool], settle_config: Tried
) -> PipelineLocalModel:
    """A model that is there, with the engine settings that can be trusted here, of those `wished` for.

    `recorded`: `flash` and `repack` of the run that is gone on with or taken over, and its wish for flash attention:
    where that is ours, answers go by these. Where they are not sound here, plainer ones are used, and every answer says
    so. `settle_config`: `proofs.settle` or `proofs.known_settings`.
    """
    assert model.metadata is not None
    config = settle_config(wished)
    verdicts = proofs.verdicts(wished) if config != wished else {}
    engine = Engine(config.context, config.batch, config.gpu_layers, config.flash, config.kv_type, config.repack)
    if recorded and (recorded.get("wished") is True) == wished.flash:
        engine = replace(engine, flash=recorded.get("flash") is True, repack=recorded.get("repack") is True)
    usable = replace(engine, flash=engine.flash and config.flash, repack=engine.repack and config.repack)
    why = "; ".join(f"{setting}: {reason}" for setting, reason in verdicts.items() if reason)
    return PipelineLocalModel(
        model.name, wished.path, model.metadata, proofs.fingerprint(wished.path), engine, usable, why
    )


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """Bytes that models may take together. `vram` 0: there is no GPU memory."""

    ram: int
    vram: int


def budget_of(resources: Resources) -> MemoryBudget:
    """What the config allows, or the larger part of what the machine has."""
    ram = resources.ram_gib * _GIB if resources.ram_gib else machine.memory().total * _SHARE
    vram = resources.vram_gib * _GIB if resources.vram_gib else machine.gpu_memory() * _SHARE
    return MemoryBudget(int(ram), int(vram))


class Sizes:
    """Bytes of main memory that a model is planned with, the safety factor included.

    The engine itself is asked once for every file and shape, in a process of its own (a third of a second); where it
    cannot say, a formula does. What earlier loads were measured to take counts where it is more.

    What needs GPU memory counts by the larger of its shares of the two budgets: a plan that keeps within one then keeps
    within both, at the price of an unloading too many when some models use the GPU and others do not.
    """

    def __init__(
        self, models: Mapping[str, PipelineLocalModel], resources: Resources, budget: MemoryBudget, folder: Path
    ) -> None:
        """`folder` keeps what was found out, for all runs of the workspace."""
        self._models, self._resources, self.budget = models, resources, budget
        self._asked, self._loads = folder / "dry_runs.json", LoadHistory(folder / "loads.json")
        self._known: dict[tuple[str, Engine], MemoryEstimate] = {}

    def __call__(self, name: str, engine: Engine) -> int:
        memory = self.estimate(name, engine)
        resident = max(memory.resident, self.learned_bytes(name, engine))
        ram = int(resident * self._resources.ram_safety)
        if not memory.vram:
            return ram
        vram = memory.vram * self._resources.vram_safety
        share = vram / self.budget.vram if self.budget.vram else float("inf")
        return ram if share <= ram / self.budget.ram else int(min(share, 1e6) * self.budget.ram)

    def learned_bytes(self, name: str, engine: Engine) -> int:
        return self._loads.learned_peak(self._key(name), shape_of(engine)) or 0

    def estimate(self, name: str, engine: Engine) -> MemoryEstimate:
        """The parts of it, without factor and experience."""
        if (name, engine) not in self._known:
            model, shape = self._models[name], shape_of(engine)
            dry_run_memory = dry_run(model.path, shape, self._key(name), self._asked)
            self._known[name, engine] = estimate(model.metadata, shape, dry_run_memory)
        return self._known[name, engine]

    def learn(self, name: str, engine: Engine, peak: int) -> None:
        """Keep what a load was measured to take, in bytes."""
        self._loads.add(self._key(name), shape_of(engine), peak, self.estimate(name, engine).resident)

    def _key(self, name: str) -> str:
        return f"{self._models[name].fingerprint} {engine_build()}"


def shape_of(engine: Engine) -> MemoryShape:
    """What of the settings decides memory."""
    return MemoryShape(engine.context, engine.batch, engine.flash, engine.kv_type, engine.gpu_layers, engine.repack)


def load_seconds(model: PipelineLocalModel) -> float:
    """What loading it is taken to last."""
    return _START_SECONDS + model.metadata.file_bytes / _BYTES_PER_SECOND


@dataclass(slots=True)
class _Resident:
    engine: ChatProcess
    settings: Engine
    bytes: int


@dataclass
class LoadedModels:
    """Loads and unloads. Used by one thread. `told` is given the events `model.loaded` and `model.evicted`."""

    models: Mapping[str, PipelineLocalModel]
    sizes: Sizes
    threads: int
    make: Callable[[EngineConfig], ChatProcess]
    told: Callable[..., object]
    _here: dict[str, _Resident] = field(default_factory=dict)  # the least recently used first

    @property
    def budget(self) -> MemoryBudget:
        return self.sizes.budget

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._here)

    def engine(
        self, name: str, settings: Engine, *, upcoming: Sequence[str], cancelled: Callable[[], bool]
    ) -> ChatProcess:
        """The model, loaded with these settings. What has to go for it is what is needed last among `upcoming`.

        Raises:
            GateError: it takes more than all models together may.
            AgentlabError: it cannot be loaded; see `ChatEngine.chat`.
        """
        resident = self._here.get(name)
        if resident is not None and resident.settings == settings:
            self._here[name] = self._here.pop(name)
            return resident.engine
        self.evict(name)  # if it is loaded with other settings
        needed = self.sizes(name, settings)
        if needed > self.budget.ram:
            raise GateError(
                f"Model {name} needs {needed >> 20} MiB with a context of {settings.context}, but the limit for all "
                f"models together is {self.budget.ram >> 20} MiB.",
                hint="Raise resources.ram_gib, or lower n_ctx.",
            )
        self._make_room(needed, upcoming)
        model = self.models[name]
        engine = self.make(settings.config(model.path, threads=self.threads, memory_bytes=self.budget.ram))
        try:
            loaded = engine.load(cancelled=cancelled)
        except BaseException:
            engine.close()
            raise
        self._here[name] = _Resident(engine, settings, needed)
        sizes = {"resident_bytes": loaded.resident_bytes, "estimate_bytes": needed}
        self.told("model.loaded", name, seconds=round(loaded.seconds, 4), **sizes)
        return engine

    def _make_room(self, needed: int, upcoming: Sequence[str]) -> None:
        """Unload until `needed` bytes fit, the model that is used furthest in the future first (Belady 1966)."""
        while self._here and needed + sum(resident.bytes for resident in self._here.values()) > self.budget.ram:
            self.evict(max(self._here, key=lambda name: upcoming.index(name) if name in upcoming else len(upcoming)))

    def evict(self, name: str) -> None:
        resident = self._here.pop(name, None)
        if resident is None:
            return
        memory_use, began = resident.engine.measured(), time.monotonic()
        resident.engine.close()
        seconds = round(time.monotonic() - began, 4)
        self.told("model.evicted", name, seconds=seconds, peak_bytes=None if memory_use is None else memory_use.peak)
        if memory_use is not None:
            self.sizes.learn(name, resident.settings, memory_use.peak)

    def only(self, name: str) -> None:
        for other_name in [other_name for other_name in self._here if other_name != name]:
            self.evict(other_name)

    def close(self) -> None:
        for name in self.names:
            self.evict(name)
