"""Trials per minute of a study with two workers over one: the same study, in turn, on the embedded weather.

Each study is a real one with the default preset and its language model; only the last round is left out. Timed is the
search, from its opening to the last decision, as the run's events tell it: imports and the start of the first worker
are not in it, the start of the others is. Held on two quiet cores: a median ratio of at least 1.6.

Usage: python tests/bench/nas_workers.py [ROUNDS] [TRIALS]    writes .agentlab/bench/nas-workers.json; exit 1 below 1.6
"""

import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from agentlab import machine
from agentlab.runs.atomic import write_json
from agentlab.runs.journal import read_events

LIMIT = 1.6
REPOSITORY = Path(__file__).resolve().parents[2]
OUT = Path(".agentlab/bench/nas-workers.json")


def trials_per_minute(workers: int, trials: int, seed: int) -> float:
    """Run a study in a workspace of its own and read its clock."""
    with tempfile.TemporaryDirectory() as home:
        words = ["nas", "--quiet", f"--workers={workers}", f"--max-iterations={trials}", f"--seed={seed}"]
        words += ["--set=finals.count=0", "--run-name=study"]
        env = {**os.environ, "AGENTLAB_HOME": home, "AGENTLAB_CACHE": str(REPOSITORY)}
        subprocess.run([sys.executable, "-m", "agentlab", *words], check=True, env=env, stdout=subprocess.DEVNULL)
        events = read_events(Path(home) / "runs" / "study" / "events.jsonl")
    opened = next(event.t for event in events if event.type == "study.opened")
    decided = [event.t for event in events if event.type == "decision.made"]
    if len(decided) != trials:
        raise AssertionError(f"{len(decided)} of {trials} trials were decided")
    return 60 * trials / (decided[-1] - opened)


def main(rounds: int, trials: int) -> int:
    """Measure, print, write; the exit status."""
    rates: dict[int, list[float]] = {1: [], 2: []}
    print(f"{'round':>5}{'1 worker':>12}{'2 workers':>12}{'ratio':>8}   trials per minute")
    for number in range(rounds):
        for workers in (1, 2) if number % 2 == 0 else (2, 1):
            rates[workers].append(trials_per_minute(workers, trials, number))
        one, two = rates[1][-1], rates[2][-1]
        print(f"{number:>5}{one:>12.2f}{two:>12.2f}{two / one:>8.2f}", flush=True)
    ratio = statistics.median(two / one for one, two in zip(rates[1], rates[2], strict=True))
    row = {
        "row": f"Search of {trials} trials on the embedded weather",
        "ours": round(statistics.median(rates[2]), 3),
        "peer": round(statistics.median(rates[1]), 3),
        "peer_name": "the same study with one worker",
        "unit": "trials/min",
        "better": "higher",
        "ratio": round(ratio, 3),
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    versions = {"python": platform.python_version()}
    write_json(OUT, {"rows": [row], "machine": machine.describe().as_dict(), "versions": versions})
    print(f"median ratio {ratio:.3f}, to hold: {LIMIT}; written to {OUT}")
    return 0 if ratio >= LIMIT else 1


if __name__ == "__main__":
    rounds, trials = [*map(int, sys.argv[1:3]), *(3, 12)[len(sys.argv[1:3]) :]]
    sys.exit(main(rounds, trials))
