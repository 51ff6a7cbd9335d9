"""The command line starts fast, because it loads nothing heavy before it must."""

import os
import statistics
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "transformers", "httpx", "llama_cpp", "optuna", "numpy", "matplotlib", "pandas", "scipy"}
BUDGET_SECONDS = 0.35


def test_help_loads_no_heavy_library() -> None:
    script = (
        "import sys\nfrom agentlab.__main__ import main\nsys.argv = ['agentlab', '--help']\nmain()\n"
        f"print('LOADED', sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert "LOADED []" in done.stdout, done.stdout


def test_help_is_within_its_budget() -> None:
    """Of processor time, the best of several starts: the machine may be busy, the program may not be slow."""
    seconds = []
    for _ in range(8):
        before = os.times()
        subprocess.run([sys.executable, "-m", "agentlab", "--help"], capture_output=True, check=True, cwd=REPOSITORY)
        after = os.times()
        seconds.append(sum(after[2:4]) - sum(before[2:4]))  # of ended processes; Windows does not tell
    assert min(seconds) <= BUDGET_SECONDS, (
        f"too slow: {min(seconds):.3f} s at best, median {statistics.median(seconds):.3f} s"
    )


def test_a_command_that_is_only_listed_is_not_loaded_and_listed_all_the_same() -> None:
    """Also by the words of its own help, which are those of the list."""
    script = (
        "import sys\nfrom cli.main import _COMMANDS, build_app, main\nmain(['runs', '--help'])\n"
        "print('LOADED', sorted(name for name in sys.modules if name[:4] == 'cli.' and name[4:] in _COMMANDS))\n"
        "from typer.main import get_command\n"
        "listed, full = (get_command(build_app(names)).commands for names in ([], list(_COMMANDS)))\n"
        "print('SAME', [name for name in _COMMANDS if listed[name].get_short_help_str(500) != "
        "full[name].get_short_help_str(500)])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert "LOADED ['cli.runs']" in done.stdout
    assert "SAME []" in done.stdout, done.stdout
