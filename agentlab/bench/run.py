"""The shell of `agentlab llm-bench`: checks the experiment, measures what was asked for, writes the report."""

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

from agentlab.bench.check.asking import run_check
from agentlab.bench.check.result import CheckResult, ModelCheck
from agentlab.bench.config import BenchConfig, targets_of
from agentlab.bench.failures import Failed, no_answer_error
from agentlab.bench.load.result import LoadResult
from agentlab.bench.load.session import LoadMeasurement, LoadSession, answer_counter
from agentlab.bench.load.stages import capacities
from agentlab.bench.load.tables import objective
from agentlab.bench.load.target_asks import TASK
from agentlab.bench.plan import BenchPlan, plan_of
from agentlab.bench.quality.asking import GIVEN, run_quality
from agentlab.bench.quality.plan import plan_quality
from agentlab.bench.quality.result import NOT_ASKED, QualityResult
from agentlab.bench.result import BenchResult
from agentlab.experiment import open_router
from agentlab.llm import providers
from agentlab.llm.budget import priced_usage
from agentlab.llm.config import ChatModelConfig, LLMConfig
from agentlab.llm.ledger.arm import AttemptSample, Quality
from agentlab.llm.provider_config import OpenAICompatProvider, Price, RolesConfig
from agentlab.llm.recorder import RunRecorder
from agentlab.llm.types import Usage
from agentlab.runs.context import Context
from agentlab.runs.document import Report
from agentlab.runs.manifest import Metric, RunTokens
from agentlab.runs.run import OpenRun, RunOutcome

if TYPE_CHECKING:
    from agentlab.llm.router import Router

_NOWHERE = "http://127.0.0.1:9/v1"  # the discard port: stands for a server that has not started


