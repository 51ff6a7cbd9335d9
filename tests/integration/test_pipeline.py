"""Pipelines on the real embedded model: answers, what is not asked again, and every fault that a model can have.

Workers are forked from a process that has imported everything, less where their memory is bounded or counted.
"""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentlab.config.workspace import Workspace
from agentlab.errors import AgentlabError
from agentlab.pipeline.store import Store
from agentlab.pipeline.text_store import RunTexts
from agentlab.runs.context import Context
from agentlab.session import FinishedRun, Watch, begin
from tests.unit.bench.mock.running import in_thread
from tests.zygote import FROM_NOTHING, ForkedWithAll

pytestmark = [pytest.mark.model, pytest.mark.usefixtures("forked_workers")]
REPOSITORY = Path(__file__).resolve().parents[2]
MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"
SMALL = {"n_ctx": 512, "n_ubatch": 64, "max_tokens": 8}


def stage(id_: str, **fields: Any) -> dict[str, Any]:
    return {"id": id_, **({} if "models" in fields else {"model": "m"}), **fields}


def config(*stages: dict[str, Any], **settings: Any) -> dict[str, Any]:
    return {
        "models": {"m": {"file": MODEL}, **settings.pop("models", {})},
        "defaults": {**SMALL, **settings.pop("defaults", {})},
        "base_pipeline": {"stages": list(stages)},
        "input": "Why is the sky blue?",
        "resources": {"threads": 1, **settings.pop("resources", {})},
        **settings,
    }


@pytest.fixture
def run(workspace: Path) -> Callable[..., FinishedRun[Any]]:
    """Runs a config in an empty workspace."""

    def carry_out(pipeline_config: dict[str, Any], **options: Any) -> FinishedRun[Any]:
        context = Context(workspace=Workspace.locate(os.environ, workspace), env=dict(os.environ))
        session = begin("pipeline", pipeline_config, [], context=context, runs_dir=context.workspace.runs, **options)
        return session.carry_out(Watch())

    return carry_out


