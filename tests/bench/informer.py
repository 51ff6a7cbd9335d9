"""What our Informer costs per training step and per epoch against a plain port of the paper's algorithm.

The port below follows arXiv 2012.07436 the way the formulas are written: keys are copied for every query before some
are sampled, masks are materialised, softmax attention is spelled out, selected queries are written back by fancy
indexing, windows come one by one from a DataLoader, and Adam is the default one. Both networks have the same weights
by the same names. Before any timing, both must give the same losses (full attention) and the same forecasts
(ProbSparse with equally sampled keys). Then they run in turn in this process, on one thread.

Usage: python tests/bench/informer.py [SECONDS]   per row, 20 unless told; writes .agentlab/bench/informer.json
Exit status 1 when the results differ or a training step is less than 1.5 times as fast as the port's.
"""

import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from agentlab import machine
from agentlab.config.load import load
from agentlab.config.workspace import Workspace
from agentlab.nas.config import ModelConfig, NasConfig, TrialConfig
from agentlab.nas.data import load_series
from agentlab.nas.informer.layers import sine_positions
from agentlab.nas.series import Part, Series, window_starts
from agentlab.nas.training import build, make_optimizer, train
from agentlab.nas.windows import Windows
from agentlab.runs.atomic import write_json

LIMIT = 1.5
OUT = Path(".agentlab/bench/informer.json")
STEPS = 3  # training steps of one measurement