class BenchExperiment:
    """A checked benchmark. Implements `commands.Experiment`."""

    def __init__(self, config: BenchConfig, context: Context) -> None:
        """Check targets, keys, model files and tokenizer; nothing is written, nobody is asked.

        Raises:
            ConfigError: there is no language model.
            MissingKeyError, MissingFileError: what a target needs is not there.
        """
        self.config, self.context = config, context
        llm = planned_llm(config)
        targets = targets_of(config.chosen_targets(), llm)
        if config.measure == "check":
            return  # what is missing is what a check tells
        if config.measure == "quality":
            plan_quality(config.quality, llm, config.chosen_targets())
        answer_counter(config, context)
        names: set[str] = set()
        for target in targets:
            names.update([target.model] if target.model else llm.used_models())
        provider_context = providers.ProviderContext(context.env, context.workspace, llm.defaults.timeout)
        for provider in {llm.models[name].provider for name in sorted(names)}:
            providers.build(provider, llm.providers[provider], provider_context)

    def plan(self) -> BenchPlan:
        return plan_of(self.config, planned_llm(self.config))

    def run(self, run: OpenRun) -> tuple[BenchResult, RunOutcome]:
        """Measure, or go on measuring, and report.

        Raises:
            Interrupted: a signal asked to stop; what is finished is in the run.
            BudgetExceededError: the next request would cost more than is allowed.
            AllModelsFailedError: all is over and reported, and nobody has answered.
        """
        with open_models(self.config) as llm:
            match self.config.measure:
                case "load":
                    return self._load(run, llm)
                case "check":
                    return self._finish_check(run, asyncio.run(self._check(run, llm)))
                case "quality":
                    return self._quality(run, llm)

    async def _check(self, run: OpenRun, llm: LLMConfig) -> CheckResult:
        def tell(row: ModelCheck) -> None:
            run.emit("model.checked", row.model, answered=row.successes, asked=row.asked, seconds=row.total_seconds)

        models = [target.model for target in targets_of(self.config.targets, llm) if target.model]
        async with self._router(llm) as router:
            return await run_check(self.config.check, llm, router, models=models, stop=self.context.stop, checked=tell)

    @staticmethod
    def _finish_check(run: OpenRun, check_result: CheckResult) -> tuple[BenchResult, RunOutcome]:
        names = ", ".join(row.model for row in check_result.models)
        run.report = Report(f"Availability of {names}", [check_result.verdict], {"model": names}, check_result.tables())
        answering = sum(row.available for row in check_result.models)
        if not answering:
            failures = [
                Failed(row.model, row.error_kind, row.error, row.failures, row.remedy) for row in check_result.models
            ]
            raise no_answer_error(failures, str(run.path / "report.md"))
        metrics = {"available": Metric(value=answering, unit="models", direction="higher")}
        return BenchResult(measure="check", check=check_result), RunOutcome(metrics=metrics)

    def _quality(self, run: OpenRun, llm: LLMConfig) -> tuple[BenchResult, RunOutcome]:
        async def ask() -> tuple[QualityResult, Usage]:
            config = self.config
            async with self._router(llm, RunRecorder(run)) as router:
                quality_result = await run_quality(
                    config.quality, llm, router, run, targets=config.chosen_targets(), stop=self.context.stop
                )
                return quality_result, router.usage

        quality_result, usage = asyncio.run(ask())
        names = ", ".join(row.target for row in quality_result.targets)
        run.report = Report(
            f"Quality of {names}",
            [quality_result.verdict],
            {"model": names, "data": f"{quality_result.items} items"},
            quality_result.tables(),
            next_step=f"agentlab llm-bench compare {run.id} OTHER_RUN",
        )
        if all(row.failed == row.items for row in quality_result.targets):
            answers = [event.data["answer"] for event in run.events if event.type == GIVEN]
            asked_answers = [data for data in answers if data["error"] != NOT_ASKED]
            failures = [Failed(data["target"], data["error"], data["message"]) for data in asked_answers]
            raise no_answer_error(failures, str(run.path / "report.md"))
        if self.config.save_priors:
            self._save(run, qualities_of(quality_result, llm, self.config.priors_for, at=time.time()))
        qualities = [row.quality for row in quality_result.targets if row.quality is not None]
        metrics = {"quality": Metric(value=max(qualities), unit="", direction="higher")} if qualities else {}
        tokens = RunTokens(input=usage.input_tokens, output=usage.output_tokens)
        return BenchResult(measure="quality", quality=quality_result), RunOutcome(
            metrics, tokens=tokens, cost_usd=usage.cost_usd
        )

    def _router(self, llm: LLMConfig, recorder: RunRecorder | None = None) -> "Router":
        """With a recorder, what earlier sessions of the run spent counts towards its budget."""
        return open_router(llm, self.context, recorder, in_callers_loop=True)

    def _load(self, run: OpenRun, llm: LLMConfig) -> tuple[BenchResult, RunOutcome]:
        from agentlab.bench.load.tables import load_report

        measured = asyncio.run(LoadSession(self.config, llm, self.context, run).measure())
        result = self._result(measured)
        run.report = load_report(run, result, measured.records)
        if self.config.save_priors:
            self._save(run, samples_of(measured, llm, self.config.priors_for, run=run.id, now=time.time()))
        if not any(row.answered for row in result.stages) and (failures := _failures(measured)):
            raise no_answer_error(failures, str(run.path / "report.md"))
        return BenchResult(measure="load", load=result), outcome(result)

    def _save(self, run: OpenRun, evidence: Iterable[AttemptSample | Quality]) -> None:
        """Tell the workspace's ledger; once, however often the run is gone on with."""
        from agentlab.llm.ledger.sqlite import SqliteLedger

        if run.has("priors.saved"):
            return
        ledger = SqliteLedger(self.context.workspace.state / "llm.sqlite", self.config.llm.ledger.keep_days, run.log)
        told_count = 0
        try:
            for observation in evidence:
                told_count += 1
                if isinstance(observation, AttemptSample):
                    ledger.record(observation)
                else:
                    ledger.quality(observation.at, observation.task, observation.model, observation.value)
        finally:
            ledger.close()
        run.emit("priors.saved", samples=told_count)

    def _result(self, measured: LoadMeasurement) -> LoadResult:
        config, targets = self.config, self.config.chosen_targets()
        notes = []
        if measured.out_of_time:
            notes.append(f"The time limit of {config.load.max_seconds:g} s ended the run before its last stage.")
        if config.load.faults.share:
            notes.append(f"{config.load.faults.share:.0%} of the requests failed by design (load.faults).")
        return LoadResult(
            mode=config.load.mode,
            objective=objective(config.load.slo),
            stages=list(measured.rows.values()),
            capacities=capacities(config.load, targets, measured.rows, config.seed),
            ceiling=measured.ceiling,
            notes=notes,
        )


