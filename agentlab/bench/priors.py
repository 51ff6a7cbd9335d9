"""What a run tells the workspace's ledger, so that the strategy `adaptive` need not begin from nothing. Pure."""

from collections.abc import Iterator, Sequence

from agentlab.bench.load.asks import TASK
from agentlab.bench.load.records import Record
from agentlab.bench.load.session import Measured
from agentlab.bench.quality.result import QualityResult
from agentlab.llm.budget import priced
from agentlab.llm.config import LLMConfig
from agentlab.llm.ledger.arm import Quality, Sample


def samples_of(measured: Measured, llm: LLMConfig, tasks: Sequence[str], *, run: str, now: float) -> Iterator[Sample]:
    """One sample for each task and request to a model that ended; strategies say nothing about single models.

    Args:
        measured: rows and records of the stages.
        llm: the models that were measured.
        tasks: what the samples are evidence for; empty is the task of this measurement itself.
        run: the run's id.
        now: UNIX seconds.
    """
    for stage, row in measured.rows.items():
        if row.target in llm.models:
            for record in measured.records[stage]:
                yield from _samples(row.target, record, llm, tasks or (TASK,), run, now)


def _samples(name: str, record: Record, llm: LLMConfig, tasks: Sequence[str], run: str, now: float) -> Iterator[Sample]:
    """Times count from the moment of sending: waiting for a turn is not the model's."""
    if record.ended is None:
        return
    for task in tasks:
        yield Sample(
            at=now,
            task=task,
            model=name,
            provider=llm.models[name].provider,
            error=record.error,
            usage=priced(record.usage, llm.models[name].price),
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
