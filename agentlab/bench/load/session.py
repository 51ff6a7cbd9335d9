"""The stages of a run, one after the other: asked, written down, and left out when the run is gone on with."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from agentlab.bench.config import BenchConfig, Target, targets_of
from agentlab.bench.load.aggregate import StageFacts, row_of
from agentlab.bench.load.records import Clock, Record, from_lines, record_of, slim, to_lines
from agentlab.bench.load.result import CeilingRow, Ended, StageRow
from agentlab.bench.load.schedule import LoadStage, stage_of
from agentlab.bench.load.sending import Bounds, StageOutcome, Watch, measure_ceiling, run_stage
from agentlab.bench.load.stages import is_rising, upcoming
from agentlab.bench.load.target_asks import Asks
from agentlab.errors import MissingFileError, ModelFileError, RunUnreadableError
from agentlab.llm.config import LLMConfig
from agentlab.llm.types import Usage
from agentlab.runs.atomic import read_text
from agentlab.runs.context import Context
from agentlab.runs.run import OpenRun

_LEAST_SECONDS = 0.5  # left for a stage to be worth its start
_WARM_SHARE = 0.2  # of the seconds that are left, for a warm-up
_TELL_SECONDS = 0.5
_LATE = 0.99  # the quantile of the client's lag that is told
_FOLDER = "requests"
_LARGEST = 1 << 30  # bytes of a file of requests
_LARGEST_TOKENIZER = 64 << 20  # bytes


@dataclass(slots=True)
class LoadMeasurement:
    """What is known so far: the client's ceiling, rows and slim records of finished stages, seconds that were used."""

    ceiling: CeilingRow | None = None
    rows: dict[str, StageRow] = field(default_factory=dict)
    records: dict[str, Sequence[Record]] = field(default_factory=dict)
    seconds: float = 0.0
    out_of_time: bool = False


