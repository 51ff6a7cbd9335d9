"""stdout, stderr and signals as a shell sees them. Real processes, pipes and terminals: slower than most tests."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentlab.config.workspace import Workspace
from agentlab.errors import Interrupted
from agentlab.runs.context import Context
from agentlab.runs.document import Code, Heading, Table, Text
from agentlab.runs.run import OpenRun, RunEnvironment, RunSpec
from cli import screen as screen_module
from cli.launch import _signals
from cli.screen import LiveProgress, Screen
from tests.cli.conftest import TINY, Answer
from tests.zygote import Forked

Call = Callable[..., Answer]
REPOSITORY = Path(__file__).resolve().parents[2]

BLOCKS = (Heading("h"), Text("t"), Code("c"), Table(("a", "b"), [("1", "2")]))


def start(script: str, **streams: object) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", script], cwd=REPOSITORY, **streams)  # type: ignore[call-overload,no-any-return]


def shell(*words: str, env: dict[str, str] | None = None, **streams: object) -> "subprocess.CompletedProcess[bytes]":
    arguments = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        [sys.executable, "-m", "agentlab", *words],
        check=False,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **(env or {})},
        **arguments,
    )


def read_to_end(descriptor: int) -> bytes:
    """All that a terminal showed. Linux ends a terminal with an error."""
    seen = b""
    while True:
        try:
            block = os.read(descriptor, 65536)
        except OSError:
            return seen
        if not block:
            return seen
        seen += block


def test_the_answer_reaches_stdout_although_a_bar_is_on_the_terminal() -> None:
    script = """
from cli.screen import Screen
from tests.cli.test_streams import BLOCKS
screen = Screen()
with screen.progress() as bar:
    bar.update("working", done=1, total=2)
    assert bar._bar is not None
    screen.blocks(BLOCKS)
