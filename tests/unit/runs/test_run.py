"""A run folder: whole at every moment, held by one process, free of secrets."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from agentlab.errors import RunLockedError, RunUnreadableError, StorageError, UsageError
from agentlab.runs import journal as journal_module
from agentlab.runs.events import Event, first_event_data, has_changed
from agentlab.runs.manifest import Metric
from agentlab.runs.redact import MASK, Redactor
from agentlab.runs.run import OpenRun, RunEnvironment, RunOutcome, RunSpec
from agentlab.runs.store import find, list_runs

SPEC = RunSpec(command="nas", config_yaml="seed: 0\n", source_yaml="{}\n", config_hash="abc", seed=0, argv=["agentlab"])


def create(folder: Path, **changes: object) -> OpenRun:
    fields = {name: getattr(SPEC, name) for name in SPEC.__slots__} | changes
    return OpenRun.create(folder, RunSpec(**fields), RunEnvironment(clock=lambda: 1_800_000_000.0))


def test_folder_name_tells_time_command_and_a_short_id(tmp_path: Path) -> None:
    with create(tmp_path) as run:
        assert run.id.startswith("2027-01-15T08-00-00-nas-")
        assert len(run.id.rpartition("-")[2]) == 6
        assert {path.name for path in run.path.iterdir()} >= {
            "manifest.json",
            "config.yaml",
            "source.yaml",
            "events.jsonl",
        }


def test_events_are_numbered_and_survive_reopening(tmp_path: Path) -> None:
    with create(tmp_path) as run:
        run.emit("trial.finished", "run_0000", value=0.5)
        path = run.path
    with OpenRun.resume(path, RunEnvironment()) as resumed:
        assert [(e.seq, e.type, e.data) for e in resumed.events] == [(0, "trial.finished", {"value": 0.5})]
        assert resumed.emit("trial.finished", "run_0001").seq == 1


def test_torn_last_line_is_dropped_on_read_and_cut_on_resume(tmp_path: Path) -> None:
    with create(tmp_path) as run:
        run.emit("a.b")
        path = run.path
    content = (path / "events.jsonl").read_bytes()
    (path / "events.jsonl").write_bytes(content + b'{"v":1,"seq":1,"t":')
    assert len(find(tmp_path, path.name).events()) == 1
    with OpenRun.resume(path, RunEnvironment()):
        assert (path / "events.jsonl").read_bytes() == content


def test_damage_in_the_middle_is_an_error_not_a_guess(tmp_path: Path) -> None:
    with create(tmp_path) as run:
        run.emit("a.b")
        run.emit("a.c")
        path = run.path
    lines = (path / "events.jsonl").read_text().splitlines()
    (path / "events.jsonl").write_text(f"garbage\n{lines[1]}\n")
    with pytest.raises(RunUnreadableError, match="line 1"):
        OpenRun.resume(path, RunEnvironment())


def test_a_second_opener_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    with create(tmp_path) as run, pytest.raises(RunLockedError, match=f"pid {os.getpid()}"):
        OpenRun.resume(run.path, RunEnvironment())


def test_lock_of_a_killed_process_is_free_again(tmp_path: Path) -> None:
    script = """
        import os, signal, sys
        from pathlib import Path
        from agentlab.runs.run import OpenRun, RunEnvironment, RunSpec
        run = OpenRun.create(Path(sys.argv[1]), RunSpec("nas", "", "", "h", 0), RunEnvironment())
        run.start({})
        print(run.id, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    record = find(tmp_path, done.stdout.strip())
    assert record.manifest.status == "running"
    assert record.status == "interrupted"
    with OpenRun.resume(record.path, RunEnvironment()) as run:
        run.complete(RunOutcome())
    assert find(tmp_path, record.id).status == "completed"


def test_full_disk_leaves_the_events_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with create(tmp_path) as run:
        run.emit("a.b")
        before = (run.path / "events.jsonl").read_bytes()

        def full(_descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(journal_module.os, "fsync", full)
        with pytest.raises(StorageError, match="disk is full"):
            run.emit("a.c")
        assert (run.path / "events.jsonl").read_bytes() == before
        assert len(run.events) == 1
        monkeypatch.undo()
        assert run.emit("a.c").seq == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_really_full_device_is_a_storage_error(tmp_path: Path) -> None:
    with create(tmp_path) as run:
        run._journal._file.close()
        run._journal._file = Path("/dev/full").open("r+b", buffering=0)  # noqa: SIM115 - closed by the run
        with pytest.raises(StorageError, match="disk is full"):
            run.emit("a.b")


def test_secrets_reach_no_file(tmp_path: Path) -> None:
    key = "sk-or-v1-0123456789abcdef0123456789abcdef"
    edge = RunEnvironment(redactor=Redactor.of({"OPENROUTER_API_KEY": key, "PASSWORD": "correct horse"}))
    spec = RunSpec("nas", "a: 1\n", f"api_key: {key}\n", "h", 0, argv=["agentlab", f"--set=k={key}"])
    with OpenRun.create(tmp_path, spec, edge) as run:
        run.emit("llm.called", answer=f"your key is {key}", nested=[{"a": key}])
        run.stream("token", text=key)
        run.log(f"{key}, correct horse")
        run.write_text("report.md", key)
        run.write_json("x/y.json", {"k": key})
        run.fail("AuthError", key)
        written = b"".join(path.read_bytes() for path in run.path.rglob("*") if path.is_file())
    assert key.encode() not in written
    assert b"correct horse" not in written
    assert written.count(MASK.encode()) >= 8


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "", ".", "a\\b"])
def test_file_names_cannot_leave_the_run(tmp_path: Path, name: str) -> None:
    with create(tmp_path) as run, pytest.raises(UsageError):
        run.file(name)


