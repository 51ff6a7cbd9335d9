"""Entry point of the console script and of `python -m agentlab`.

The command line lives in `cli/` of a checkout and in `agentlab/cli` of an installed wheel (one folder, folded in by
the build). This file alone knows both names.
"""

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from agentlab import machine


def main() -> int:
    """Run the command line on `sys.argv` and return its exit code."""
    for name, value in machine.worker_environment(machine.threads()).items():
        os.environ.setdefault(name, value)  # before a library is loaded that reads them once
    if find_spec("agentlab.cli") is not None:
        name = "agentlab.cli.main"
    else:
        checkout = Path(__file__).resolve().parent.parent
        if str(checkout) not in sys.path:
            sys.path.insert(0, str(checkout))
        found = find_spec("cli")
        origin = Path(found.origin).resolve() if found and found.origin else None
        if origin is None or origin.parent.parent != checkout:
            sys.stderr.write(f"error: the folder `cli` of {checkout} is missing or shadowed by {origin}\n")
            return 1
        name = "cli.main"
    return int(import_module(name).main(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
