"""What a call through our router costs: against httpx by hand, the openai package, and litellm's Router.

Every contender runs in a process of its own against the project's mock server, which has a process, too: on two cores
the server has one, and the clients in turn the other. Rounds are interleaved in random order. Held, in CPU time:

    a plain answer                at most raw httpx + 0.35 ms, and at least 4 times less than litellm's Router
    a stream of 100 chunks        at most raw httpx + 2.5 ms, and at least 5 times less than litellm's Router
    import agentlab.llm.router    at most 0.15 s

When the chunks of a stream come one by one, waking up for each of them costs every client the same: then even httpx
by hand takes more than a fifth of what litellm takes, and only the first limit is held. The row `in a thread` is the
router with its own loop thread, for synchronous callers.

The peers live in `.venv-peers/NAME`, which is made on demand with their newest versions.

Usage: python tests/bench/router.py [ROUNDS]    25 unless told; writes .agentlab/bench/router.json; exit 1 beyond limits
"""

import json
import os
import platform
import random
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from agentlab import machine
from agentlab.bench.mock.server import in_process
from agentlab.runs.atomic import write_json

OUT = Path(".agentlab/bench/router.json")
PEERS = Path(".venv-peers")
HERE = Path(__file__).parent
CALLS = {"plain": 60, "at once": 15, "paced": 4}  # of a round: short ones, so that all see the same machine
WARM_UP = {"plain": 30, "at once": 30, "paced": 3}
FRESH_IMPORTS = 10
# Row: milliseconds above raw httpx, and how many times less than litellm's Router.
LIMITS = {"plain": (0.35, 4.0), "at once": (2.5, 5.0), "paced": (2.5, None)}
IMPORT_LIMIT = 0.15  # seconds of CPU
TITLES = {
    "plain": "Plain answer",
    "at once": "Stream of 100 chunks, at once",
    "paced": "Stream of 100 chunks, one by one",
}
NAMES = {
    "raw": "httpx",
    "ours": "agentlab Router",
    "thread": "  in a thread",
    "openai": "openai",
    "litellm": "litellm Router",
}
PEER_NAMES = ("raw", "openai", "litellm")
IMPORTS = {"raw": "httpx", "ours": "agentlab.llm.router", "openai": "openai", "litellm": "litellm"}
TIMED = "import time; t = time.process_time(); import {}; print(time.process_time() - t)"


@dataclass
class Contender:
    """A process that measures itself, and what it found: seconds by row."""

    name: str
    process: subprocess.Popen[str]
    cpu: dict[str, list[float]] = field(default_factory=lambda: {row: [] for row in CALLS})
    wall: dict[str, list[float]] = field(default_factory=lambda: {row: [] for row in CALLS})

    def run(self, row: str, calls: int) -> dict[str, float]:
        """Seconds per call, CPU and wall."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"row": row, "calls": calls}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} gave up; its own message stands above")
        timing: dict[str, float] = json.loads(line)
        return timing

    def round(self) -> None:
        """Measure every row once."""
        for row, calls in CALLS.items():
            timing = self.run(row, calls)
            self.cpu[row].append(timing["cpu"])
            self.wall[row].append(timing["wall"])


def environment() -> dict[str, str]:
    """Without proxies; litellm takes its price list from its own package instead of the network."""
    ours = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    return {**ours, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "PYTHONWARNINGS": "ignore", "OPENAI_API_KEY": "none"}


def python_of(name: str) -> str:
    """The interpreter that a contender runs in; a peer's environment is made if it is not there."""
    if name not in ("openai", "litellm"):
        return sys.executable
    python = PEERS / name / "bin" / "python"
    if not python.exists():
        print(f"making {PEERS / name}, which takes a minute", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(PEERS / name)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", name], check=True)
    return str(python)


@contextmanager
def contender(name: str, url: str, core: int | None) -> Iterator[Contender]:
    """A running contender, on a core if one is named."""
    command = [python_of(name), str(HERE / "router_contenders.py"), name, url]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(), cwd=Path.cwd()
    ) as process:
        if core is not None:
            os.sched_setaffinity(process.pid, {core})
        yield Contender(name, process)
        assert process.stdin is not None
        process.stdin.close()  # its sign to end


def import_seconds() -> dict[str, list[float]]:
    """CPU time that a fresh process needs to import each contender; the first one fills caches and is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for number in range(FRESH_IMPORTS + 1):
        for name in IMPORTS:
            command = [python_of(name), "-c", TIMED.format(IMPORTS[name])]
            done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=True)
            if number:
                seconds[name].append(float(done.stdout.split()[-1]))
    return seconds


def peer_version(name: str) -> str:
    """Version of a contender's package."""
    if name not in ("openai", "litellm"):
        return version("httpx" if name == "raw" else "agentlab-toolkit")
    script = f"from importlib.metadata import version; print(version({name!r}))"
    return subprocess.run([python_of(name), "-c", script], capture_output=True, text=True, check=True).stdout.strip()