class PlainAttention(nn.Module):
    """Multi-head attention, ProbSparse when `factor` is given."""

    def __init__(self, width: int, heads: int, factor: int | None, dropout: float, causal: bool, mix: bool) -> None:
        super().__init__()
        self.heads, self.factor, self.causal, self.mix = heads, factor, causal, mix
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """[batch, queries, width] and [batch, keys, width] to [batch, queries, width]."""
        split = (len(x), -1, self.heads, x.shape[-1] // self.heads)
        q = self.query(x).view(split).transpose(1, 2)
        k = self.key(memory).view(split).transpose(1, 2)
        v = self.value(memory).view(split).transpose(1, 2)
        context = self.full(q, k, v) if self.factor is None else self.sparse(q, k, v, self.factor)
        if not self.mix:
            context = context.transpose(1, 2).contiguous()
        return self.out(context.reshape(x.shape))

    def full(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """softmax(QK' / sqrt d) V, with a mask that hides the future."""
        scores = torch.matmul(q, k.transpose(-2, -1))
        if self.causal:
            scores = scores.masked_fill(future(len(q), 1, q.shape[2], k.shape[2], q.device), -math.inf)
        return torch.matmul(self.dropout(torch.softmax(scores / math.sqrt(q.shape[-1]), dim=-1)), v)

    def sparse(self, q: Tensor, k: Tensor, v: Tensor, factor: int) -> Tensor:
        """Algorithm 1 of the paper."""
        batch, heads, queries, depth = q.shape
        keys = k.shape[2]
        sampled = min(factor * math.ceil(math.log(keys)), keys)
        selected = min(factor * math.ceil(math.log(queries)), queries)
        expanded = k.unsqueeze(2).expand(batch, heads, queries, keys, depth)
        sampled_keys = torch.randint(keys, (queries, sampled))
        picked = expanded[:, :, torch.arange(queries).unsqueeze(1), sampled_keys, :]
        scores = torch.matmul(q.unsqueeze(-2), picked.transpose(-2, -1)).squeeze(-2)
        top = (scores.max(-1)[0] - scores.sum(-1) / keys).topk(selected, sorted=False)[1]
        rows = torch.arange(batch)[:, None, None], torch.arange(heads)[None, :, None], top
        scores = torch.matmul(q[rows], k.transpose(-2, -1)) / math.sqrt(depth)
        if self.causal:
            scores = scores.masked_fill(future(batch, heads, queries, keys, q.device)[rows], -math.inf)
            context = v.cumsum(dim=2)
        else:
            context = v.mean(dim=2, keepdim=True).expand(batch, heads, queries, depth).clone()
        context[rows] = torch.matmul(torch.softmax(scores, dim=-1), v)
        return context


def future(batch: int, heads: int, queries: int, keys: int, device: torch.device) -> Tensor:
    """True where a key lies after the query."""
    return torch.ones(batch, heads, queries, keys, dtype=torch.bool, device=device).triu(1)


class PlainFeedForward(nn.Module):
    """GELU between two linear maps."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.widen = nn.Linear(config.d_model, config.d_model * config.ff_multiplier)
        self.narrow = nn.Linear(config.d_model * config.ff_multiplier, config.d_model)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """To the same shape."""
        return self.dropout(self.narrow(self.dropout(nn.functional.gelu(self.widen(x)))))


class PlainLayer(nn.Module):
    """Encoder layer, or with `decodes` a decoder layer."""

    def __init__(self, config: ModelConfig, *, decodes: bool) -> None:
        super().__init__()
        width, heads, drop = config.d_model, config.n_heads, config.dropout if config.faithful else 0.0
        factor = config.factor if config.attention == "prob" else None
        self.attention = PlainAttention(width, heads, factor, drop, causal=decodes, mix=decodes and config.mix)
        self.feed_forward = PlainFeedForward(config)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)
        self.cross = PlainAttention(width, heads, None, drop, causal=False, mix=False) if decodes else None
        self.norm3 = nn.LayerNorm(width) if decodes else None

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        """[batch, length, width] to the same shape."""
        x = self.norm1(x + self.dropout(self.attention(x, x)))
        if self.cross is None or self.norm3 is None:
            return self.norm2(x + self.feed_forward(x))
        x = self.norm2(x + self.dropout(self.cross(x, memory)))
        return self.norm3(x + self.feed_forward(x))


class PlainDistil(nn.Module):
    """Convolution, batch norm, ELU, max-pool."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolve = nn.Conv1d(width, width, kernel_size=3, padding=1, padding_mode="circular")
        self.norm = nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, length, width] to half the length."""
        x = nn.functional.elu(self.norm(self.convolve(x.permute(0, 2, 1))))
        return nn.functional.max_pool1d(x, kernel_size=3, stride=2, padding=1).transpose(1, 2)


class PlainEmbedding(nn.Module):
    """Values, positions and time."""

    def __init__(self, channels: int, time_channels: int, config: ModelConfig) -> None:
        super().__init__()
        self.value = nn.Conv1d(channels, config.d_model, kernel_size=3, padding=1, padding_mode="circular")
        self.time = nn.Linear(time_channels, config.d_model)
        self.register_buffer("positions", sine_positions(5000, config.d_model), persistent=False)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """[batch, length, channels] to [batch, length, width]."""
        embedded = self.value(x.permute(0, 2, 1)).transpose(1, 2) + self.positions[: x.shape[1]] + self.time(time)
        return self.dropout(embedded)


class PlainStack(nn.Module):
    """Layers, distilling between them, and a last norm."""

    def __init__(self, config: ModelConfig, layers: int, *, decodes: bool) -> None:
        super().__init__()
        distils = 0 if decodes or not config.distil else layers - 1
        self.layers = nn.ModuleList(PlainLayer(config, decodes=decodes) for _ in range(layers))
        self.distils = nn.ModuleList(PlainDistil(config.d_model) for _ in range(distils))
        self.norm = nn.LayerNorm(config.d_model)

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        """[batch, length, width] to [batch, remaining length, width]."""
        for number, layer in enumerate(self.layers):
            x = layer(x, memory)
            if number < len(self.distils):
                x = self.distils[number](x)
        return self.norm(x)


class PlainInformer(nn.Module):
    """The paper's network for a trial."""

    def __init__(self, trial: TrialConfig, series: Series) -> None:
        super().__init__()
        model, self.horizon = trial.model, trial.data.horizon
        self.encoder_embedding = PlainEmbedding(series.channels, series.time_channels, model)
        self.decoder_embedding = PlainEmbedding(series.channels, series.time_channels, model)
        self.encoder = PlainStack(model, model.e_layers, decodes=False)
        self.decoder = PlainStack(model, model.d_layers, decodes=True)
        self.projection = nn.Linear(model.d_model, len(series.targets))

    def forward(self, history: Tensor, past_time: Tensor, start: Tensor, start_time: Tensor) -> Tensor:
        """[batch, horizon, targets] from the encoder's input and the decoder's start."""
        memory = self.encoder(self.encoder_embedding(history, past_time))
        return self.projection(self.decoder(self.decoder_embedding(start, start_time), memory))[:, -self.horizon :]


class WindowDataset(Dataset):
    """Windows cut from the arrays one at a time."""

    def __init__(self, series: Series, trial: TrialConfig, part: Part) -> None:
        self.series, self.data = series, trial.data
        window_indices = window_starts(series.split, part, trial.data.input_length, trial.data.horizon)
        share = trial.training.train_fraction if part == "train" else 1.0
        count = round(len(window_indices) * share)
        self.starts = [window_indices[index * len(window_indices) // count] for index in range(count)]

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        first = self.starts[index]
        now = first + self.data.input_length
        begin, end = now - self.data.label_length, now + self.data.horizon
        values, time = self.series.values, self.series.time
        return values[first:now], values[begin:end], time[first:now], time[begin:end]


class Peers:
    """Both networks of a trial with the same weights, and what each needs to be trained."""

    def __init__(self, trial: TrialConfig, series: Series, device: str = "cpu") -> None:
        torch.manual_seed(0)
        self.trial, self.series, self.device = trial, series, device
        self.ours, self.plain = build(trial, series).to(device), PlainInformer(trial, series).to(device)
        self.plain.load_state_dict(self.ours.state_dict())
        self.windows = Windows(series, trial, device)
        self.loader = DataLoader(WindowDataset(series, trial, "train"), trial.data.batch_size, shuffle=True)
        self.fused = make_optimizer(trial.training, self.ours)
        self.adam = torch.optim.Adam(self.plain.parameters(), lr=trial.training.optimizer_params.lr)
        self.criterion = nn.MSELoss()
        self.targets = list(series.targets)

    def ours_loss(self, starts: Tensor) -> Tensor:
        """Loss of our network on the windows that begin at these rows."""
        batch = self.windows.gather(starts)
        return self.criterion(self.ours(batch.past, batch.time), batch.future)

    def plain_loss(self, batch: list[Tensor]) -> Tensor:
        """Loss of the port on a batch of the loader."""
        history, target, past_time, time = (part.float().to(self.device) for part in batch)
        horizon = self.trial.data.horizon
        zeros = torch.zeros(len(target), horizon, target.shape[-1], device=self.device)
        start = torch.cat([target[:, : self.trial.data.label_length], zeros], dim=1)
        return self.criterion(self.plain(history, past_time, start, time), target[:, -horizon:, self.targets])

    def batches(self, count: int) -> tuple[list[Tensor], list[list[Tensor]]]:
        """The same windows for both, as each reads them."""
        dataset, size = self.loader.dataset, self.trial.data.batch_size
        order = torch.randperm(len(dataset))[: count * size].split(size)
        collate = torch.utils.data.default_collate
        starts = [torch.tensor([dataset.starts[i] for i in rows], device=self.device) for rows in order]
        return starts, [collate([dataset[i] for i in rows]) for rows in order]

    def step(self, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
        """One update."""
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def plain_epoch(self) -> None:
        """The port trains on every window and is scored on every validation window, in batches of the same size."""
        self.plain.train()
        losses = []
        for batch in self.loader:
            loss = self.plain_loss(batch)
            losses.append(loss.item())
            self.step(loss, self.adam)
        self.plain.eval()
        with torch.no_grad():
            size = self.trial.data.batch_size
            for batch in DataLoader(WindowDataset(self.series, self.trial, "val"), size):
                losses.append(self.plain_loss(batch).item())


def largest_difference(trial: TrialConfig, series: Series, device: str = "cpu") -> float:
    """Between the losses of both networks, trained for three steps without dropout on the same windows."""
    still = trial.model_copy(update={"model": trial.model.model_copy(update={"dropout": 0.0})})
    peers, worst = Peers(still, series, device), 0.0
    for number, (starts, batch) in enumerate(zip(*peers.batches(3), strict=True)):
        torch.manual_seed(number)  # the same keys are sampled
        ours = peers.ours_loss(starts)
        torch.manual_seed(number)
        plain = peers.plain_loss(batch)
        worst = max(worst, abs(ours.item() - plain.item()))
        peers.step(ours, peers.fused)
        peers.step(plain, peers.adam)
    return worst


@dataclass(frozen=True, slots=True)
class Work:
    """One row: what both do, as functions without arguments."""

    name: str
    ours: Callable[[], object]
    plain: Callable[[], object]
    held: bool = True


def measure(work: Work, seconds: float) -> dict[str, object]:
    """Medians of the interleaved rounds that fit into the time, three at least; the first is not counted."""
    durations: dict[str, list[tuple[float, float]]] = {"ours": [], "plain": []}
    end, round_number = time.perf_counter() + seconds, 0
    while round_number < 4 or time.perf_counter() < end:
        for name in ("ours", "plain") if round_number % 2 else ("plain", "ours"):
            cpu, wall = time.process_time(), time.perf_counter()
            getattr(work, name)()
            durations[name].append((time.process_time() - cpu, time.perf_counter() - wall))
        round_number += 1
    pairs = list(zip(durations["ours"][1:], durations["plain"][1:], strict=True))
    return {
        "row": work.name,
        "ours": round(statistics.median(ours[0] for ours, _ in pairs), 4),
        "peer": round(statistics.median(plain[0] for _, plain in pairs), 4),
        "peer_name": "plain port of the paper",
        "unit": "s",
        "better": "lower",
        "ratio": round(statistics.median(plain[0] / ours[0] for ours, plain in pairs), 3),
        "wall_ratio": round(statistics.median(plain[1] / ours[1] for ours, plain in pairs), 3),
        "rounds": len(pairs),
    }


def steps(name: str, trial: TrialConfig, series: Series, device: str = "cpu") -> Work:
    """A few training steps on batches that lie ready."""
    peers = Peers(trial, series, device)
    starts, batches = peers.batches(STEPS)

    def ours() -> None:
        for some in starts:
            peers.step(peers.ours_loss(some), peers.fused)
        synchronise(device)

    def plain() -> None:
        for batch in batches:
            peers.step(peers.plain_loss(batch), peers.adam)
        synchronise(device)

    return Work(name, ours, plain)


def epoch(name: str, trial: TrialConfig, series: Series) -> Work:
    """One epoch, reading the windows and scoring the validation part included."""
    once = trial.model_copy(update={"training": trial.training.model_copy(update={"epochs": 1})})
    return Work(name, lambda: train(once, series, 0), Peers(once, series).plain_epoch, held=False)


def synchronise(device: str) -> None:
    """Wait for the device."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def read(name: str, workspace: Workspace) -> tuple[TrialConfig, Series]:
    """Trial 0 of a preset and its series; without the ETT files their presets run on the embedded weather."""
    preset = load(NasConfig, "nas", name, [], workspace=workspace, env={}, cwd=Path.cwd()).config.trial()
    data = preset.data
    if data.path is not None:
        file = Path(os.environ.get("AGENTLAB_ETT_DIR", "../shared/data/ETT-small")).resolve() / Path(data.path).name
        update = {"path": str(file)} if file.exists() else {"path": None, "target": None, "gaps": "ffill"}
        data = data.model_copy(update=update)
    return preset.model_copy(update={"data": data}), load_series(data, workspace)


def variant(trial: TrialConfig, data: dict[str, object], **model: object) -> TrialConfig:
    """The trial with some values replaced."""
    parts = {"data": trial.data.model_copy(update=data), "model": trial.model.model_copy(update=model)}
    return trial.model_copy(update=parts)


def report(rows: list[dict[str, object]], out: Path) -> None:
    """Print the table and write it."""
    for row in rows:
        print(f"{row['row']:<62}{row['ours']:>9}{row['peer']:>9}{row['ratio']:>7}{row['wall_ratio']:>7}")
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, {"rows": rows, "machine": machine.describe().as_dict(), "versions": versions})


def main(seconds: float) -> int:
    """Check, measure, print, write; the exit status."""
    workspace = Workspace.locate(os.environ, Path.cwd())
    default, weather = read("default", workspace)
    faithful, ett = read("etth1-faithful", workspace)
    medium = variant(faithful, {"input_length": 96, "label_share": 0.5, "horizon": 48}, factor=5)
    long = variant(faithful, {"input_length": 168, "label_share": 1.0, "horizon": 168}, factor=5)
    cases = [
        ("default, width 32, input 96, horizon 24", default, weather),
        ("faithful, width 64, input 48, horizon 24", faithful, ett),
        ("faithful, width 64, input 96, horizon 48", medium, ett),
        ("faithful, width 64, input 168, horizon 168", long, ett),
    ]
    torch.set_num_threads(1)
    for name, trial, series in cases:
        full = largest_difference(variant(trial, {}, attention="full"), series)
        sparse = largest_difference(trial, series)
        if max(full, sparse) > 1e-4:
            print(f"{name}: losses differ by {full:.2g} (full attention), {sparse:.2g} (ProbSparse)")
            return 1
    works = [steps(f"{STEPS} steps, {name}", trial, series) for name, trial, series in cases]
    works.append(epoch(f"One epoch, {cases[0][0]}", default, weather))
    print(f"{'':<62}{'ours s':>9}{'port s':>9}{'ratio':>7}{'wall':>7}")
    rows = [measure(work, seconds) for work in works]
    report(rows, OUT)
    slow = [row["row"] for row, work in zip(rows, works, strict=True) if work.held and float(str(row["ratio"])) < LIMIT]
    print(f"losses equal to 1e-4; limit for steps {LIMIT}; written to {OUT}" + "".join(f"\nBELOW: {s}" for s in slow))
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 20))
