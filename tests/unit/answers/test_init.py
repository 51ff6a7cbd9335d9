"""The package stands on the standard library alone, and on numpy where it calculates."""

import subprocess
import sys
from pathlib import Path

import agentlab.answers

PROGRAM = """
import sys, importlib
before = {name.partition(".")[0] for name in sys.modules}
for name in sys.argv[1:]:
    importlib.import_module(f"agentlab.answers.{name}")
loaded = {name for name in sys.modules if name.partition(".")[0] not in before | sys.stdlib_module_names}
print(sorted(name for name in loaded if not name.startswith("agentlab.answers")))
"""


def test_it_imports_nothing_else():
    names = [path.stem for path in Path(agentlab.answers.__file__).parent.glob("[!_]*.py")]
    root = Path(agentlab.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", PROGRAM, *names], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "['agentlab']\n"