def spread(values: list[float], scale: float = 1e3) -> str:
    """Median and quartiles."""
    low, _, high = statistics.quantiles(values, n=4)
    return f"{statistics.median(values) * scale:8.3f} [{low * scale:.3f}, {high * scale:.3f}]"


def judge(contenders: dict[str, Contender], imports: dict[str, list[float]]) -> Iterator[str]:
    """Print every limit beside what was measured; the ones that were missed."""
    for row, (above, times) in LIMITS.items():
        # the same round saw the same machine: differences and ratios are paired
        cpu_seconds = {name: rival.cpu[row] for name, rival in contenders.items()}
        extra = statistics.median(a - b for a, b in zip(cpu_seconds["ours"], cpu_seconds["raw"], strict=True)) * 1e3
        ratio = statistics.median(a / b for a, b in zip(cpu_seconds["litellm"], cpu_seconds["ours"], strict=True))
        bound = "not held" if times is None else f"at least {times:g}"
        print(
            f"{TITLES[row]:<34}{extra:>7.3f} ms above raw (at most {above:g}), {ratio:.1f}x less than litellm ({bound})"
        )
        if extra > above:
            yield f"{TITLES[row]}: {extra:.3f} ms above raw httpx"
        if times is not None and ratio < times:
            yield f"{TITLES[row]}: only {ratio:.2f} times less than litellm"
    seconds = statistics.median(imports["ours"])
    print(f"{'Import':<34}{seconds:>7.3f} s of CPU (at most {IMPORT_LIMIT:g})")
    if seconds > IMPORT_LIMIT:
        yield f"the import takes {seconds:.3f} s of CPU"


def rows_of(contenders: dict[str, Contender], imports: dict[str, list[float]]) -> Iterator[dict[str, object]]:
    """The rows of the JSON file, ours against each peer."""
    for row, title in TITLES.items():
        medians = {name: statistics.median(rival.cpu[row]) * 1e3 for name, rival in contenders.items()}
        for peer in PEER_NAMES:
            yield as_row(f"{title}, CPU", medians["ours"], medians[peer], NAMES[peer], "ms")
    seconds = {name: statistics.median(values) for name, values in imports.items()}
    for peer in PEER_NAMES:
        yield as_row("Import, CPU", seconds["ours"], seconds[peer], NAMES[peer], "s")


def tables(contenders: dict[str, Contender], imports: dict[str, list[float]], versions: dict[str, str]) -> None:
    """Print what every contender took."""
    for row, title in TITLES.items():
        print(f"{title:<34}{'CPU ms per call':<30}wall ms per call")
        for name, rival in contenders.items():
            print(f"  {NAMES[name]:<18}{versions[name]:<14}{spread(rival.cpu[row]):<30}{spread(rival.wall[row])}")
    print("Import, CPU s")
    for name, seconds in imports.items():
        print(f"  {NAMES[name]:<32}{spread(seconds, 1)}")
    print()


def as_row(title: str, ours: float, peer: float, peer_name: str, unit: str) -> dict[str, object]:
    """One row; `ratio` is how many times less ours takes."""
    row: dict[str, object] = {"row": title, "ours": round(ours, 4), "peer": round(peer, 4), "peer_name": peer_name}
    return {**row, "unit": unit, "better": "lower", "ratio": round(peer / ours, 3)}


def main(rounds: int) -> int:
    """Measure, print, write; the exit status."""
    for name in NAMES:
        python_of(name)
    server_core, client_core = (0, 1) if machine.cores() > 1 and hasattr(os, "sched_setaffinity") else (None, None)
    chance = random.Random(0)
    with ExitStack() as stack:
        url = stack.enter_context(in_process(core=server_core))
        contenders = {name: stack.enter_context(contender(name, url, client_core)) for name in NAMES}
        for rival in contenders.values():
            for row, calls in WARM_UP.items():
                rival.run(row, calls)
        for number in range(rounds):
            for rival in chance.sample(list(contenders.values()), len(contenders)):
                rival.round()
            print(f"round {number + 1} of {rounds}, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    imports = import_seconds()
    versions = {name: peer_version(name) for name in NAMES}
    tables(contenders, imports, versions)
    missed = list(judge(contenders, imports))
    OUT.parent.mkdir(parents=True, exist_ok=True)
    about = {"machine": machine.describe().as_dict(), "versions": {**versions, "python": platform.python_version()}}
    write_json(OUT, {"rows": list(rows_of(contenders, imports)), **about})
    print(f"{rounds} rounds, written to {OUT}" + "".join(f"\nMISSED: {text}" for text in missed))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 25))