class LoadSession:
    """One session of a run. `measure` is its only verb."""

    def __init__(self, config: BenchConfig, llm: LLMConfig, context: Context, run: OpenRun) -> None:
        """Read what earlier sessions have measured.

        Raises:
            RunUnreadableError: a file of the run is damaged.
        """
        self._config, self._llm, self._context, self._run = config, llm, context, run
        self._targets = {target.name: target for target in targets_of(config.chosen_targets(), llm)}
        self._count = answer_counter(config, context)
        self._warm: set[str] = set()
        self.measured = LoadMeasurement()
        for event in run.events:
            if event.type == "ceiling.measured":
                self.measured.ceiling = CeilingRow.model_validate(event.data)
            elif event.type == "stage.finished":
                self._add(LoadStage(**event.data["stage"]), event.data, _stored_records(run, event.data["file"]))

    async def measure(self) -> LoadMeasurement:
        """Everything that is not measured yet.

        Raises:
            Interrupted: a stop was requested; finished stages are kept.
            BudgetExceededError: the next request would cost more than is allowed; finished stages are kept.
        """
        clock = asyncio.get_running_loop().time
        await self._measure_ceiling(clock)
        load, targets, rows = self._config.load, list(self._targets), self.measured.rows
        usage = Usage(cost_usd=sum(row.cost_usd or 0.0 for row in rows.values()))
        asks = Asks(self._config, self._llm, self._context, usage)
        try:
            while stage_and_share := upcoming(load, targets, rows, self._config.seed):
                seconds_left = load.max_seconds - self.measured.seconds
                if seconds_left < _LEAST_SECONDS:
                    self.measured.out_of_time = True
                    break
                await self._stage(asks, *stage_and_share, seconds_left, clock)
        finally:
            await asks.close()
        return self.measured

    async def _measure_ceiling(self, clock: Clock) -> None:
        load = self._config.load
        if self.measured.ceiling is not None or not load.ceiling_seconds:
            return
        from agentlab.bench.mock.server import in_process

        self._context.stop.check()
        workspace = self._context.workspace
        with in_process() as url:
            ceiling = await measure_ceiling(url, load.output_tokens, load.ceiling_seconds, clock, workspace)
        self.measured.ceiling = ceiling
        self._run.emit("ceiling.measured", **ceiling.model_dump(mode="json"))

    async def _stage(self, asks: Asks, stage: LoadStage, share: float, seconds_left: float, clock: Clock) -> None:
        target = self._targets[stage.target]
        began = clock()
        await self._warm_up(asks, target, seconds_left, clock)
        warmed = clock() - began
        bounds = Bounds((seconds_left - warmed) * share, self._seconds(target))
        self._run.emit("stage.started", stage.id, target=stage.target, load=stage.label, requests=stage.requests)
        cpu = time.process_time()
        keep_text = self._count is not None
        watch = self._watch(stage, clock)
        outcome = await run_stage(stage, asks.of(target, stage), bounds, watch, clock, keep_text=keep_text)
        cpu_share = (time.process_time() - cpu) / max(outcome.seconds, 1e-9)
        if outcome.readings:
            self._finish(stage, outcome, cpu_share, warmed)
        if outcome.error is not None:
            raise outcome.error

    async def _warm_up(self, asks: Asks, target: Target, seconds_left: float, clock: Clock) -> None:
        """Open connections and load the model. What fails here fails again where it is counted."""
        if target.name in self._warm or not self._config.load.warmup:
            return
        stage = stage_of(target.name, 0, -1, "closed", 1.0, self._config.load, self._config.seed)
        stage = replace(stage, requests=self._config.load.warmup)
        bounds = Bounds(seconds_left * _WARM_SHARE, self._seconds(target))
        outcome = await run_stage(stage, asks.of(target, stage), bounds, self._check_stop, clock)
        if outcome.error is not None:
            raise outcome.error
        self._warm.add(target.name)

    def _finish(self, stage: LoadStage, outcome: StageOutcome, cpu: float, warmed: float) -> None:
        records = [record_of(reading, outcome.began, self._exact(reading)) for reading in outcome.readings]
        file = f"{_FOLDER}/{stage.id}.jsonl"
        self._run.write_text(file, to_lines(records))
        ending = self._ending(stage, outcome)
        facts = {
            "ended": ending,
            "client_cpu": round(cpu, 4),
            "client_lag": round(float(np.quantile(outcome.lags, _LATE)), 6) if outcome.lags else None,
            "seconds": round(outcome.seconds + warmed, 4),
            "file": file,
        }
        row = self._add(stage, facts, records)
        figures = {
            "target": row.target,
            "load": row.label,
            "answered": row.answered,
            "requests": row.requests,
            "request_rate": row.request_rate,
            "ttft_ms": row.ttft.p50 if row.ttft else None,
            "e2e_ms": row.e2e.p50 if row.e2e else None,
        }
        self._run.emit("stage.finished", stage.id, stage=asdict(stage), **facts, **figures)

    def _add(self, stage: LoadStage, facts: dict[str, Any], records: Sequence[Record]) -> StageRow:
        target = self._targets[stage.target]
        model = self._llm.models[target.model] if target.model else None
        local = model is not None and self._llm.providers[model.provider].is_local
        price = model.price if model else None
        lag = facts.get("client_lag")
        stage_facts = StageFacts(
            stage, facts["ended"], facts["client_cpu"], facts["file"], exact=local, price=price, client_lag=lag
        )
        rng = np.random.default_rng(stage.seed)
        row = row_of(stage_facts, records, self._config.load.slo, self.measured.ceiling, rng)
        self.measured.rows[stage.id] = row
        self.measured.records[stage.id] = [slim(record) for record in records]
        self.measured.seconds += facts["seconds"]
        return row

    def _exact(self, reading: Record) -> int | None:
        return self._count("".join(reading.text)) if self._count and reading.text is not None else None

    @staticmethod
    def _ending(stage: LoadStage, outcome: StageOutcome) -> Ended:
        """A queue that had grown until the last request was sent is one that would have kept growing."""
        if stage.arrivals != "closed" and outcome.ended in ("whole", "time"):
            last = max(reading.sent for reading in outcome.readings)
            if is_rising(outcome.readings, last):
                return "saturated"
        return outcome.ended

    def _seconds(self, target: Target) -> float:
        names = [target.model] if target.model else self._llm.used_models()
        return max(self._llm.total(name) for name in names)

    def _check_stop(self, _readings: Sequence[Record], _now: float) -> Ended | None:
        self._context.stop.check()
        return None

    def _watch(self, stage: LoadStage, clock: Clock) -> Watch:
        told_at = clock()
        sweeping = self._config.load.mode == "sweep" and stage.arrivals != "closed"

        def watch(readings: Sequence[Record], now: float) -> Ended | None:
            nonlocal told_at
            self._context.stop.check()
            if now - told_at >= _TELL_SECONDS:
                told_at = now
                ended_count = sum(reading.ended is not None for reading in readings)
                self._run.stream("stage.progress", stage.id, ended=ended_count, requests=stage.requests)
                if sweeping and is_rising(readings, now):
                    return "saturated"
            return None

        return watch


def _stored_records(run: OpenRun, name: str) -> Sequence[Record]:
    try:
        return from_lines(read_text(run.path / name, _LARGEST))
    except (OSError, ValueError) as error:
        raise RunUnreadableError(
            f"{run.path / name} cannot be read: {error}.", hint="Restore the file from a backup, or start a new run."
        ) from error


def answer_counter(config: BenchConfig, context: Context) -> Callable[[str], int] | None:
    """Counts the tokens of an answer by the tokenizer of the config; None without one.

    A text stands for itself, no special tokens are added.

    Raises:
        MissingFileError: there is no such file.
        ModelFileError: it is no tokenizer.
    """
    if config.load.tokenizer is None:
        return None
    path = context.workspace.resolve(config.load.tokenizer)
    if not path.is_file():
        raise MissingFileError(
            f"The tokenizer {path} does not exist.", hint="Point load.tokenizer at the model's tokenizer.json."
        )
    if path.stat().st_size > _LARGEST_TOKENIZER:
        raise ModelFileError(f"{path} is too large to be a tokenizer.")
    from tokenizers import Tokenizer  # takes a moment, and only some runs count

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # what the library raises is a plain Exception
        raise ModelFileError(f"{path} is not a tokenizer: {error}.") from error
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