Shell = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def shell(workspace: Path) -> Iterator[Shell]:
    """Starts the command line in the workspace, with this many bytes of address space if that is given."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: str, address_space: int | None = None) -> subprocess.Popen[str]:
        limited = [] if address_space is None else ["prlimit", f"--as={address_space}"]
        process = (FROM_NOTHING if limited else ForkedWithAll)(
            [*limited, sys.executable, "-m", "agentlab", "pipeline", *words],
            cwd=workspace,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


Run = Callable[..., FinishedRun[Any]]


def events(path: Path, type_: str) -> list[dict[str, Any]]:
    all_events = [json.loads(line) for line in (path / "events.jsonl").read_text().splitlines()]
    return [event for event in all_events if event["type"] == type_]


def sources(done: FinishedRun[Any]) -> dict[str, str]:
    return {event["id"]: event["data"]["from"] for event in events(done.path, "call.answered")}


CHAIN = (stage("a"), stage("b", prompt="{{ input }}\n\nSay more."), stage("c", prompt="{{ input }}\n\nSum it up."))


def test_a_chain_hands_its_answers_on(run: Run) -> None:
    done = run(config(*CHAIN))
    assert (done.path / "final.txt").read_text() == done.result.items[0].answer
    assert sources(done) == {"a": "model", "b": "model", "c": "model"}
    assert done.result.loads == 1
    assert "## Resources" in (done.path / "report.md").read_text()
    text = "".join(
        json.loads(line)["data"]["text"]
        for line in (done.path / "stream.jsonl").read_text().splitlines()
        if json.loads(line)["id"] == "c" and json.loads(line)["type"] == "call.text"
    )
    assert text == done.result.items[0].answer


def test_the_same_again_asks_nothing_and_a_change_asks_what_follows(run: Run) -> None:
    first = run(config(*CHAIN))
    second_run = run(config(*CHAIN))
    assert set(sources(second_run).values()) == {"cache"}
    assert second_run.result.loads == 0
    assert second_run.result.items == first.result.items
    changed_chain = (*CHAIN[:2], stage("c", prompt="{{ input }}\n\nList three words."))
    assert sources(run(config(*changed_chain))) == {"a": "cache", "b": "cache", "c": "model"}


def test_an_early_cutoff_spares_what_reads_an_unchanged_answer(run: Run) -> None:
    chosen = {"type": "string", "enum": ["blue"]}
    first = (stage("a", response_schema=chosen), stage("b", prompt="{{ input }}?"))
    run(config(*first))
    second = (stage("a", response_schema=chosen, prompt="{{ input }} Now!"), stage("b", prompt="{{ input }}?"))
    assert sources(run(config(*second))) == {"a": "model", "b": "cache"}


def test_texts_do_not_depend_on_what_the_model_read_before(run: Run, workspace: Path) -> None:
    document = "The lighthouse stands on a rock. " * 20
    asks = [stage(f"q{n}", input_from="input", prompt="{{ input }} Question " + str(n)) for n in range(3)]
    together = run(config(*asks, input=document, cache="off"))
    texts = RunTexts(together.path, Store(workspace / ".agentlab" / "pipeline"))
    read = events(together.path, "call.answered")
    assert [event["data"]["answer"]["reused_tokens"] > 100 for event in read] == [False, True, True]
    for one, event in zip(asks, read, strict=True):
        alone = run(config(one, input=document, cache="off"))
        assert alone.result.items[0].answer == texts.text(event["data"]["sha"])


def test_samples_differ_and_their_vote_is_counted(run: Run) -> None:
    vote = stage(
        "v",
        models=["m"],
        samples=3,
        temperature=1.0,
        response_schema={
            "type": "object",
            "properties": {"n": {"type": "integer", "minimum": 1, "maximum": 9}},
            "required": ["n"],
        },
        aggregation={"method": "vote", "extract": {"pointer": "/n"}, "ties": "first"},
    )
    done = run(config(vote, defaults={"max_tokens": 24}))
    assert len(sources(done)) == 3
    explanation = events(done.path, "stage.finished")[0]["data"]["why"]
    assert sum(group["weight"] for group in explanation["tally"]) + explanation["abstained"] == 3


def test_best_of_takes_what_the_model_was_surest_of(run: Run) -> None:
    done = run(config(stage("b", models=["m", "m"], samples=2, temperature=1.5, aggregation="best_of")))
    marks = events(done.path, "stage.finished")[0]["data"]["why"]["logprobs"]
    assert len(set(marks)) > 1
    assert all(mark < 0 for mark in marks)


def test_a_judge_and_a_synthesis_ask_for_themselves(run: Run) -> None:
    judged = stage("j", samples=2, temperature=1.0, aggregation={"method": "judge", "model": "m"})
    written = stage(
        "s", input_from="input", samples=2, temperature=1.0, aggregation={"method": "synthesis", "model": "m"}
    )
    done = run(config(judged, written, defaults={"n_ctx": 1024}))
    assert {"j/=judge.1", "j/=judge.2", "s/=synthesis"} <= set(sources(done))


def test_a_loop_ends_when_its_condition_holds_or_its_visits_are_used_up(run: Run) -> None:
    once = stage("a", repeat_until={"condition": "visit == 2", "max_visits": 4})
    never = stage("b", repeat_until={"condition": "false", "max_visits": 2}, temperature=1.0)
    done = run(config(once, never))
    assert list(sources(done)) == ["a", "a@2", "b", "b@2"]


def test_a_batch_loads_each_model_once(run: Run, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", FROM_NOTHING)  # what a worker takes of the memory is measured
    (workspace / "in.jsonl").write_text("".join(f'{{"input": "Name {n}", "id": {n}}}\n' for n in range(4)))
    pipeline_config = config(
        stage("a"), stage("b", model="n", prompt="{{ item.id }}: {{ input }}"), models={"n": {"file": MODEL}}
    )
    done = run({**pipeline_config, "input": None, "inputs": "in.jsonl"} | {"resources": {"threads": 1, "ram_gib": 0.3}})
    assert done.result.loads == 2
    lines = [json.loads(line) for line in (done.path / "outputs.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [0, 1, 2, 3]
    assert [line["error"] for line in lines] == [None] * 4


def test_one_bad_item_does_not_lose_the_others(run: Run, workspace: Path) -> None:
    (workspace / "in.jsonl").write_text('"short"\n' + json.dumps("word " * 3000) + '\n"also short"\n')
    with pytest.raises(AgentlabError, match="1 of 3 inputs failed; the first was 0002") as caught:
        run({**config(stage("a")), "input": None, "inputs": "in.jsonl"})
    assert caught.value.run is not None
    lines = [json.loads(line) for line in (Path(caught.value.run["path"]) / "outputs.jsonl").read_text().splitlines()]
    assert [line["error"] is None for line in lines] == [True, False, True]


def test_a_remote_stage_answers_beside_a_local_one(run: Run) -> None:
    """The remote answer takes two seconds, in which the local model says all it has to say."""
    with in_thread() as server:
        llm = {
            "providers": {"mock": {"kind": "openai_compat", "base_url": server.url}},
            "models": {"cloud": {"provider": "mock", "id": "ok-ttft2000-n3"}},
            "roles": {"primary": ["cloud"]},
        }
        far = {"far": {"provider": "router", "model": "cloud"}}
        both = (stage("a", model="far"), stage("b", input_from="input"), stage("c", input_from=["a", "b"]))
        done = run(config(*both, models=far, llm=llm))
    answered = {event["id"]: event["t"] for event in events(done.path, "call.answered")}
    loaded = events(done.path, "model.loaded")[0]["t"]
    assert loaded < answered["b"] < answered["a"] < answered["c"]
    assert "0 1 2" in (done.path / "report.md").read_text()


def test_a_remote_model_that_fails_is_stood_in_for_by_a_local_one(run: Run) -> None:
    with in_thread() as server:
        llm = {
            "providers": {"mock": {"kind": "openai_compat", "base_url": server.url}},
            "models": {"cloud": {"provider": "mock", "id": "401"}},
            "roles": {"primary": ["cloud"]},
        }
        far = {"far": {"provider": "router", "model": "cloud"}}
        done = run(config(stage("a", model="far", fallback_models=["m"]), models=far, llm=llm))
    assert events(done.path, "call.failed")[0]["data"]["model"] == "far"
    assert events(done.path, "call.answered")[0]["data"]["answer"]["model"] == "m"


# -- faults ---------------------------------------------------------------------------------------------------------


def worker_pids(parent: int) -> list[int]:
    """Processes of workers that `parent` started."""
    pids = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with_suppressed = path.read_text().rpartition(")")[2].split() if path.exists() else []
        if with_suppressed and int(with_suppressed[1]) == parent:
            command = (path.parent / "cmdline").read_bytes()
            if b"agentlab.gguf.worker" in command:
                pids.append(int(path.parent.name))
    return pids


def test_a_worker_that_is_killed_in_mid_answer_is_replaced(run: Run) -> None:
    killed: list[float] = []

    def kill_when_it_speaks() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not killed:
            for path in Path("runs").glob("*/stream.jsonl"):
                pids = worker_pids(os.getpid())
                if "call.text" in path.read_text() and pids:
                    os.kill(pids[0], signal.SIGKILL)
                    killed.append(time.time())
                    return
            time.sleep(0.01)

    thread = threading.Thread(target=kill_when_it_speaks)
    thread.start()
    done = run(config(stage("a", max_tokens=120), defaults={"n_ctx": 512}))
    thread.join()
    failed = events(done.path, "call.failed")
    assert [event["data"]["kind"] for event in failed] == ["WorkerDiedError"]
    assert failed[0]["t"] - killed[0] < 2, "too slow"
    fresh = run(config(stage("a", max_tokens=120), cache="off"))
    assert done.result.items == fresh.result.items


def broken(workspace: Path, size: int) -> str:
    """A copy of the model, cut off where its header does not show it: weights that are not there."""
    content = (REPOSITORY / "models" / MODEL).read_bytes()
    (workspace / "broken.gguf").write_bytes(content[:size])
    return "broken.gguf"


def test_a_truncated_file_is_found_before_anything_runs(run: Run, workspace: Path) -> None:
    name = broken(workspace, 50 << 20)
    before = os.times()
    with pytest.raises(AgentlabError, match="truncated"):
        run(config(stage("a"), models={"m": {"file": f"./{name}"}}))
    assert sum(os.times()[:4]) - sum(before[:4]) < 2  # of processor time, that of other processes included
    assert not Path("runs").exists()


def test_a_timeout_inside_the_prompt_falls_back_at_once(run: Run) -> None:
    slow = stage("a", timeout_s=0.3, fallback_models=["n"], prompt="{{ input }}" + " word" * 350)
    pipeline_config = config(
        slow, models={"n": {"file": MODEL, "overrides": {"n_ctx": 1024}}}, defaults={"n_ubatch": 512}
    )
    with pytest.raises(AgentlabError, match=r"0\.3 seconds") as caught:
        run(pipeline_config)
    assert caught.value.run is not None
    path = Path(caught.value.run["path"])
    loads, failures = events(path, "model.loaded"), events(path, "call.failed")
    assert [event["data"]["model"] for event in failures] == ["m", "n"]
    assert max(failed["t"] - loaded["t"] for loaded, failed in zip(loads, failures, strict=True)) < 2.3, "too slow"


def test_on_error_hands_on_a_default(run: Run) -> None:
    slow = stage("a", timeout_s=0.05, on_error="default", default="nothing", prompt="{{ input }}" + " word" * 350)
    done = run(config(slow, stage("b", prompt="{{ input }} is the word.")))
    assert [event["data"]["status"] for event in events(done.path, "stage.finished")] == ["default", "done"]


def test_want_of_memory_climbs_down_the_ladder(shell: Shell, workspace: Path) -> None:
    """An address space that holds a cache of 8,192 tokens in 8 bits, but not in 16."""
    pipeline_config = config(stage("a"), defaults={"n_ctx": 8192, "n_ubatch": 64, "flash_attn": True})
    (workspace / "large.yaml").write_text(json.dumps(pipeline_config))
    for name in ("large", "again"):
        process = shell("large.yaml", "--run-name", name, address_space=430 << 20)
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr
    first, second_run = workspace / "runs" / "large", workspace / "runs" / "again"
    failed = events(first, "call.failed")
    assert [event["data"]["rung"] for event in failed] == ["batch size 32", "an 8-bit KV cache"]
    assert all("memory" in event["data"]["message"] or "allocate" in event["data"]["message"] for event in failed)
    times = [event["t"] for event in (*events(first, "inputs.taken"), *failed)]
    steps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert max(steps) < 2, "too slow"  # the worker's start included
    assert (events(second_run, "model.loaded"), events(second_run, "call.failed")) == ([], [])
    assert (second_run / "final.txt").read_text() == (first / "final.txt").read_text()


def test_more_memory_asks_again_what_a_want_of_it_has_changed(shell: Shell, workspace: Path) -> None:
    pipeline_config = config(stage("a"), defaults={"n_ctx": 8192, "n_ubatch": 64})
    (workspace / "large.yaml").write_text(json.dumps(pipeline_config))
    for room, name in (("2", "small"), ("3", "large")):
        room_of = ("--set", f"resources.ram_gib={room}")
        process = shell("large.yaml", "--run-name", name, *room_of, address_space=(430 << 20) if room == "2" else None)
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr
    assert len(events(workspace / "runs" / "small", "call.failed")) == 2
    assert len(events(workspace / "runs" / "large", "model.loaded")) == 1


def test_a_schema_without_a_grammar_falls_back_at_once(run: Run) -> None:
    schema = {"type": "string", "pattern": "^[a-z]{100000}$"}
    done = run(config(stage("a", response_schema=schema, on_error="default", default="nothing")))
    (failed,), (loaded,) = events(done.path, "call.failed"), events(done.path, "model.loaded")
    assert failed["data"]["kind"] == "BadRequestError"
    assert failed["t"] - loaded["t"] < 2, "too slow"
    assert done.result.items[0].answer == "nothing"


def test_too_little_memory_is_refused_before_anything_is_loaded(run: Run) -> None:
    with pytest.raises(AgentlabError) as caught:
        run(config(stage("a"), resources={"ram_gib": 0.05}))
    assert caught.value.exit_code == 5
    assert "MiB" in caught.value.message
    assert not Path("runs").exists()


def test_an_input_that_is_too_long_says_so(run: Run, workspace: Path) -> None:
    (workspace / "long.txt").write_text("word " * 200_000)
    with pytest.raises(AgentlabError, match="in a context of 512 tokens"):
        run({**config(stage("a")), "input": None, "input_file": "long.txt"})


def test_a_long_input_may_be_cut_or_given_more_room(run: Run) -> None:
    long = "word " * 700
    cut = run(config(stage("a", overflow="truncate"), input=long))
    grown = run(config(stage("a", overflow="grow"), input=long))
    assert "of the input" in events(cut.path, "call.failed")[-1]["data"]["rung"]
    assert events(cut.path, "call.answered")[0]["data"]["answer"]["prompt_tokens"] <= 512 - 8
    assert "a context of 1024" in {event["data"]["rung"] for event in events(grown.path, "call.failed")}
    second_run = run(config(stage("a", overflow="truncate"), input=long))
    assert (second_run.result.loads, second_run.result.items) == (0, cut.result.items)


# -- kills ----------------------------------------------------------------------------------------------------------

SIX = [stage(f"s{n}", prompt="{{ input }}\n\nGo on.", max_tokens=16) for n in range(6)]


@pytest.mark.parametrize("stop_signal", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_stopped_goes_on_to_the_same_end(
    run: Run, shell: Shell, workspace: Path, stop_signal: signal.Signals
) -> None:
    (workspace / "six.yaml").write_text(json.dumps(config(*SIX, cache="off")))
    uninterrupted = run(config(*SIX, cache="off"))
    process = shell("six.yaml", "--run-name", "stopped")
    folder = workspace / "runs" / "stopped"
    deadline = time.monotonic() + 120
    while not (folder / "events.jsonl").exists() or len(events(folder, "call.answered")) < 3:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, stop_signal)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == (-9 if stop_signal is signal.SIGKILL else 130), stderr
    answered = len(events(folder, "call.answered"))
    assert answered < 6
    resumed = shell("--resume", "stopped", "--json")
    out, stderr = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, stderr
    assert json.loads(out)["result"]["items"][0]["answer"] == uninterrupted.result.items[0].answer
    assert len(events(folder, "call.answered")) == 6
    assert not worker_pids(process.pid)


def test_a_resume_keeps_how_a_stage_ended(
    run: Run, shell: Shell, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stage that fell back to its default stays so, even if its model would answer by now."""
    slow = stage("a", timeout_s=0.05, on_error="default", default="nothing", prompt="{{ input }}" + " word" * 350)
    pipeline_config = config(slow, stage("b", max_tokens=100), cache="off")
    (workspace / "slow.yaml").write_text(json.dumps(pipeline_config))
    process = shell("slow.yaml", "--run-name", "slow")
    folder = workspace / "runs" / "slow"
    deadline = time.monotonic() + 60
    while not (folder / "events.jsonl").exists() or not events(folder, "stage.finished"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    config_file = folder / "config.yaml"
    config_file.write_text(config_file.read_text().replace("timeout_s: 0.05", "timeout_s: 60.0"))
    out, stderr = shell("--resume", "slow", "--json").communicate(timeout=120)
    assert json.loads(out)["run"]["status"] == "completed", stderr
    assert [event["id"] for event in events(folder, "stage.finished")] == ["a", "b"]
    assert {event["id"] for event in events(folder, "call.answered")} == {"b"}


def test_a_rerun_takes_over_what_lies_before(run: Run, shell: Shell) -> None:
    parent = run(config(*SIX[:4]), run_name="parent")
    process = shell(
        "rerun",
        "parent",
        "--from",
        "s2",
        "--set",
        "base_pipeline.stages.s2.max_tokens=5",
        "--run-name",
        "child",
        "--json",
    )
    out, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    child = Path(json.loads(out)["run"]["path"])
    origin = {event["id"]: event["data"]["from"] for event in events(child, "call.answered")}
    assert origin == {"s0": "parent", "s1": "parent", "s2": "model", "s3": "model"}
    assert json.loads((child / "manifest.json").read_text())["parent"] == "parent"
    assert parent.result.items != json.loads(out)["result"]["items"]


def test_a_rerun_refuses_a_change_before_its_stage(run: Run, shell: Shell) -> None:
    run(config(*SIX[:2]), run_name="parent")
    process = shell("rerun", "parent", "--from", "s1", "--set", "base_pipeline.stages.s0.max_tokens=5")
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "--from s0" in stderr
