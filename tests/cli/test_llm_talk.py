"""`agentlab llm ask` and `agentlab llm chat` through pipes and at a terminal, with a scripted model."""

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Answer
from tests.unit.bench.mock.running import in_thread
from tests.unit.gguf.test_metadata import write_model

Call = Callable[..., Answer]
REPOSITORY = Path(__file__).resolve().parents[2]
REPLIES = "--set=providers.script={kind: scripted, mode: replies, replies: [One river., Two rivers.]}"
SCRIPTED = ("--set=llm=scripted", REPLIES)


def _env() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY)}


def piped(
    workspace: Path, stdin_bytes: bytes | None, *words: str, stdin: Any = None
) -> "subprocess.CompletedProcess[str]":
    """A process of its own, with that on its standard input."""
    done = subprocess.run(
        [sys.executable, "-m", "agentlab", "llm", words[0], *SCRIPTED, *words[1:]],
        **({"stdin": stdin} if stdin_bytes is None else {"input": stdin_bytes}),
        capture_output=True,
        cwd=workspace,
        env=_env(),
        timeout=60,
        check=False,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def test_a_question_gets_its_answer_and_nothing_else_on_stdout(agentlab: Call) -> None:
    answer = agentlab("llm", "ask", "Name a river.", *SCRIPTED)
    assert (answer.code, answer.out) == (0, "One river.\n")
    document = agentlab("llm", "ask", "Name a river.", "--json", *SCRIPTED).json
    (turn,) = document["result"]["turns"]
    assert turn["question"] == "Name a river."
    assert [(reply["speaker"], reply["text"], reply["finish"]) for reply in turn["answers"]] == [
        ("scripted", "One river.", "stop")
    ]


@pytest.mark.parametrize("words", [[], ["-"]])
def test_a_question_may_come_through_a_pipe(workspace: Path, words: list[str]) -> None:
    done = piped(workspace, "Où est la\nrivière ?\n".encode(), "ask", *words, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["result"]["turns"][0]["question"] == "Où est la\nrivière ?\n"


@pytest.mark.parametrize(
    ("stdin_bytes", "words"),
    [
        (b"", "No question"),
        (b" \n", "No question"),
        (b"\xff\xfe", "not UTF-8"),
        (b"x" * ((1 << 20) + 1), "longer than 1 MiB"),
    ],
)
def test_what_is_no_question_is_refused(workspace: Path, stdin_bytes: bytes, words: str) -> None:
    done = piped(workspace, stdin_bytes, "ask")
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr


def test_a_broken_or_closed_stream_and_half_a_character_are_no_questions(workspace: Path) -> None:
    broken = os.open("/proc/self/mem", os.O_RDONLY)  # nothing is mapped where it begins
    assert "Standard input cannot be read: Input/output error" in piped(workspace, None, "ask", stdin=broken).stderr
    os.close(broken)
    script = f"exec {sys.executable} -m agentlab llm ask <&-"
    closed = subprocess.run(["sh", "-c", script], capture_output=True, cwd=workspace, check=False, env=_env())
    assert closed.returncode == 2
    assert b"No question" in closed.stderr
    for words in ([b"a \xff"], ["a", "--system", b"\xff"]):
        odd = subprocess.run(
            [sys.executable, "-m", "agentlab", "llm", "ask", *words], capture_output=True, check=False, env=_env()
        )
        assert (odd.returncode, b"not UTF-8" in odd.stderr) == (2, True)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["ask", "hi", "--adapter", "nobody"], 2, "no adapter named 'nobody'"),
        (["ask", "hi", "--adapter", "./nobody"], 3, "No such adapter folder"),
        (["ask", "hi", "--adapter", ""], 2, "after --adapter is empty"),
        (["ask", "hi", "--adapter", ".."], 2, "no adapter named '..'"),
        (["ask", "hi", "--adapter", "/"], 3, "adapter_config.json"),
        (["ask", "hi", "--adapter", "./" + "x" * 300], 3, "Cannot use"),
        (["ask", "hi", "--adapter", "~nosuchuser/x"], 2, "home folder"),
        (["ask", "hi", "--model", "/"], 2, "not a checkpoint folder"),
        (["ask", "hi", "--model", "/dev/zero"], 2, "not a checkpoint folder"),
        (["ask", "hi", "--model", "nobody"], 2, "no model named 'nobody'"),
        (["ask", "hi", "--set", "llm=nobody"], 2, "'nobody'"),
        (["ask", "hi", "--set", "llm={}"], 2, "name of a preset"),
        (["ask", "hi", "--temperature", "3"], 2, "temperature"),
        (["ask", "hi", "--max-tokens", "0"], 2, "max-tokens"),
        (["ask", "hi", "--set", "llm=none"], 4, "No language model is configured"),
        (["chat", "--set", "llm=openrouter"], 3, "OPENROUTER_API_KEY"),
    ],
)
def test_wrong_input(agentlab: Call, words: list[str], code: int, message: str) -> None:
    answer = agentlab("llm", *words)
    assert (answer.code, answer.out) == (code, "")
    assert message in answer.err


