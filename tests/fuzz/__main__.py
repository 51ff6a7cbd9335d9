"""`make fuzz SECONDS=60`: cases of every corpus against the real command line, until the time is up.

Two workers, forked from a process that has imported everything, meet the cases. What is wrong is met again in a new
worker before it counts, and kept below `.agentlab/fuzz/`; `--repeat FILE` meets it once more. A case that was mended
goes to `corpus/`, which is played first each time.
"""

import argparse
import json
import os
import re
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.case import Case, read_case, write_case
from tests.fuzz.corpora import CORPORA
from tests.fuzz.worker import STUCK_SECONDS
from tests.zygote import ForkedWithAll

REPOSITORY = Path(__file__).resolve().parents[2]
SEEDS = Path(__file__).parent / "corpus"
FOUND = REPOSITORY / ".agentlab" / "fuzz"
CASES_OF_A_WORKER = 1000  # then a new one: what a case leaves behind in the process does not add up
START_SECONDS = 300.0  # for all imports, on a busy machine
SECRETS = ("OPENAI_API_KEY", "SLACK_WEBHOOK_URL", "SENTRY_DSN", "DB_PASS_PROD", "MNEMONIC", "BEARER", "HF_TOKEN")


class Worker:
    """A forked process that meets cases."""

    def __init__(self, base: Path) -> None:
        self.root = Path(tempfile.mkdtemp(dir=base))
        canaries = {name: f"sk-{secrets.token_hex(20)}" for name in SECRETS}
        self._process = ForkedWithAll(
            [sys.executable, "-m", "tests.fuzz.worker", str(self.root), str(base / "shelf"), *canaries.values()],
            env={**_environment(self.root), **canaries}, cwd=REPOSITORY, text=True, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.met = 0

    def ask(self, order: Any, seconds: float = STUCK_SECONDS) -> dict[str, Any]:
        """What was wrong with a case. A worker that dies or is stuck is wrong, too."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.met += 1
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        if ready and (line := self._process.stdout.readline()):
            reply: dict[str, Any] = json.loads(line)
            return reply
        self.met = CASES_OF_A_WORKER
        if ready:
            status = self._process.wait()
            return {
                "findings": [{"kind": f"death {status}", "where": "", "trace": _tail(self.root / "log")}],
                "seconds": 0,
            }
        trace = _tail(self.root / "case" / "stuck.txt")
        where = next((line.strip() for line in trace.splitlines() if "/agentlab/" in line or "/cli/" in line), "")
        return {"findings": [{"kind": "stuck", "where": where, "trace": trace}], "seconds": seconds}

    def close(self) -> None:
        """End the process and whatever it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()
        shutil.rmtree(self.root, ignore_errors=True)


class Crew:
    """One worker at a time, replaced in time."""

    def __init__(self, base: Path) -> None:
        self._base = base

    def __enter__(self) -> "Crew":
        self._worker = Worker(self._base)
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.close()

    def ask(self, case: Case) -> dict[str, Any]:
        """What was wrong with a case, by a worker that is alive."""
        if self._worker.met >= CASES_OF_A_WORKER:
            self._worker.close()
            self._worker = Worker(self._base)
        return self._worker.ask(case.as_json())


def meet_twice(base: Path, case: Case) -> list[dict[str, str]]:
    """What is wrong with a case in a new worker the second time: the first time it imports."""
    with Crew(base) as crew:
        crew.ask(case)
        found: list[dict[str, str]] = crew.ask(case)["findings"]
        return found


def _environment(root: Path) -> dict[str, str]:
    """Nothing of the caller's but where programs lie; home, caches and temporary files of the worker's own."""
    own = {
        "HOME": root / "home",
        "AGENTLAB_CACHE": root / "cache",
        "TMPDIR": root / "tmp",
        "MPLCONFIGDIR": root / "mpl",
    }
    for folder in own.values():
        folder.mkdir()
    fixed = {
        "HF_HUB_OFFLINE": "1",
        "NO_COLOR": "1",
        "OMP_NUM_THREADS": "1",
        "LC_ALL": "C.UTF-8",
        "PIP_INDEX_URL": "http://127.0.0.1:9",
    }
    return {"PATH": os.environ["PATH"], **{name: str(path) for name, path in own.items()}, **fixed}


def _tail(path: Path) -> str:
    return path.read_text(errors="replace")[-3000:] if path.exists() else ""


@dataclass
class Tally:
    """What came of a corpus."""

    cases: int = 0
    seconds: float = 0.0
    findings: int = 0
    last: float = field(default_factory=time.monotonic)


class Job:
    """Workers side by side, one table, and each kind of finding once."""

    def __init__(self, base: Path, seed: int, names: list[str]) -> None:
        self._base, self._seed = base, seed
        self.tallies = {name: Tally() for name in names}
        self._known: set[str] = set()
        self._lock = threading.Lock()
        self._drawn = 0

    def fill_shelf(self) -> None:
        """Make what the cases are made of."""
        worker = Worker(self._base)
        reply = worker.ask("fill", START_SECONDS)
        trace = _tail(worker.root / "log")
        worker.close()
        if reply["findings"]:
            sys.exit(f"what the cases are made of could not be made: {reply['findings'][0]['kind']}\n{trace}")

    def replay(self, paths: list[Path]) -> None:
        """Meet cases that are kept."""
        with Crew(self._base) as crew:
            for path in paths:
                corpus, case = read_case(path)
                self._count(corpus, case, crew.ask(case), str(path))

    def work(self, until: float) -> None:
        """Meet new cases until the time is up; one call per thread."""
        with Crew(self._base) as crew:
            while time.monotonic() < until:
                with self._lock:  # the corpus that had the least time is next
                    name = min(self.tallies, key=lambda name: self.tallies[name].seconds)
                    number, self._drawn = self._drawn, self._drawn + 1
                    self.tallies[name].seconds += 0.01  # so that two threads take two corpora
                case = CORPORA[name](Random(f"{self._seed} {name} {number}"), self._base / "shelf")
                began = time.monotonic()
                reply = crew.ask(case)
                with self._lock:
                    self.tallies[name].seconds += time.monotonic() - began
                self._count(name, case, reply, f"{self._seed} {number}")

    def _count(self, name: str, case: Case, reply: dict[str, Any], origin: str) -> None:
        tally = self.tallies.setdefault(name, Tally())
        with self._lock:
            tally.cases += 1
            fresh = [each for each in reply["findings"] if _signature(name, each) not in self._known]
            self._known |= {_signature(name, each) for each in fresh}
        if fresh and (seen := self._seen_again(case, {each["kind"] for each in fresh})):
            path = FOUND / f"{name.replace(' ', '-')}-{time.time_ns() // 10**6}.json"
            write_case(path, name, case, findings=seen, origin=origin)
            with self._lock:
                tally.findings += 1
                tally.last = time.monotonic()
            print(
                f"{name}: {seen[0]['kind']}: {seen[0]['where']}\n  repeat: python -m tests.fuzz --repeat {path}",
                flush=True,
            )

    def _seen_again(self, case: Case, kinds: set[str]) -> list[dict[str, str]]:
        """What is wrong in a new worker, too: at the second time, as the first one imports."""
        return [each for each in meet_twice(self._base, case) if each["kind"] in kinds]

    def table(self) -> str:
        """A line for each corpus."""
        lines = [f"{'corpus':<14} {'cases':>7} {'cases/s':>8} {'findings':>9} {'s since the last':>17}"]
        for name, tally in sorted(self.tallies.items()):
            quiet = f"{time.monotonic() - tally.last:.0f}" if tally.findings else "-"
            rate = tally.cases / max(tally.seconds, 0.01)
            lines.append(f"{name:<14} {tally.cases:>7} {rate:>8.1f} {tally.findings:>9} {quiet:>17}")
        return "\n".join(lines)


def _signature(name: str, finding: dict[str, str]) -> str:
    """Findings that are alike: the same line of ours and the same type of error, or else the same corpus."""
    place = re.match(r".*\.py\", line \d+: [\w.]+", finding["where"])
    return f"{finding['kind']} {place[0] if place else name}"


def main() -> int:
    """Fuzz, or repeat one case. The exit code is 1 if there was a finding."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="draws the cases; printed")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--corpus", choices=list(CORPORA), action="append", help="only this one; may be repeated")
    parser.add_argument(
        "--repeat", type=Path, metavar="FILE", help="meet a case that was kept, and print what is wrong"
    )
    options = parser.parse_args()
    sys.setrecursionlimit(20_000)  # trees are deep on purpose
    with tempfile.TemporaryDirectory(prefix="agentlab-fuzz-") as folder:
        base = Path(folder)
        (base / "shelf").mkdir()
        job = Job(base, options.seed, options.corpus or list(CORPORA))
        job.fill_shelf()
        if options.repeat:
            wrong = meet_twice(base, read_case(options.repeat)[1])
            print(*(f"{each['kind']}: {each['where']}\n{each.get('trace', '')}" for each in wrong), sep="\n")
            return int(bool(wrong))
        print(f"seed {options.seed}", flush=True)
        job.replay(sorted(SEEDS.glob("*.json")))
        until = time.monotonic() + options.seconds
        threads = [threading.Thread(target=job.work, args=(until,)) for _ in range(options.jobs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(job.table())
    return int(any(tally.findings for tally in job.tallies.values()))


if __name__ == "__main__":
    sys.exit(main())