"""
    ours, theirs = pty.openpty()
    process = start(script, stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    output = read_to_end(ours)
    os.close(ours)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert out.decode() == "\nh\nt\nc\na\tb\n1\t2\n"
    assert b"working" in output


def test_a_closed_stderr_does_not_end_the_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", buffering=1, encoding="utf-8", closefd=False) as broken:
        monkeypatch.setattr(sys, "stderr", broken)
        screen = Screen()
        for _ in range(3):
            screen.say("nobody reads this")
        screen.blocks([Text("the answer")])
        monkeypatch.undo()
        os.dup2(os.open(os.devnull, os.O_WRONLY), writer)
    os.close(writer)
    assert capsys.readouterr().out == "the answer\n"


@pytest.mark.parametrize("words", [("runs", "list", "--json"), ("runs", "show", "nowhere", "--json"), ("--help",)])
def test_a_reader_that_left_ends_the_command_quietly(workspace: Path, words: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = shell(*words, stdout=writer)
    os.close(writer)
    assert done.returncode == 141
    assert b"Traceback" not in done.stderr
    assert b"BrokenPipe" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_under_stdout_exits_3(workspace: Path, unbuffered: str) -> None:
    with Path("/dev/full").open("wb") as full:
        done = shell("runs", "list", stdout=full, env={"PYTHONUNBUFFERED": unbuffered})
    assert done.returncode == 3
    assert done.stderr.decode().splitlines() == ["error: The answer cannot be written: No space left on device."]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_stderr_ends_nothing(workspace: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        for words, code in ((("runs", "list", "--runs-dir", "none"), 0), (("runs", "show", "nowhere", "-v"), 2)):
            assert shell(*words, stderr=full).returncode == code
        done = shell("nas", "demo", "--max-iterations", "1", "--json", *TINY, stderr=full)
    assert (done.returncode, json.loads(done.stdout)["run"]["status"]) == (0, "completed")


def test_a_current_folder_that_is_gone_is_no_bug(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, agentlab: Call
) -> None:
    (workspace / "gone").mkdir()
    monkeypatch.chdir(workspace / "gone")
    (workspace / "gone").rmdir()
    for words in (("runs", "list", "--runs-dir", "x"), ("nas", "demo", "--dry-run"), ("configs", "list")):
        answer = agentlab(*words)
        assert (answer.code, answer.err.splitlines()[0]) == (2, "error: The current folder no longer exists.")
    done = shell("adapters", "list", "--json")  # loads torch, whose MKL would end the process
    assert (done.returncode, json.loads(done.stdout)["error"]["exit_code"]) == (2, 2)


def test_a_link_that_leads_to_itself_is_no_bug(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, agentlab: Call
) -> None:
    (workspace / "loop").symlink_to("loop")
    monkeypatch.setenv("AGENTLAB_HOME", "loop")
    answer = agentlab("pipeline", "plan")
    assert answer.code == 3, answer.err
    assert answer.err.startswith("error: ")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        OSError(12, "Cannot allocate memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
        RuntimeError("can't start new thread"),
    ],
)
def test_too_little_memory_is_no_bug(agentlab: Call, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def short(*_: object) -> None:
        raise error

    monkeypatch.setattr("agentlab.runs.store.list_runs", short)
    answer = agentlab("runs", "list")
    assert (answer.code, "There is not enough memory" in answer.err, "ulimit -v" in answer.err) == (3, True, True)


def test_closed_streams_are_no_bug(workspace: Path) -> None:
    command = f"{sys.executable} -m agentlab runs show nowhere --json"
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    silent = subprocess.run(["sh", "-c", f"{command} 2>&-"], env=env, stdout=subprocess.PIPE, check=False)
    assert silent.returncode == json.loads(silent.stdout)["error"]["exit_code"] == 2
    assert subprocess.run(["sh", "-c", f"{command} >&- 2>&-"], env=env, check=False).returncode == 2


def test_a_terminal_without_unicode_gets_valid_json_and_readable_text(workspace: Path) -> None:
    name = os.fsdecode("gr\u00fc\u00dfe\U0001f600".encode() + b"\xff.yaml")
    for words in (("nas", name, "--json"), ("nas", name)):
        done = shell(*words, env={"PYTHONIOENCODING": "ascii:strict"})
        assert done.returncode == 2, done.stderr
        assert b"gr\\xfc\\xdfe" in done.stderr
        if "--json" in words:
            assert name in json.loads(done.stdout.decode("ascii"))["error"]["message"]


def test_hostile_text_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "a\x1b]0;title\x07b\x1b[2J\u009b1m\u202e\u2066"
    screen = Screen()
    screen.blocks([Heading(hostile), Text(hostile), Code(hostile), Table((hostile,), [(hostile,)])])
    screen.say(hostile)
    captured = capsys.readouterr()
    assert not set("\x1b\x07\u009b\u202e\u2066") & set(captured.out + captured.err)
    assert "a\ufffd]0;title\ufffdb" in captured.out


def test_quiet_leaves_only_answer_and_errors(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(quiet=True)
    screen.say("say")
    screen.warn("warn")
    screen.hint("hint")
    screen.error(Interrupted("error"), command="nas")
    assert capsys.readouterr().err == "error: error\n"


def test_leaving_at_once_gives_the_cursor_back(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with LiveProgress(Screen(), None) as bar:
        capfd.readouterr()
        bar.interject("stopping")
        bar.abandon()
        assert capfd.readouterr().err.endswith("\nstopping\n" + screen_module._SHOW_CURSOR.decode())


@contextlib.contextmanager
def searching(workspace: Path) -> Iterator["subprocess.Popen[str]"]:
    """A long search in its first training."""
    words = ["nas", "demo", "--run-name", "mine", "--max-iterations", "500", *TINY]
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with Forked([sys.executable, "-m", "agentlab", *words], env=env, stderr=subprocess.PIPE, text=True) as process:
        try:
            events = workspace / "runs" / "mine" / "events.jsonl"
            while process.poll() is None and not (events.exists() and b"trial.started" in events.read_bytes()):
                time.sleep(0.01)
            yield process
        finally:
            process.kill()


def test_a_second_signal_leaves_at_once_and_the_run_can_be_resumed(workspace: Path, agentlab: Call) -> None:
    with searching(workspace) as process:
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert "stopping after this step" in err
    assert agentlab("runs", "show", "mine", "--json").json["run"]["status"] == "interrupted"
    assert agentlab("runs", "resume", "mine", "--set", "max_iterations=1").code == 0


def test_the_end_of_the_terminal_stops_a_run_like_term(workspace: Path) -> None:
    with searching(workspace) as process:
        process.send_signal(signal.SIGHUP)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 129, err
    assert "hint: agentlab runs resume mine" in err
    assert json.loads((workspace / "runs" / "mine" / "manifest.json").read_text())["status"] == "interrupted"


def test_what_nohup_lets_live_goes_on_after_a_hangup(workspace: Path) -> None:
    signals = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with _signals(Context(Workspace(workspace, workspace), {}), LiveProgress(Screen(), None)):
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, signals)


def test_ctrl_c_outside_a_run_is_one_document_too(agentlab: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("agentlab.runs.store.list_runs", interrupted)
    answer = agentlab("runs", "list", "--json")
    assert answer.code == 130
    assert answer.json["error"] | {"message": ""} == {
        "kind": "Interrupted", "message": "", "hint": None, "exit_code": 130
    }  # fmt: skip


FAILING = (
    ("nas", "nowhere"),
    ("nas", "--max-iterations", "many"),
    ("runs", "list", "--status", "nonsense"),
    ("runs", "show", "nowhere"),
    ("runs", "compare", "nowhere", "nothing"),
    ("runs", "resume", "nowhere"),
    ("runs", "path", "nowhere"),
    ("runs", "rm", "nowhere", "--yes"),
    ("runs", "export", "nowhere"),
    ("runs", "show"),
    ("configs", "list", "nowhere"),
    ("configs", "show", "nowhere"),
    ("configs", "validate", "nowhere.yaml"),
    ("configs", "schema", "nowhere"),
    ("models", "pull", "nowhere"),
    ("models", "import", "nowhere"),
    ("models", "path", "nowhere"),
    ("models", "rm", "nowhere", "--yes"),
    ("init", "/dev/null/x"),
    ("doctor", "--no-such-flag"),
)


@pytest.mark.parametrize("words", FAILING, ids=" ".join)
def test_every_command_fails_with_one_document_that_bears_its_name(agentlab: Call, words: tuple[str, ...]) -> None:
    answer = agentlab(*words, "--json")
    document = answer.json
    assert set(document) == {"schema", "command", "run", "error"}
    assert document["command"] == " ".join(words[: 2 if words[0] in ("runs", "configs", "models") else 1])
    assert document["error"]["exit_code"] == answer.code
    assert answer.code in (2, 3)
    assert hasattr(__import__("agentlab.errors").errors, document["error"]["kind"])
    assert document["error"]["kind"] != "AgentlabError"


def test_a_path_the_system_refuses_is_no_bug(agentlab: Call) -> None:
    long = "x" * 5000
    assert agentlab("nas", f"./{long}.yaml").code == 2
    for words in (("runs", "list", "--runs-dir", long), ("models", "path", f"./{long}")):
        answer = agentlab(*words)
        assert (answer.code, answer.err.count("error: Cannot use")) == (3, 1)
    assert agentlab("nas", "--set", ".".join("a" * 3000) + "=1").code == 2


def test_a_bug_names_the_run_it_ended(agentlab: Call, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("agentlab.nas.run.NasExperiment.run", broken)
    answer = agentlab("nas", "demo", "--run-name", "mine", "--json", *TINY)
    assert answer.code == 70
    assert answer.json["run"] == {"id": "mine", "path": str(workspace / "runs" / "mine"), "status": "failed"}
    assert "ZeroDivisionError" in (workspace / "runs" / "mine" / "log.txt").read_text()


def silent(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("  ... ")]


def test_without_a_terminal_a_long_work_says_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(screen_module, "silence", lambda elapsed: 0.2)
    with Screen().progress() as bar:
        time.sleep(0.3)
        bar.update("0012:draft", done=37, total=600)
        time.sleep(0.3)
    (first, *later_lines) = silent(capsys.readouterr().err.splitlines())
    assert first == "  ... working, 0:00"
    assert later_lines[-1].startswith("  ... 37 of 600, 0012:draft, 0:0")
    time.sleep(0.3)
    assert capsys.readouterr().err == ""


def test_who_talks_need_not_say_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(screen_module, "silence", lambda elapsed: 1.0)
    with Screen().progress() as bar:
        for number in range(15):
            bar.line(f"step {number}")
            time.sleep(0.1)
    assert silent(capsys.readouterr().err.splitlines()) == []


@pytest.mark.parametrize("screen_settings", [{"quiet": True}, {"asking": True}])
def test_nothing_is_said_when_it_is_not_wanted(
    screen_settings: dict[str, bool], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(screen_module, "silence", lambda elapsed: 0.01)
    screen = Screen()
    for name, value in screen_settings.items():
        setattr(screen, name, value)
    with screen.progress():
        time.sleep(0.1)
    assert capsys.readouterr().err == ""


def test_the_longer_it_takes_the_less_is_said() -> None:
    moments, now = [], 0.0
    while now < 3600:
        now += screen_module.silence(now)
        moments.append(now)
    assert moments[0] == 2.0
    assert len([moment for moment in moments if moment <= 60]) < 20
    assert len(moments) < 90
    assert moments[-1] - moments[-2] == 60.0


@pytest.mark.parametrize("words", [("runs", "rm", "mine"), ("models", "rm", "mine")])
def test_nobody_is_asked_through_a_closed_stdin(
    agentlab: Call, workspace: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    OpenRun.create(workspace / "runs", RunSpec("nas", "", "", "h", 0, name="mine"), RunEnvironment()).close()
    monkeypatch.setattr("sys.stdin", None)  # what Python makes of a closed one
    refused = agentlab(*words)
    assert (refused.code, "requires confirmation" in refused.err) == (2, True)