def test_show_tells_what_is_not_there(agentlab: Call, workspace: Path) -> None:
    path = workspace / "mine.yaml"
    path.write_text(
        "providers: {here: {kind: hf, model_path: small, adapter: nobody},"
        " file: {kind: gguf, model_path: m.gguf, adapter: nobody}, gone: {kind: gguf, model_path: gone}}\n"
        "models: {a: {provider: here, id: a}, b: {provider: file, id: b}, c: {provider: gone, id: c}}\n"
        "roles: {primary: [a, b, c]}\n"
    )
    small = workspace / "models" / "small"
    small.mkdir(parents=True)
    for file in (small / "config.json", small / "model.safetensors"):
        file.write_bytes(b"{}")
    write_model(workspace / "models" / "m.gguf")
    answer = agentlab("llm", "show", "./mine.yaml")
    assert answer.code == 0
    assert answer.out.count("Not usable:") == 3
    assert "here.adapter: there is no adapter" in answer.out
    assert "file.adapter: there is no adapter file" in answer.out
    lines = agentlab("llm", "show", "./mine.yaml", "--json").json["result"]["providers"]
    assert ["'gone'" in (line["problem"] or "") for line in lines] == [False, False, True]
    assert agentlab("llm", "show", "--json").json["result"]["providers"][0]["problem"] is None


def test_a_chat_through_a_pipe_answers_line_by_line_and_ends_with_it(workspace: Path) -> None:
    stdin_bytes = b"Name a river.\n\n/system Be short.\n/nonsense\n/reset\nAnother?\n"
    done = piped(workspace, stdin_bytes, "chat")
    assert (done.returncode, done.stdout) == (0, "One river.\nTwo rivers.\n"), done.stderr
    assert "Be short." in done.stderr
    assert "unknown command /nonsense; known: /system" in done.stderr
    exited = piped(workspace, b"One?\n/exit\nTwo?\n", "chat", "--json")
    assert [turn["question"] for turn in json.loads(exited.stdout)["result"]["turns"]] == ["One?"]
    closed = subprocess.run(
        ["sh", "-c", f"exec {sys.executable} -m agentlab llm chat <&-"], capture_output=True, check=False, env=_env()
    )
    assert closed.returncode == 0


def test_a_failure_ends_a_chat_through_a_pipe_with_its_code(workspace: Path) -> None:
    done = piped(workspace, b"Who?\n", "chat", "--set=providers.script={kind: scripted, mode: refuse}")
    assert done.returncode == 4
    assert "refuse" in done.stderr


class Terminal:
    """A chat at a terminal."""

    def __init__(self, workspace: Path, *words: str) -> None:
        self._handle, child_end = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "agentlab", "llm", "chat", *words],
            stdin=child_end,
            stdout=child_end,
            stderr=child_end,
            cwd=workspace,
            env=_env(),
            start_new_session=True,
        )
        os.close(child_end)
        self._seen = b""

    def type(self, text: str) -> None:
        os.write(self._handle, text.encode())

    def interrupt(self) -> None:
        """Ctrl-C, as late as a person is: readline loses a signal between its prompt and its wait for a key."""
        time.sleep(0.5)
        self.process.send_signal(signal.SIGINT)

    def wait_for(self, text: str) -> None:
        """What comes after the last thing that was waited for."""
        deadline = time.monotonic() + 60
        while text.encode() not in self._seen:
            if time.monotonic() > deadline:
                self.close()
                pytest.fail(f"{text!r} does not come: {self._seen!r}")
            if select.select([self._handle], [], [], 0.2)[0]:
                self._seen += os.read(self._handle, 65536)
        self._seen = self._seen.partition(text.encode())[2]

    def end(self) -> int:
        try:
            return self.process.wait(timeout=60)
        finally:
            self.close()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(OSError):
            os.close(self._handle)