@pytest.mark.parametrize("name", ["../x", "a/b", "", "last", ".hidden", "x" * 81])
def test_run_names_are_plain_file_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        create(tmp_path, name=name or "/")


def test_taken_run_name_is_refused_and_names_the_way_on(tmp_path: Path) -> None:
    create(tmp_path, name="mine").close()
    with pytest.raises(UsageError, match="already") as caught:
        create(tmp_path, name="mine")
    assert "--resume mine" in str(caught.value.hint)


def test_a_failed_creation_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError):
        create(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_runs_folder_below_a_file_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="part of the path is a file"):
        create(tmp_path / "file" / "runs")


def test_outcome_is_in_the_manifest(tmp_path: Path) -> None:
    with create(tmp_path) as run:
        run.start({"device": "cpu"})
        run.complete(RunOutcome(metrics={"test_mse": Metric(value=0.3, direction="lower")}))
        stored = json.loads((run.path / "manifest.json").read_text())
    assert stored["status"] == "completed"
    assert stored["metrics"] == {"test_mse": {"value": 0.3, "spread": None, "unit": "", "direction": "lower"}}
    assert [e.type for e in find(tmp_path, "last").events()] == ["run.started", "run.completed"]


def _hold(path: str, ready: "multiprocessing.synchronize.Event") -> None:
    with OpenRun.resume(Path(path), RunEnvironment()):
        ready.set()
        signal.pause()


def test_active_run_is_seen_from_another_process(tmp_path: Path) -> None:
    with create(tmp_path) as run:
        path = run.path
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Event()
    holder = spawn.Process(target=_hold, args=(str(path), ready))
    holder.start()
    try:
        assert ready.wait(30)
        assert find(tmp_path, "last").active
    finally:
        holder.kill()
        holder.join()
    assert not find(tmp_path, "last").active


def test_list_skips_what_it_cannot_read_and_says_so(tmp_path: Path) -> None:
    create(tmp_path, name="good").close()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "manifest.json").write_text("{")
    listing = list_runs(tmp_path)
    assert [run.id for run in listing.runs] == ["good"]
    assert [name for name, _ in listing.unreadable] == ["broken"]


def test_event_refuses_nan() -> None:
    with pytest.raises(ValueError, match="JSON"):
        Event(0, 0.0, "a.b", data={"x": float("nan")}).to_json()


