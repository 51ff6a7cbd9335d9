"""What the ledger is told."""

from collections.abc import Callable

import numpy as np

from agentlab.bench.config import BenchConfig
from agentlab.bench.load.aggregate import StageFacts, row_of
from agentlab.bench.load.config import SloConfig
from agentlab.bench.load.records import Record
from agentlab.bench.load.schedule import LoadStage
from agentlab.bench.load.session import LoadMeasurement
from agentlab.bench.run import mock_models, planned_llm, samples_of
from agentlab.llm.ledger.memory import MemoryLedger
from agentlab.llm.types import Usage

Make = Callable[..., Record]


def test_every_request_that_ended_is_a_sample_with_times_from_the_send(record: Make) -> None:
    llm = mock_models(BenchConfig(mock=("ok",)), "http://127.0.0.1:1/v1")
    measured = LoadMeasurement()
    records = [
        record(ttft=0.2, itl=0.1, pieces=3, late=5.0),
        record(ttft=0.1, error="ServerFaultError"),
        record(cut=True),
    ]
    for target in ("ok", "strategy:fallback"):
        facts = StageFacts(LoadStage(target, target, "closed", 1, 3, 0), "whole", 0.1, "f", exact=False, price=None)
        measured.rows[target] = row_of(facts, records, SloConfig(), None, np.random.default_rng(0))
        measured.records[target] = records
    samples = list(samples_of(measured, llm, ["nas.propose"], run="r", now=1000.0))
    assert [(s.task, s.model, s.provider, s.error, s.run) for s in samples] == [
        ("nas.propose", "ok", "mock", None, "r"),
        ("nas.propose", "ok", "mock", "ServerFaultError", "r"),
    ]
    assert samples[0].first is not None
    assert (round(samples[0].first, 6), round(samples[0].total, 6)) == (0.2, 0.4)
    assert samples[0].usage == Usage(7, 3, 0.0)
    assert all(sample.is_sound() for sample in samples)
    ledger = MemoryLedger()
    for sample in samples:
        ledger.record(sample)
    assert ledger.arm("nas.propose", "ok", 1000.0).successes > 0


def test_without_a_task_it_is_evidence_for_the_measurement_itself(record: Make) -> None:
    config = BenchConfig(mock=("ok",))
    measured = LoadMeasurement()
    facts = StageFacts(LoadStage("s", "ok", "closed", 1, 3, 0), "whole", 0.1, "f", exact=False, price=None)
    measured.rows["s"] = row_of(facts, [record()], SloConfig(), None, np.random.default_rng(0))
    measured.records["s"] = [record()]
    (sample,) = samples_of(measured, planned_llm(config), (), run="r", now=0.0)
    assert sample.task == "bench.load"
