"""The command line starts fast, because it loads nothing heavy before it must."""

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "transformers", "httpx", "llama_cpp", "optuna", "numpy", "matplotlib", "pandas", "scipy"}
BUDGET_SECONDS = 0.35
TYPER, TIMES = "import typer.rich_utils, rich.markdown, rich.traceback", 2.2  # measured: 2.0


def test_help_loads_no_heavy_library() -> None:
    script = (
        "import sys\nfrom agentlab.__main__ import main\nsys.argv = ['agentlab', '--help']\nmain()\n"
        f"print('LOADED', sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert "LOADED []" in done.stdout, done.stdout


def measure_start(*words: str) -> float:
    """Seconds of processor time, the least of several starts: the machine may be busy, the program may not be slow."""
    seconds = []
    for _ in range(8):
        before = os.times()
        subprocess.run([sys.executable, *words], capture_output=True, check=True, cwd=REPOSITORY)
        after = os.times()
        seconds.append(sum(after[2:4]) - sum(before[2:4]))  # of ended processes; Windows does not tell
    return min(seconds)


def test_help_is_within_its_budget() -> None:
    """On a slower processor it may take 2.2 times what Typer's own modules take."""
    seconds = measure_start("-m", "agentlab", "--help")
    allowed = max(BUDGET_SECONDS, TIMES * measure_start("-c", TYPER))
    assert seconds <= allowed, f"too slow: {seconds:.3f} s, of {allowed:.3f} s"
