"""The benchmark against servers whose clock is known, and runs that are stopped and gone on with."""

import asyncio
import itertools
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentlab.bench.config import BenchConfig
from agentlab.bench.load.result import LoadResult
from agentlab.bench.load.schedule import LoadStage
from agentlab.bench.load.sending import Bounds, StageOutcome, client, run_stage
from agentlab.bench.mock.server import in_process
from agentlab.bench.run import BenchExperiment, mock_models
from agentlab.config.workspace import Workspace
from agentlab.errors import BudgetExceededError, Interrupted
from agentlab.llm.config import LLMConfig
from agentlab.llm.types import Delta, Message, ModelRequest
from agentlab.runs.context import Context
from agentlab.runs.events import Event
from agentlab.runs.run import OpenRun, RunEnvironment, RunSpec

pytestmark = pytest.mark.usefixtures("undrawn")
SCRIPT, TTFT, ITL = "ok-ttft200-itl10-n100", 200.0, 10.0
_EXACT = 2.0  # milliseconds at p50
_ROUNDS = 4
_SPOKEN = re.compile(rb'"content": ?"[^"]')


def experiment(tmp_path: Path, load: dict[str, Any], **changes: Any) -> BenchExperiment:
    load_settings = {"warmup": 1, "ceiling_seconds": 0, **load}
    config = BenchConfig.model_validate({"load": load_settings, **changes})
    return BenchExperiment(config, Context(Workspace(root=tmp_path, cache=tmp_path), {}))


def carry_out(the_experiment: BenchExperiment, run: OpenRun) -> LoadResult:
    result, _ = the_experiment.run(run)
    assert result.load is not None
    return result.load


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Any]:
    opened: list[OpenRun] = []

    def make(name: str, *sinks: Any) -> OpenRun:
        spec = RunSpec("llm-bench", "", "", "h", 0, name=name)
        opened.append(OpenRun.create(tmp_path / "runs", spec, RunEnvironment(sinks=sinks)))
        return opened[-1]

    yield make
    for run in opened:
        run.close()


async def bare_socket(url: str, requests: int) -> tuple[float, float]:
    """Medians in milliseconds of what a socket sees without any client: to the first token, and between tokens."""
    clock = asyncio.get_running_loop().time
    body = json.dumps({"model": SCRIPT, "stream": True, "messages": [{"role": "user", "content": "hello"}]}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: mock\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2].partition("/")[0]))
    firsts, gaps = [], []
    for _ in range(requests):
        sent, stamps, data = clock(), [], b""
        writer.write(head + body)
        while b"[DONE]" not in data:
            data = await reader.read(65536)
            if _SPOKEN.search(data):  # the piece that names the role holds an empty text
                stamps.append(clock())
        firsts.append((stamps[0] - sent) * 1000)
        gaps += [(after - before) * 1000 for before, after in itertools.pairwise(stamps)]
    writer.close()
    return statistics.median(firsts), statistics.median(gaps)


def test_a_server_with_a_known_clock_is_measured_within_two_milliseconds(tmp_path: Path, runs: Any) -> None:
    """Of the script's times on a quiet machine; on a busy one, where the server is late, of what a bare socket sees."""
    load = {"concurrency": [1], "requests": 6, "output_tokens": 100, "warmup": 1}
    errors = []
    with in_process() as url:
        llm = mock_models(BenchConfig(mock=(SCRIPT,)), url)
        for number in range(_ROUNDS):
            with runs(f"r{number}") as run:
                (row,) = carry_out(experiment(tmp_path, load, llm=llm.model_dump()), run).stages
            assert row.ttft is not None
            assert row.itl is not None
            assert row.tpot is not None
            assert (row.answered, row.itl.n, row.output_tokens) == (6, 6 * 99, 100)
            measured = row.ttft.p50, row.itl.p50
            reference = TTFT, ITL
            if error_of(measured, reference) > _EXACT:
                reference = asyncio.run(bare_socket(url, 6))
            errors.append(error_of(measured, reference))
            if errors[-1] <= _EXACT:
                break
    assert min(errors) <= _EXACT, errors


