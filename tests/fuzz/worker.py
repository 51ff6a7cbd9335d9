"""Meets cases, one after the other, in a process that has imported everything. The driver replaces it when it dies.

It reads a case a line from stdin and answers with a line: what was wrong with it.
"""

import errno
import faulthandler
import hashlib
import ipaddress
import json
import os
import re
import resource
import shutil
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from tests.fuzz.case import Case
from tests.fuzz.gateway import answer_requests

REPOSITORY = Path(__file__).resolve().parents[2]
START = f'File "{REPOSITORY}/'
ALLOWED = {0, 1, 2, 3, 4, 5, 130, 143}
WITH_TRACEBACK = {"-v", "--verbose", "--debug"}
CPU_SECONDS = 5.0
STUCK_SECONDS = 60.0  # on the clock of the wall, which other programs share
MEMORY = 4 << 30  # more than a worker takes when it starts
FILE_BYTES = 64 << 20
LARGEST_READ = 4 << 20
MEMORY_WORDS = "There is not enough memory"
_bugs: list[str] = []


def main(root: Path, shelf: Path, canaries: list[str]) -> None:
    """Answer until stdin ends."""
    orders, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    log = (root / "log").open("w+b")
    for number, mode in ((0, os.O_RDONLY), (1, None), (2, None)):
        os.dup2(log.fileno() if mode is None else os.open(os.devnull, mode), number)
    _set_limits()
    _stay_on_this_machine()
    _note_bugs()
    for line in orders:
        order = json.loads(line)
        if order == "fill":
            from tests.fuzz.shelf import fill

            fill(shelf)
            findings: list[dict[str, str]] = []
        else:
            findings = _meet(Case.from_json(order), root, shelf, canaries)
        answers.write(json.dumps(findings) + "\n")
        answers.flush()


def _set_limits() -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _stay_on_this_machine() -> None:
    """Let nothing but loopback be reached, as if the cable were out."""

    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def connected(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and not _is_loopback(address[0]):
            raise OSError(errno.ENETUNREACH, "Network is unreachable")
        connect(self, address)

    def looked_up(host: Any, *args: Any, **options: Any) -> Any:
        if host is not None and not _is_loopback(host):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return look_up(host, *args, **options)

    socket.socket.connect = connected  # type: ignore[method-assign, assignment]
    socket.getaddrinfo = looked_up


def _is_loopback(host: Any) -> bool:
    name = host.decode(errors="replace") if isinstance(host, bytes) else str(host)
    try:
        return name in ("", "localhost") or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _note_bugs() -> None:
    """The boundary shows a bug without its traceback; keep it for the report."""
    from cli import main as boundary

    original = boundary._bug

    def noted(bug: Exception) -> Any:
        _bugs.append("".join(traceback.format_exception(bug)))
        return original(bug)

    boundary._bug = noted


def _meet(case: Case, root: Path, shelf: Path, canaries: list[str]) -> list[dict[str, str]]:
    """Run a case in a workspace of its own and say what was wrong."""
    case_folder = root / "case"
    shutil.rmtree(case_folder, ignore_errors=True)
    workspace, neighbour = case_folder / "workspace", case_folder / "neighbour"
    workspace.mkdir(parents=True)
    neighbour.mkdir()
    (neighbour / "kept.txt").write_text("kept")
    case.write(workspace, shelf)
    before = _tree(case_folder, workspace)
    findings = []
    os.environ["AGENTLAB_HOME"] = str(workspace)
    for words in case.lines:
        os.chdir(workspace)
        start = time.process_time()
        code, output = _run(words)
        findings += _judge(words, code, output, time.process_time() - start, canaries)
    os.chdir(root)
    changed = set(_tree(case_folder, workspace).items()) ^ set(before.items())
    if changed:
        findings.append({"kind": "outside changed", "where": str(sorted(changed))[:300]})
    leaks = [path for path in case_folder.rglob("*") if any(canary.encode() in _bytes(path) for canary in canaries)]
    return findings + [{"kind": "canary in a file", "where": str(path.relative_to(case_folder))} for path in leaks]


def _run(words: list[str]) -> tuple[int, str]:
    """The exit code of a command line, and all that it printed."""
    from cli.main import main as agentlab

    os.ftruncate(1, 0)
    os.lseek(1, 0, os.SEEK_SET)
    for name, number in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        stream = open(number, "w" if number else "r", encoding="utf-8", closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    _bugs.clear()
    program, *arguments = words
    with Path("../stuck.txt").open("w") as stuck:
        faulthandler.dump_traceback_later(STUCK_SECONDS - 2, file=stuck)
        try:
            code = answer_requests(arguments) if program == "gateway" else agentlab(arguments)
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else 1
        except BaseException:  # noqa: BLE001 - whatever passes the boundary is a finding
            code = 70
            traceback.print_exc()
        finally:
            faulthandler.cancel_dump_traceback_later()
    Path("../stuck.txt").unlink()
    sys.stdout.flush()
    sys.stderr.flush()
    return code, os.pread(1, LARGEST_READ, 0).decode(errors="replace")


def _judge(words: list[str], code: int, output: str, seconds: float, canaries: list[str]) -> list[dict[str, str]]:
    """What is wrong with the end of a command line."""
    trace = _bugs[-1] if _bugs else output
    where = " ".join(words)[:200]
    wrong = []
    if code not in ALLOWED:
        wrong.append({"kind": f"exit {code}", "where": _last_frame(trace) or where, "trace": trace[-3000:]})
    elif "Traceback (most recent call last)" in output and not WITH_TRACEBACK.intersection(words):
        wrong.append({"kind": "traceback", "where": _last_frame(trace) or where, "trace": trace[-3000:]})
    if seconds > CPU_SECONDS:
        wrong.append({"kind": "slow", "where": f"{seconds:.1f} s: {where}"})
    if MEMORY_WORDS in output:
        wrong.append({"kind": "memory", "where": where})
    if any(canary in output for canary in canaries):
        wrong.append({"kind": "canary in output", "where": where, "trace": output[-2000:]})
    return wrong


def _last_frame(trace: str) -> str:
    """The last line of ours in the last traceback, and the error."""
    lines = trace.rpartition("Traceback (most recent call last):\n")[2].splitlines()
    ours = [line.strip() for line in lines if re.match(r' +File "[^"]*/(agentlab|cli)/', line)]
    error = next((line for line in lines if line[:1].strip()), "")
    return f"{ours[-1].removeprefix(START).partition(', in')[0]}: {error[:120]}" if ours else ""


def _tree(folder: Path, without: Path) -> dict[str, str]:
    """Every file around the workspace, with what it holds."""
    paths = [path for path in folder.rglob("*") if without not in (path, *path.parents)]
    return {str(path.relative_to(folder)): hashlib.sha256(_bytes(path)).hexdigest() for path in paths}


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes() if path.is_file() and path.stat().st_size < LARGEST_READ else b""
    except OSError:
        return b""


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