def samples_of(
    measured: LoadMeasurement, llm: LLMConfig, tasks: Sequence[str], *, run: str, now: float
) -> Iterator[AttemptSample]:
    """One sample for each task and request to a model that ended; strategies say nothing about single models.

    `tasks` are what it is evidence for; empty is the task of this measurement itself. `now` is in UNIX seconds. Times
    count from the moment of sending: waiting for a turn is not the model's.
    """
    for stage, row in measured.rows.items():
        model = llm.models.get(row.target)
        if model is None:
            continue
        for record, task in product(measured.records[stage], tasks or (TASK,)):
            if record.ended is None:
                continue
            yield AttemptSample(
                at=now,
                task=task,
                model=row.target,
                provider=model.provider,
                error=record.error,
                usage=priced_usage(record.usage, model.price),
                first=None if record.first is None or record.error else record.first - record.sent,
                total=record.ended - record.sent,
                run=run,
            )


def qualities_of(result: QualityResult, llm: LLMConfig, tasks: Sequence[str], *, at: float) -> Iterator[Quality]:
    """The mean score of each model and type of task, as often as items were scored.

    `tasks` are what it is evidence for; empty is `bench.TYPE`, the tasks under which the items were asked.
    """
    for target in result.targets:
        for kind, (score, count) in target.priors().items() if target.target in llm.models else ():
            for task in tasks or (f"bench.{kind}",):
                for _ in range(count):
                    yield Quality(at, task, target.target, score)


def _failures(measured: LoadMeasurement) -> list[Failed]:
    """What went wrong, once for each target and error, with the first message."""
    failures: dict[tuple[str, str], Failed] = {}
    for stage, records in measured.records.items():
        for record in records:
            if record.error is not None:
                target = measured.rows[stage].target
                failure = failures.get((target, record.error), Failed(target, record.error, record.message, 0))
                failures[target, record.error] = replace(failure, count=failure.count + 1)
    return list(failures.values())


def outcome(result: LoadResult) -> RunOutcome:
    """The headline figures for the manifest."""
    answered_rows = [row for row in result.stages if row.ttft is not None]
    metrics: dict[str, Metric] = {}
    if answered_rows:
        ttft = min(row.ttft.p50 for row in answered_rows if row.ttft)
        metrics["ttft_ms"] = Metric(value=ttft, unit="ms", direction="lower")
        metrics["goodput"] = Metric(value=max(row.goodput for row in answered_rows), unit="1/s", direction="higher")
    costs = [row.cost_usd for row in result.stages if row.cost_usd is not None]
    input_tokens = _tokens([(row.input_tokens, row.answered) for row in result.stages])
    output_tokens = _tokens([(row.output_tokens, row.answered) for row in result.stages])
    tokens = RunTokens(input=input_tokens, output=output_tokens)
    return RunOutcome(metrics, tokens=tokens, cost_usd=sum(costs) if costs else None)


def _tokens(means: list[tuple[float | None, int]]) -> int | None:
    totals = [mean * count for mean, count in means if mean is not None]
    return round(sum(totals)) if totals else None


def prepare(config: BenchConfig, context: Context) -> BenchExperiment:
    """Check everything that can be wrong with the input, before a run folder exists."""
    return BenchExperiment(config, context)


def planned_llm(config: BenchConfig) -> LLMConfig:
    """The models as they can be told before anything is started."""
    return mock_models(config, _NOWHERE) if config.mock else config.llm


@contextmanager
def open_models(config: BenchConfig) -> Iterator[LLMConfig]:
    """The models, with the mock server running while they are in use."""
    if not config.mock:
        yield config.llm
        return
    from agentlab.bench.mock.server import in_process

    with in_process(seed=config.seed) as url:
        yield mock_models(config, url)


def mock_models(config: BenchConfig, url: str) -> LLMConfig:
    """A model for each script at this address; clocks and budget are those of the config."""
    return LLMConfig(
        providers={"mock": OpenAICompatProvider(kind="openai_compat", base_url=url)},
        models={
            name: ChatModelConfig(provider="mock", id=name, price=Price(input=0, output=0)) for name in config.mock
        },
        roles=RolesConfig(primary=config.mock),
        defaults=config.llm.defaults,
        budget=config.llm.budget,
    )