def test_ctrl_c_stops_an_answer_and_twice_leaves(workspace: Path) -> None:
    chat = Terminal(workspace, "--set=llm=scripted", "--set=providers.script={kind: scripted, mode: stuck}")
    chat.wait_for("> ")
    chat.type("Who?\n")
    chat.wait_for("Who?")
    time.sleep(1)
    chat.interrupt()
    chat.wait_for("again to exit")
    chat.wait_for("> ")
    chat.type("/help\n")
    chat.wait_for("/reset")
    chat.wait_for("> ")
    chat.interrupt()  # the line between them makes it the first one again
    chat.wait_for("again to exit")
    chat.wait_for("> ")
    chat.interrupt()
    assert chat.end() == 130


@pytest.mark.model
def test_a_real_answer_is_stopped_in_its_middle_and_the_same_worker_answers_on(workspace: Path) -> None:
    chat = Terminal(workspace, "--max-tokens", "900")
    chat.wait_for("> ")
    chat.type("Tell me a long story about a lighthouse.\n")
    chat.wait_for("lighthouse.")
    chat.wait_for(" the ")
    chat.interrupt()
    chat.wait_for("again to exit")
    chat.wait_for("> ")
    chat.type("What is the capital of France?\n")
    chat.wait_for("France?")
    chat.wait_for("Paris")
    chat.wait_for("> ")
    chat.type("/exit\n")
    assert chat.end() == 0


def test_at_a_terminal_a_failure_is_told_and_the_end_of_the_input_leaves(workspace: Path) -> None:
    chat = Terminal(
        workspace,
        "--set=llm=scripted",
        "--set=providers.script={kind: scripted, mode: refuse}",
        "--set=defaults.retries=0",
    )
    chat.wait_for("> ")
    chat.type("Who?\n")
    chat.wait_for("refused the connection")
    chat.wait_for("> ")
    chat.type("\x04")
    assert chat.end() == 0


@pytest.fixture
def broken_first(workspace: Path) -> Iterator[str]:
    """A config whose first model breaks off within its answer, or calls a tool that nobody offered."""
    with in_thread() as server:
        config = workspace / "configs" / "llm" / "broken.yaml"
        config.parent.mkdir(parents=True, exist_ok=True)
        tree = {
            "providers": {"mock": {"kind": "openai_compat", "base_url": server.url}},
            "models": {name: {"provider": "mock", "id": name} for name in ("close-3-of-8", "tool", "ok-n8")},
            "roles": {"primary": ["close-3-of-8"], "fallback": ["ok-n8"]},
            "defaults": {"retries": 0},
        }
        config.write_text(json.dumps(tree))
        yield "--set=llm=broken"


def test_what_was_not_shown_yet_comes_from_another_model(agentlab: Call, broken_first: str) -> None:
    (turn,) = agentlab("llm", "ask", "Count.", "--json", broken_first).json["result"]["turns"]
    assert [(reply["model"], reply["text"]) for reply in turn["answers"]] == [("ok-n8", "0 1 2 3 4 5 6 7")]
    interrupted = agentlab("llm", "ask", "Count.", broken_first)
    assert (interrupted.code, interrupted.out.startswith("0 1 2")) == (4, True)
    assert "broke off" in interrupted.err


@pytest.mark.parametrize("mode", [[], ["--json"]])
def test_a_tool_call_that_nobody_asked_for_is_not_shown_as_an_answer(
    agentlab: Call, broken_first: str, mode: list[str]
) -> None:
    answer = agentlab("llm", "ask", "Count.", broken_first, '--set=roles.primary=["tool"]', *mode)
    assert answer.code == 0
    text = answer.json["result"]["turns"][0]["answers"][0]["text"] if mode else answer.out.strip()
    assert text == "0 1 2 3 4 5 6 7"
