"""What our training loop costs over the plainest possible one: same network, same batches, same losses.

Both loops run in turn in this process, on one thread. The plain loop knows no learning curve, no stop request, no best
weights and no checks. Held: equal losses, and a median of the paired CPU-time ratios of at most 1.03. Single rounds
scatter by several per cent on a shared machine, hence 25 of them.

Usage: python tests/bench/nas_overhead.py [REPEATS]     writes .agentlab/bench/nas-overhead.json; exit 1 beyond 3 %
"""

import os
import platform
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from agentlab import machine
from agentlab.config.workspace import Workspace
from agentlab.nas.config import DataConfig, ModelConfig, OptimizerParams, TrainingConfig, TrialConfig
from agentlab.nas.data import load_series
from agentlab.nas.series import Series
from agentlab.nas.training import build, train
from agentlab.nas.windows import Windows
from agentlab.runs.atomic import write_json

LIMIT = 1.03
OUT = Path(".agentlab/bench/nas-overhead.json")
TRIAL = TrialConfig(
    data=DataConfig(gaps="ffill", input_length=48),
    model=ModelConfig(d_model=16, n_heads=2, e_layers=1, ff_multiplier=2, normalize=True, shortcut=True),
    training=TrainingConfig(optimizer_params=OptimizerParams(lr=2e-3), epochs=2, train_fraction=0.25),
)


def plain(series: Series, seed: int) -> tuple[list[float], list[float]]:
    """Train and validate with nothing around it; losses per epoch."""
    torch.manual_seed(seed)
    model, windows = build(TRIAL, series), Windows(series, TRIAL, "cpu")
    lr = TRIAL.training.optimizer_params.lr
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, fused=True)
    criterion = torch.nn.MSELoss()
    starts = windows.starts("train", TRIAL.training.train_fraction)
    losses, errors = [], []
    for epoch in range(TRIAL.training.epochs):
        optimizer.param_groups[0]["lr"] = lr * 0.5 ** max(0, epoch - 1)
        model.train()
        total = torch.zeros(())
        for picked in starts[torch.randperm(len(starts))].split(TRIAL.data.batch_size):
            batch = windows.gather(picked)
            optimizer.zero_grad()
            loss = criterion(model(batch.past, batch.time), batch.future)
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(picked)
        losses.append(total.item() / len(starts))
        model.eval()
        squared, count = 0.0, 0
        with torch.no_grad():
            for batch in windows.blocks("val"):
                error = model(batch.past, batch.time) - batch.future
                squared += error.double().square().sum().item()
                count += error.numel()
        errors.append(squared / count)
    return losses, errors


def ours(series: Series, seed: int) -> tuple[list[float], list[float]]:
    """The same through `train`."""
    history = train(TRIAL, series, seed).history
    return [epoch.train_loss for epoch in history], [epoch.val_mse for epoch in history]


def main(repeats: int) -> int:
    """Measure, print, write; the exit status."""
    torch.set_num_threads(1)
    series = load_series(TRIAL.data, Workspace.locate(os.environ, Path.cwd()))
    loops = {"ours": ours, "plain": plain}
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for seed in range(-1, repeats):  # the first round warms up and is not counted
        results = {}
        order = list(loops) if seed % 2 else list(reversed(loops))
        for name in order:
            began = time.process_time()
            results[name] = loops[name](series, max(seed, 0))
            if seed >= 0:
                seconds[name].append(time.process_time() - began)
        if results["ours"][0] != results["plain"][0]:
            print(f"training losses differ: {results}")
            return 1
        if any(abs(a / b - 1) > 1e-12 for a, b in zip(results["ours"][1], results["plain"][1], strict=True)):
            print(f"validation errors differ: {results}")
            return 1
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratio = statistics.median(a / b for a, b in zip(seconds["ours"], seconds["plain"], strict=True))
    row = {
        "row": "Training a 7.8k-weight Informer, CPU time",
        "ours": round(medians["ours"], 4),
        "peer": round(medians["plain"], 4),
        "peer_name": "plain PyTorch loop",
        "unit": "s",
        "better": "lower",
        "ratio": round(ratio, 4),
    }
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    write_json(OUT, {"rows": [row], "machine": machine.describe().as_dict(), "versions": versions})
    print(f"{'loop':<22}{'median s':>10}{'fastest s':>11}")
    for name, values in seconds.items():
        print(f"{name:<22}{medians[name]:>10.3f}{min(values):>11.3f}")
    print(f"median ratio {ratio:.4f}, limit {LIMIT}; losses equal in all {repeats} rounds; written to {OUT}")
    return 0 if ratio <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 25))