def error_of(measured: tuple[float, float], reference: tuple[float, float]) -> float:
    return max(abs(ours - theirs) for ours, theirs in zip(measured, reference, strict=True))


def test_the_client_states_its_own_limit(tmp_path: Path, runs: Any) -> None:
    the_experiment = experiment(
        tmp_path, {"ceiling_seconds": 1, "concurrency": [1], "requests": 2, "output_tokens": 32}, mock=["ok"]
    )
    with runs("one") as run:
        result = carry_out(the_experiment, run)
        run.write_report(run.manifest)
    assert result.ceiling is not None
    assert min(result.ceiling.short, result.ceiling.long) > 10  # which is larger, chance decides where tokens are cheap
    report = (run.path / "report.md").read_text(encoding="utf-8")
    assert f"{result.ceiling.short:.0f} requests/s with one-token answers" in report


class StopAfter:
    """Asks the run to stop when its first stage is finished, as a signal would."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def emit(self, event: Event) -> None:
        if event.type == "stage.started" and "c4" in event.id:
            self._context.stop.request(2)


def test_a_stopped_run_keeps_its_finished_stages_and_goes_on_with_the_rest(tmp_path: Path, runs: Any) -> None:
    load = {"concurrency": [1, 4], "requests": 6, "output_tokens": 4}
    first = experiment(tmp_path, load, mock=["ok-ttft20-n4"])
    run = runs("stopped", StopAfter(first.context))
    with pytest.raises(Interrupted):
        first.run(run)
    finished = [event for event in run.events if event.type == "stage.finished"]
    assert len(finished) == 1
    lines = (run.path / finished[0].data["file"]).read_bytes()
    run.close()
    with OpenRun.resume(run.path, RunEnvironment()) as resumed:
        result = carry_out(experiment(tmp_path, load, mock=["ok-ttft20-n4"]), resumed)
        resumed.write_report(resumed.manifest)
    assert [(row.value, row.answered) for row in result.stages] == [(1, 6), (4, 6)]
    assert (run.path / finished[0].data["file"]).read_bytes() == lines
    assert (run.path / "report.html").exists()


def test_a_run_that_is_gone_on_with_after_its_end_measures_nothing_again(tmp_path: Path, runs: Any) -> None:
    load = {"concurrency": [2], "requests": 4, "output_tokens": 4}
    run = runs("done")
    before = carry_out(experiment(tmp_path, load, mock=["ok-n4"]), run)
    assert carry_out(experiment(tmp_path, load, mock=["ok-n4"]), run) == before


def test_the_time_limit_holds_for_a_server_that_never_answers(tmp_path: Path, runs: Any) -> None:
    load = {"concurrency": [1, 2, 4], "requests": 5, "max_seconds": 3, "warmup": 1}
    began = time.monotonic()
    with runs("silent") as run:
        result = carry_out(experiment(tmp_path, load, mock=["silence"]), run)
    assert time.monotonic() - began < 15
    assert not any(row.answered for row in result.stages)
    assert all(row.cut for row in result.stages)


def test_faults_are_told_by_kind(tmp_path: Path, runs: Any) -> None:
    load = {"concurrency": [4], "requests": 60, "output_tokens": 4, "faults": {"share": 0.4}}
    with runs("faults") as run:
        (row,) = carry_out(experiment(tmp_path, load, mock=["ok-n4"]), run).stages
    assert row.answered + row.failed == 60
    assert 10 < row.failed < 40
    assert set(row.errors) <= {
        "LLMTimeoutError",
        "LLMConnectionError",
        "LLMTruncatedError",
        "RateLimitedError",
        "ServerFaultError",
    }


def test_a_budget_stops_the_run_and_a_larger_one_goes_on(tmp_path: Path, runs: Any) -> None:
    llm = {
        "providers": {"script": {"kind": "scripted", "mode": "first"}},
        "models": {"dear": {"provider": "script", "id": "dear", "price": {"input": 1000, "output": 1000}}},
        "roles": {"primary": ["dear"]},
    }
    load = {"concurrency": [1, 2], "requests": 10, "output_tokens": 8, "prompt_tokens": 32, "warmup": 0}
    with runs("dear") as run:
        with pytest.raises(BudgetExceededError):
            experiment(tmp_path, load, llm={**llm, "budget": {"per_run_usd": 0.25}}).run(run)
        finished_stages = [event for event in run.events if event.type == "stage.finished"]
        assert finished_stages
        result = carry_out(experiment(tmp_path, load, llm={**llm, "budget": {"per_run_usd": 50}}), run)
    assert result.stages[0].ended == "budget"
    assert result.stages[-1].answered == 10


def test_a_strategy_is_measured_through_the_router(tmp_path: Path, runs: Any) -> None:
    load = {"concurrency": [2], "requests": 6, "output_tokens": 4}
    the_experiment = experiment(
        tmp_path, load, mock=["500", "ok-n4"], targets=["strategy:fallback", "500"], llm=LLMConfig()
    )
    with runs("strategy") as run:
        strategy, alone = carry_out(the_experiment, run).stages
    assert (strategy.target, strategy.answered) == ("strategy:fallback", 6)
    assert (alone.answered, alone.errors) == (0, {"ServerFaultError": 6})


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_run_that_is_stopped_or_killed_goes_on_where_it_was(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    agentlab = [sys.executable, "-P", "-m", "agentlab", "llm-bench"]
    env = {**os.environ, "AGENTLAB_HOME": str(tmp_path)}
    first = [
        "demo",
        "--run-name=mine",
        "--set=load.ceiling_seconds=0",
        "--set=mock=[ok-ttft50-n4]",
        "--set=load.warmup=0",
    ]
    first += ["--requests=40", "--concurrency=8,1", "--max-seconds=60"]
    folder = tmp_path / "runs" / "mine"
    with subprocess.Popen([*agentlab, *first], env=env, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while not list(folder.glob("requests/*.jsonl")):  # the first stage is written down, the second under way
            time.sleep(0.02)
            assert process.poll() is None, process.stderr.read()
        time.sleep(0.3)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == code
    assert "Traceback" not in stderr
    assert ("agentlab runs resume mine" in stderr) == (number == signal.SIGINT)
    (stage,) = folder.glob("requests/*.jsonl")
    before = stage.read_bytes()
    done = subprocess.run([*agentlab, "--resume=mine", "--json"], env=env, capture_output=True, text=True, timeout=120)
    stages = json.loads(done.stdout)["result"]["load"]["stages"]
    assert [(row["value"], row["answered"]) for row in stages] == [(8, 40), (1, 40)]
    assert stage.read_bytes() == before


def test_what_this_client_does_before_it_sends_is_not_the_servers_time(tmp_path: Path) -> None:
    """Eight at once, and for each the client has 20 ms of work before: the last one is sent 140 ms late."""
    stage, busy = LoadStage("s", "m", "closed", 8, 8, 0), 0.02

    async def measure(url: str) -> StageOutcome:
        model = client(url, Workspace(root=tmp_path, cache=tmp_path))
        request = ModelRequest("ok-ttft100-itl5-n4", (Message("user", "Count."),))

        def ask(_: int) -> AsyncIterator[Delta]:
            time.sleep(busy)
            return model.stream(request)

        clock = asyncio.get_running_loop().time
        try:
            return await run_stage(stage, ask, Bounds(30, 20), lambda _readings, _now: None, clock)
        finally:
            await model.close()

    with in_process() as url:
        measurement = asyncio.run(measure(url))
    firsts = [reading.stamps[0] - reading.scheduled for reading in measurement.readings]
    assert 0.1 - busy / 2 <= statistics.median(firsts) < 0.1 + 3 * busy  # what is taken off for nothing is a `busy`
    assert max(measurement.lags) > 3 * busy  # that it was late is told instead
