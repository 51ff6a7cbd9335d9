"""Seconds, joules and grams of CO2 of a run, and a budget that is passed by one interval of checking at most."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from agentlab import machine
from agentlab.errors import BudgetExceededError

_RAPL = Path("/sys/class/powercap")
_KWH = 3.6e6  # joules
INTERVAL = 2.0  # seconds between two records of what was spent
_PRIOR = 30.0  # seconds of work of which the usual rate is evidence: a few that were measured outweigh it
_UNSIZED = 0.01  # the work of a stage that nobody expects: it costs what it did before, and tells nothing of others
Joules = Callable[[], float]


@dataclass(frozen=True, slots=True)
class CompressCost:
    """What something cost."""

    seconds: float = 0.0
    joules: float = 0.0
    grams: float = 0.0
    work: float = 0.0  # seconds of a core that its sizes let expect; 0 where they are not known

    def __add__(self, other: "CompressCost") -> "CompressCost":
        return CompressCost(*(getattr(self, unit) + getattr(other, unit) for unit in self.__slots__))

    def __mul__(self, factor: float) -> "CompressCost":
        return CompressCost(*(factor * getattr(self, unit) for unit in self.__slots__))

    @property
    def units(self) -> dict[str, float]:
        return {unit: getattr(self, unit) for unit in ("seconds", "joules", "grams")}


_NOTHING = CompressCost()


@dataclass(frozen=True, slots=True)
class CompressStage:
    """A stage that is ahead. `work` is as in `CompressCost`, `makes` what later recipes find done."""

    name: str
    work: float
    makes: str = ""


def usual_rate(watts: float, intensity: float) -> CompressCost:
    """What a second costs where nothing was measured; a GPU is taken to do the work of 20 cores."""
    return CompressCost(1.0, watts, watts / _KWH * intensity, 20.0 if machine.device() == "cuda" else 1.0)


def forecast(stages: Iterable[CompressStage], costs: Mapping[str, CompressCost], usual: CompressCost) -> CompressCost:
    """What stages are going to cost; never a measurement. Pure.

    A stage that was measured costs for its work what it has cost so far, by `costs` with the work that was expected;
    any other what all together did; and `usual` where nothing is known yet.
    """
    sized = {name: cost for name, cost in costs.items() if cost.work}
    combined = sum(sized.values(), usual * (_PRIOR / usual.work))
    rates = [(stage.work, sized.get(stage.name, combined)) for stage in stages]
    return sum((rate * (work / rate.work) for work, rate in rates), CompressCost())


def budget_remark(limits: Mapping[str, float], total_cost: CompressCost) -> list[str]:
    """Budget, spent and overshoot, in each unit that is bounded."""
    used = [(total_cost.units[unit], limit, unit) for unit, limit in limits.items()]
    parts = [
        f"{amount:.3g} of {limit:g} {unit} spent, overshoot {max(0.0, amount - limit):.2g}"
        for amount, limit, unit in used
    ]
    return [f"Budget: {'; '.join(parts)}."] if parts else []


class OverBudgetError(BudgetExceededError):
    """The next step would cost more than is left, or what is under way already has."""


class Meter:
    """Adds up what a run costs. Not for several threads.

    What was spent goes to `record` at least every `INTERVAL` seconds of work, so that a run that is killed has paid for
    what it did. `others` counts against the limits too: what other processes of the run are known to have spent.
    """

    def __init__(
        self,
        joules: Joules,  # a counter that never falls, from any beginning
        intensity: float,  # grams of CO2 a kWh
        limits: Mapping[str, float],  # of `seconds`, `joules`, `grams`: the first that is reached ends the work
        before: Iterable[tuple[str, CompressCost]],  # what an earlier part of the run has recorded
        record: Callable[[str, CompressCost], object],  # hears (stage, what it has cost since the last record)
        clock: Callable[[], float] = time.monotonic,  # seconds
        usual: CompressCost = CompressCost(1.0, 20.0, 20.0 / _KWH * 400.0, 1.0),  # where nothing was measured yet
    ) -> None:
        self._joules, self._intensity, self._limits = joules, intensity, limits
        self._record, self._clock = record, clock
        self.total, self.others, self._stage = CompressCost(), CompressCost(), ""
        self._usual, self._known = usual, dict[str, CompressCost]()
        self._ahead, self._work = list[CompressStage](), 0.0
        self._seconds, self._energy = clock(), joules()
        for stage, cost in before:
            self._add(stage, cost)

    def expect(self, stages: Sequence[CompressStage]) -> None:
        """Say what comes next, to the end of measuring: none of them begins unless all that are left fit the budget."""
        self._ahead = list(stages)

    def stage(self, name: str) -> None:
        """A stage begins; what was spent until now belongs to the one before.

        Raises:
            OverBudgetError: the budget is spent, or forecast to be before all that is expected from here on is done.
        """
        self.flush()
        self._stage = name
        self._enforce_limits(self.total, f"{name} cannot start within")
        names = [stage.name for stage in self._ahead]
        ahead = self._ahead[names.index(name) :] if name in names else [CompressStage(name, _UNSIZED)]
        self._ahead, self._work = ahead[1:] if name in names else self._ahead, ahead[0].work
        if name in names or name in self._known:
            self._enforce_limits(self.total, f"{name} is expected to exceed", forecast(ahead, self._known, self._usual))

    def check(self) -> None:
        """Call it within loops.

        Raises:
            OverBudgetError: the budget is spent.
        """
        if self._clock() - self._seconds >= INTERVAL:
            self.flush()
        self._enforce_limits(self.total + self._since(), f"{self._stage} exceeded")

    def flush(self) -> None:
        cost = self._since()
        self._seconds += cost.seconds
        self._energy += cost.joules
        if cost.seconds > 0 or cost.joules > 0:
            cost, self._work = replace(cost, work=self._work), 0.0
            self._add(self._stage, cost)
            self._record(self._stage, cost)

    def _add(self, stage: str, cost: CompressCost) -> None:
        self.total = self.total + cost
        self._known[stage] = self._known.get(stage, CompressCost()) + cost

    def _since(self) -> CompressCost:
        joules = max(0.0, self._joules() - self._energy)
        return CompressCost(max(0.0, self._clock() - self._seconds), joules, joules / _KWH * self._intensity)

    def _enforce_limits(self, cost: CompressCost, subject: str, expected: CompressCost = _NOTHING) -> None:
        for unit, limit in self._limits.items():
            used, need = (cost + self.others).units[unit], expected.units[unit]
            if used + need > limit:
                needed = f", {need:.3g} more forecast (including measurement)" if need else ""
                raise OverBudgetError(
                    f"{subject} the budget of {limit:g} {unit}; {used:.4g} already spent{needed}.",
                    hint="To continue, use --resume and raise the budget with --set budget.*.",
                )


@dataclass(frozen=True, slots=True)
class EnergySource:
    """Where joules are from: `measured` by a counter of the processor, or `estimated`."""

    joules: Joules
    label: str
    measured: bool


def best_source(watts: float) -> EnergySource:
    """Counters of processor and GPU where they may be read; else CPU-seconds of this process and its children.

    Virtual machines have no counter of the processor. Counters see what others do there, too. `watts`: of a busy core,
    for the estimate.
    """
    domains = [file for file in sorted(_RAPL.glob("intel-rapl:?/energy_uj")) if _readable(file)]
    rapl = _Counter(domains) if domains else None
    processor: Joules = rapl or (lambda: watts * cpu_seconds())
    label = "RAPL" if rapl else f"CPU seconds at {watts:g} W"
    if machine.device() != "cuda":
        return EnergySource(processor, label, measured=rapl is not None)
    gpu = _gpu_joules()
    if gpu is None:
        return EnergySource(
            processor, f"{label}, excluding the GPU (reading its counter requires nvidia-ml-py)", measured=False
        )
    return EnergySource(lambda: processor() + gpu(), f"{label}, NVML", measured=rapl is not None)


def _gpu_joules() -> Joules | None:
    """The counter of the first GPU (Volta and later), which has run since its driver was loaded."""
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except ImportError:
        return None
    except pynvml.NVMLError:  # an older GPU, or a driver that does not let us
        return None
    return lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3


def _readable(file: Path) -> bool:
    try:
        return int(file.read_text()) >= 0
    except (OSError, ValueError):
        return False


class _Counter:
    """Sum of counters in microjoules, each of which begins anew at a number of its own."""

    def __init__(self, files: list[Path]) -> None:
        self._files = files
        self._last = [int(file.read_text()) for file in files]
        self._ranges = [int(file.with_name("max_energy_range_uj").read_text()) for file in files]
        self._sum = 0

    def __call__(self) -> float:
        now = [int(file.read_text()) for file in self._files]
        for index, value in enumerate(now):
            step = value - self._last[index]
            self._sum += step if step >= 0 else step + self._ranges[index]
        self._last = now
        return self._sum / 1e6


def cpu_seconds() -> float:
    """CPU time of this process, of its children that live, and of those that have ended."""
    process = psutil.Process()
    times = process.cpu_times()
    total = times.user + times.system + times.children_user + times.children_system
    for child in process.children(recursive=True):
        try:
            used = child.cpu_times()
        except psutil.Error:  # it has ended meanwhile, and counts as such next time
            continue
        total += used.user + used.system
    return total
