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
CASES_OF_A_PROCESS = 1000  # then a new one: what a case leaves behind in it does not add up
START_SECONDS = 300.0  # for all imports, on a busy machine
SECRETS = ("OPENAI_API_KEY", "SLACK_WEBHOOK_URL", "SENTRY_DSN", "DB_PASS_PROD", "MNEMONIC", "BEARER", "HF_TOKEN")

Finding = dict[str, str]


class Worker:
    """Meets cases in a forked process, and has a new one whenever a case has ended the last."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._start()

    def _start(self) -> None:
        self._cases = 0
        self.root = Path(tempfile.mkdtemp(dir=self._base))
        canaries = {name: f"sk-{secrets.token_hex(20)}" for name in SECRETS}
        arguments = [str(self.root), str(self._base / "shelf"), *canaries.values()]
        self._process = ForkedWithAll(
            [sys.executable, "-m", "tests.fuzz.worker", *arguments],
            env={**_environment(self.root), **canaries}, cwd=REPOSITORY, text=True, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()
        shutil.rmtree(self.root, ignore_errors=True)

    def meet(self, case: Case) -> list[Finding]:
        """What is wrong with a case."""
        if self._cases >= CASES_OF_A_PROCESS:
            self.__exit__()
            self._start()
        return self.ask(case.as_json(), STUCK_SECONDS)

    def ask(self, order: Any, seconds: float) -> list[Finding]:
        """The answer to an order. A process that dies or is stuck is a finding, too."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._cases += 1
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        if ready and (line := self._process.stdout.readline()):
            findings: list[Finding] = json.loads(line)
            return findings
        self._cases = CASES_OF_A_PROCESS
        if ready:
            return [{"kind": f"death {self._process.wait()}", "where": "", "trace": _tail(self.root / "log")}]
        trace = _tail(self.root / "case" / "stuck.txt")
        where = next((line.strip() for line in trace.splitlines() if re.search("/(agentlab|cli)/", line)), "")
        return [{"kind": "stuck", "where": where, "trace": trace}]


def _environment(root: Path) -> dict[str, str]:
    """Nothing of the caller's but where programs lie; home, caches and temporary files of the process's own."""
    folders = {name: root / name.lower() for name in ("HOME", "AGENTLAB_CACHE", "TMPDIR", "MPLCONFIGDIR")}
    for folder in folders.values():
        folder.mkdir()
    fixed = {"HF_HUB_OFFLINE": "1", "NO_COLOR": "1", "OMP_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"}
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9", "PATH": os.environ["PATH"]}
    return {**fixed, **nowhere, **{name: str(path) for name, path in folders.items()}}


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
        self.until = 0.0
        self._base, self._seed = base, seed
        self.tallies = {name: Tally() for name in names}
        self._known: set[str] = set()
        self._lock = threading.Lock()
        self._drawn = 0

    def replay(self, paths: list[Path]) -> None:
        """Meet cases that are kept."""
        with Worker(self._base) as worker:
            for path in paths:
                corpus, case = read_case(path)
                self._meet(worker, corpus, case, path.name)

    def work(self) -> None:
        """Meet new cases until the time is up; one call per thread."""
        with Worker(self._base) as worker:
            while time.monotonic() < self.until:
                with self._lock:  # the corpus that had the least time is next
                    name = min(self.tallies, key=lambda name: self.tallies[name].seconds)
                    number, self._drawn = self._drawn, self._drawn + 1
                    self.tallies[name].seconds += 0.01  # so that two threads take two corpora
                case = CORPORA[name](Random(f"{self._seed} {name} {number}"), self._base / "shelf")
                self._meet(worker, name, case, f"seed {self._seed}, case {number}")

    def _meet(self, worker: Worker, name: str, case: Case, origin: str) -> None:
        began = time.monotonic()
        findings = worker.meet(case)
        tally = self.tallies.setdefault(name, Tally())
        with self._lock:
            tally.cases += 1
            tally.seconds += time.monotonic() - began
            kinds = {finding["kind"] for finding in findings if _signature(name, finding) not in self._known}
            self._known |= {_signature(name, finding) for finding in findings}
        confirmed = [finding for finding in meet_anew(self._base, case) if finding["kind"] in kinds] if kinds else []
        if confirmed:
            path = FOUND / f"{name.replace(' ', '-')}-{time.time_ns() // 10**6}.json"
            write_case(path, name, case, findings=confirmed, origin=origin)
            with self._lock:
                tally.findings += 1
                tally.last = time.monotonic()
            print(
                f"{name}: {confirmed[0]['kind']}: {confirmed[0]['where']}\n  python -m tests.fuzz --repeat {path}",
                flush=True,
            )

    def table(self) -> str:
        """A line for each corpus."""
        lines = [f"{'corpus':<14} {'cases':>7} {'cases/s':>8} {'findings':>9} {'s since the last':>17}"]
        for name, tally in sorted(self.tallies.items()):
            quiet = f"{time.monotonic() - tally.last:.0f}" if tally.findings else "-"
            rate = tally.cases / max(tally.seconds, 0.01)
            lines.append(f"{name:<14} {tally.cases:>7} {rate:>8.1f} {tally.findings:>9} {quiet:>17}")
        return "\n".join(lines)


def meet_anew(base: Path, case: Case) -> list[Finding]:
    """What is wrong with a case in a new process the second time: the first time it imports."""
    with Worker(base) as worker:
        worker.meet(case)
        return worker.meet(case)


def _signature(name: str, finding: Finding) -> str:
    """Findings that are alike: the same line of ours and the same type of error, or else the same corpus."""
    frame = re.match(r".*\.py\", line \d+: [\w.]+", finding["where"])
    return f"{finding['kind']} {frame[0] if frame else name}"


def fill_shelf(base: Path) -> None:
    """Make what the cases are made of."""
    (base / "shelf").mkdir()
    with Worker(base) as worker:
        if worker.ask("fill", START_SECONDS):
            sys.exit(f"What the cases are made of could not be made.\n{_tail(worker.root / 'log')}")


def main() -> int:
    """Fuzz, or repeat one case. The exit code is 1 if there was a finding."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="draws the cases; printed")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--corpus", choices=list(CORPORA), action="append", help="only this one; may be repeated")
    parser.add_argument("--repeat", type=Path, metavar="FILE", help="meet a case that was kept; print what is wrong")
    options = parser.parse_args()
    sys.setrecursionlimit(20_000)  # trees are deep on purpose
    with tempfile.TemporaryDirectory(prefix="agentlab-fuzz-") as folder:
        base = Path(folder)
        fill_shelf(base)
        if options.repeat:
            findings = meet_anew(base, read_case(options.repeat)[1])
            print(
                *(f"{finding['kind']}: {finding['where']}\n{finding.get('trace', '')}" for finding in findings),
                sep="\n",
            )
            return int(bool(findings))
        print(f"seed {options.seed}", flush=True)
        job = Job(base, options.seed, options.corpus or list(CORPORA))
        job.replay(sorted(SEEDS.glob("*.json")))
        job.until = time.monotonic() + options.seconds
        threads = [threading.Thread(target=job.work) for _ in range(options.jobs)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        finally:  # after a Ctrl-C the threads end, too
            job.until = 0.0
            for thread in threads:
                thread.join()
        print(job.table())
    return int(any(tally.findings for tally in job.tallies.values()))


if __name__ == "__main__":
    sys.exit(main())