def test_a_larger_budget_reopens_a_complete_run_before_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the two writes, the run must not look complete with a budget it has not spent."""
    with create(tmp_path) as run:
        run.complete(RunOutcome())
        monkeypatch.setattr(run, "write_text", lambda *_: None)  # the second write never happens
        run.record_budget("max_iterations: 9\n")
        assert find(tmp_path, "last").manifest.status == "interrupted"
        monkeypatch.undo()
        run.record_budget("max_iterations: 9\n")
        assert (run.path / "config.yaml").read_text() == "max_iterations: 9\n"


def test_a_trace_goes_into_the_log_and_a_full_disk_does_not_hide_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with create(tmp_path) as run:
        run.fail("ValueError", "oops", trace="the trace")
        assert "the trace" in (run.path / "log.txt").read_text()
        monkeypatch.setattr(os, "fsync", full)
        run.fail("ValueError", "oops", trace="the trace")
    assert find(tmp_path, "last").status == "failed"


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b"\xff", b"null", b'{"schema_version": "x"}', b"{}" + b" " * (5 << 20)]
)
def test_a_hostile_manifest_is_one_unreadable_run_and_not_the_end_of_the_list(tmp_path: Path, content: bytes) -> None:
    create(tmp_path, name="good").close()
    create(tmp_path, name="bad").close()
    (tmp_path / "bad" / "manifest.json").write_bytes(content)
    listing = list_runs(tmp_path)
    assert [run.id for run in listing.runs] == ["good"]
    assert [name for name, _ in listing.unreadable] == ["bad"]


def test_a_hostile_events_file_is_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with create(tmp_path, name="bad") as run:
        run.emit("a.b")
        content = (run.path / "events.jsonl").read_bytes()
    path = tmp_path / "bad" / "events.jsonl"
    path.write_bytes(b"[" * 100_000 + b"\n" + content)
    with pytest.raises(RunUnreadableError, match="line 1"):
        journal_module.read_events(path)
    monkeypatch.setattr(journal_module, "_MAX_LINE", 1000)
    path.write_bytes(content + b"x" * 1000)
    with pytest.raises(RunUnreadableError, match="not an event"):
        journal_module.read_events(path)


def _live(folder: Path) -> None:
    """Everything that writes in the life of a run that is extended once."""
    with create(folder, name="x") as run:
        for budget in ("a: 1\n", "a: 2\n"):
            run.record_budget(budget)
            run.start({})
            run.emit("trial.started", "run_0000")
            run.write_json("agent_state.json", {})
            run.complete(RunOutcome())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_before_any_write_reaches_the_disk_leaves_a_readable_run(tmp_path: Path) -> None:
    original, moments = os.fsync, 0
    while True:
        moments += 1
        folder = tmp_path / str(moments)
        child = os.fork()
        if child == 0:
            remaining_syncs = moments

            def fsync(descriptor: int) -> None:
                nonlocal remaining_syncs
                remaining_syncs -= 1
                if not remaining_syncs:
                    os.kill(os.getpid(), signal.SIGKILL)
                original(descriptor)

            os.fsync = fsync
            try:
                _live(folder)
            finally:
                os._exit(0)
        killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
        listing = list_runs(folder)
        assert not listing.unreadable
        for record in listing.runs:
            assert record.status in ("interrupted", "completed")
            assert record.text("config.yaml") in ("seed: 0\n", "a: 1\n", "a: 2\n")
            with OpenRun.resume(record.path, RunEnvironment()) as run:
                run.start({})
                run.complete(RunOutcome())
            assert [e.seq for e in record.events()] == list(range(len(record.events())))
            assert not list(record.path.rglob(".*"))
        if not killed:
            break
    assert moments > 20


def test_an_event_that_a_resume_does_not_repeat(tmp_path: Path) -> None:
    with OpenRun.create(tmp_path, SPEC, RunEnvironment()) as run:
        run.emit_once("data.read", "a", rows=1)
        path = run.path
    with OpenRun.resume(path, RunEnvironment()) as run:
        run.emit_once("data.read", "a", rows=2)
        run.emit_once("data.read", "b", rows=3)
        assert run.has("data.read", "b")
        assert not run.has("data.read")
        assert [first_event_data(run.events, "data.read", id_).get("rows") for id_ in ("a", "b", "c")] == [1, 3, None]


def test_a_run_goes_on_with_the_input_it_was_begun_with() -> None:
    before = {"sha256": "1"}
    assert not has_changed(before, sha256="1", unsaid="x")
    assert not has_changed({}, sha256="2")
    assert has_changed(before, sha256="2")
