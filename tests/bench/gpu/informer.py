"""Training steps of the published presets (width 512, ETTh1, all columns, horizons 24 to 720) on a CUDA device.

Ours against the port of tests/bench/informer.py, with its checks and in turn, on the same windows. Without ETT files
the series is the embedded weather.

Usage: python tests/bench/gpu/informer.py [SECONDS]   per row, 20 unless told; writes .agentlab/bench/gpu-informer.json
"""

import os
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import informer as bench

from agentlab.config.workspace import Workspace

OUT = Path(".agentlab/bench/gpu-informer.json")
HORIZONS = (24, 48, 168, 336, 720)


def main(seconds: float) -> int:
    """Check, measure, print, write; the exit status."""
    if not torch.cuda.is_available():
        print("no CUDA device: skipped")
        return 0
    workspace = Workspace.locate(os.environ, Path.cwd())
    rows = []
    for horizon in HORIZONS:
        trial, series = bench.read(f"informer-etth1-m{horizon}", workspace)
        difference = bench.largest_difference(trial, series, "cuda")
        if difference > 1e-3:  # matrix products on the device round differently
            print(f"horizon {horizon}: losses differ by {difference:.2g}")
            return 1
        name = f"{bench.STEPS} steps, published size, horizon {horizon}"
        rows.append(bench.measure(bench.steps(name, trial, series, "cuda"), seconds))
    bench.report(rows, OUT)
    print(f"the last column is wall time, the one that counts here; written to {OUT}")
    return 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 20))
