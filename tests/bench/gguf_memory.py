"""The estimate of a GGUF model's memory against what its worker really takes.

Each shape (context, batch, flash attention, type of cache) gets a fresh worker and a prompt that fills its context to
within 64 tokens, so that the peak is touched. Held, for the formula and for the dry run of the engine:

    resident peak    within 5 % or 16 MiB of VmHWM
    cache            formula within 1 % of the engine's own word
    compute buffer   formula within 2 % of the engine's own word
    weights          formula within 1 % of the file's pages that the worker maps

Beside it stands the rule of thumb of the field, file size times 1.2. With --cycles N a model is loaded, asked and
unloaded N times: this process may grow by 8 MiB. The exit status is 1 beyond a limit.

Usage: python tests/bench/gguf_memory.py [--quick] [--cycles N]    writes .agentlab/bench/gguf-memory.json
"""

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from agentlab import machine
from agentlab.config.workspace import Workspace
from agentlab.gguf.dry_run import dry_run
from agentlab.gguf.engine import EngineConfig
from agentlab.gguf.fingerprint import engine_build, fingerprint
from agentlab.gguf.memory import MemoryEstimate, MemoryShape, estimate
from agentlab.gguf.metadata import GgufMetadata, read
from agentlab.gguf.process import WorkerEngine
from agentlab.models.store import find
from agentlab.runs.atomic import write_json
from agentlab.workers import memory
from agentlab.workers.chat import EngineRequest

OUT = Path(".agentlab/bench/gguf-memory.json")
MIB = 1 << 20
ANSWER = 8  # tokens
PEAK_SHARE, PEAK_BYTES = 0.05, 16 * MIB
CACHE_SHARE, COMPUTE_SHARE, WEIGHTS_SHARE = 0.01, 0.02, 0.01
GROWTH_BYTES = 8 * MIB
ROUNDING = 0.01 * MIB  # of the engine's log


@dataclass(frozen=True)
class Row:
    """One shape: both estimates, and what its worker took."""

    shape: MemoryShape
    formula: MemoryEstimate
    exact: MemoryEstimate
    prompt: int  # tokens
    peak: int
    private: int
    mapped: int  # resident pages of the model's file

    @property
    def title(self) -> str:
        """The shape in words."""
        flash = "flash" if self.shape.flash else "no flash"
        return f"{self.shape.context:>5} {self.shape.batch:>4} {flash:>9} {self.shape.kv_type:>5}"

    def misses(self) -> Iterator[str]:
        """The limits that do not hold."""
        for figure in (self.formula, self.exact):
            if abs(figure.resident - self.peak) > max(PEAK_SHARE * self.peak, PEAK_BYTES):
                yield f"{self.title}: {figure.source} says {figure.resident / MIB:.1f} MiB, not {self.peak / MIB:.1f}"
        for part, share, ours, measured in (
            ("cache", CACHE_SHARE, self.formula.cache, self.exact.cache),
            ("compute buffer", COMPUTE_SHARE, self.formula.compute, self.exact.compute),
            ("weights", WEIGHTS_SHARE, self.formula.weights, self.mapped),
        ):
            if abs(ours - measured) > max(share * measured, ROUNDING):
                yield f"{self.title}: {part} is said to take {ours / MIB:.2f} MiB, and takes {measured / MIB:.2f}"


def grid(quick: bool) -> list[MemoryShape]:
    """Every combination; the quick one has a single shape with the longest context."""
    ways = [(False, "f16"), (True, "f16"), (True, "q8_0")]
    contexts = (512, 2048) if quick else (512, 2048, 8192)
    shapes = [MemoryShape(n, u, flash, kv) for n in contexts for u in (64, 128, 512) for flash, kv in ways]  # type: ignore[arg-type]
    return [*shapes, MemoryShape(8192, 128, True)] if quick else shapes


def engine_of(path: Path, shape: MemoryShape) -> WorkerEngine:
    """A worker that is not started yet."""
    return WorkerEngine(
        EngineConfig(path, context=shape.context, batch=shape.batch, flash=shape.flash, kv_type=shape.kv_type)
    )


def ask(engine: WorkerEngine, words: int) -> int:
    """Ask a question of so many words; the number of tokens it had."""
    content = " ".join(["word"] * words)
    request = EngineRequest([{"role": "user", "content": content}], max_tokens=ANSWER, seconds=900.0)
    return [chunk.prompt_tokens for chunk in engine.chat(request)][-1] or 0


def tokens_of_words(path: Path) -> tuple[int, float]:
    """(tokens around a question, tokens per word)."""
    engine = engine_of(path, MemoryShape(512, 128, True))
    try:
        few, many = ask(engine, 10), ask(engine, 110)
    finally:
        engine.close()
    return round(few - (many - few) / 10), (many - few) / 100


def mapped_bytes(pid: int, path: Path) -> int:
    """Resident pages of the model's file: those of its tensors, because llama.cpp unmaps the header."""
    lines = iter(Path(f"/proc/{pid}/smaps").read_text().splitlines())
    resident = 0
    for line in lines:
        if line.endswith(str(path)):
            resident += next(int(field.split()[1]) for field in lines if field.startswith("Rss:")) * 1024
    return resident


def measure(
    path: Path, metadata: GgufMetadata, shape: MemoryShape, around: int, per_word: float, cache_file: Path
) -> Row:
    """Load a model, fill its context, and read what that took."""
    key = f"{fingerprint(path)} {engine_build()}"
    exact = dry_run(path, shape, key, cache_file)
    if exact is None:
        raise SystemExit("the engine did not answer a dry run")
    engine = engine_of(path, shape)
    try:
        prompt = ask(engine, int((shape.context - ANSWER - around) / per_word))
        usage, pid = engine.measured(), engine.worker_pid
        if usage is None or pid is None:
            raise SystemExit("this system does not say what a process takes")
        mapped = mapped_bytes(pid, path)
    finally:
        engine.close()
    if prompt < shape.context - 64:
        raise SystemExit(f"a prompt of {prompt} tokens does not fill a context of {shape.context}")
    return Row(
        shape, estimate(metadata, shape), estimate(metadata, shape, exact), prompt, usage.peak, usage.private, mapped
    )


def growth(path: Path, cycles: int) -> int:
    """Bytes that this process grows by, from the second load and unload to the last."""
    before = 0
    for number in range(cycles):
        engine = engine_of(path, MemoryShape(512, 128, True))
        ask(engine, 1)
        engine.close()
        usage = memory.of(os.getpid())
        if usage is None:
            raise SystemExit("this system does not say what a process takes")
        before = before or usage.resident
        print(f"cycle {number + 1}: {usage.resident / MIB:.2f} MiB", file=sys.stderr)
    return usage.resident - before


def table(rows: list[Row], file_bytes: int) -> None:
    """Print what was found, in MiB."""
    print(f"{'shape':<27}{'peak':>8}{'formula':>9}{'':>7}{'dry run':>9}{'':>7}{'size x1.2':>10}{'':>6}", end="")
    print(f"{'private':>9}{'mapped':>8}{'cache':>8}{'formula':>8}{'compute':>9}{'formula':>8}")
    for row in rows:
        cells = [f"{row.title:<27}{row.peak / MIB:>8.1f}"]
        for resident in (row.formula.resident, row.exact.resident, int(1.2 * file_bytes)):
            cells.append(f"{resident / MIB:>9.1f}{resident / row.peak - 1:>+7.1%}")
        cells.append(f"{row.private / MIB:>9.1f}{row.mapped / MIB:>8.1f}")
        cells.append(f"{row.exact.cache / MIB:>8.2f}{row.formula.cache / MIB:>8.2f}")
        cells.append(f"{row.exact.compute / MIB:>9.2f}{row.formula.compute / MIB:>8.2f}")
        print("".join(cells))


def as_rows(rows: list[Row], file_bytes: int) -> Iterator[dict[str, object]]:
    """The rows of the JSON file: how far off, ours and the rule of thumb."""
    for row in rows:
        ours = abs(row.exact.resident / row.peak - 1) * 100
        peer = abs(1.2 * file_bytes / row.peak - 1) * 100
        yield {
            "row": " ".join(row.title.split()),
            "ours": round(ours, 3),
            "peer": round(peer, 3),
            "peer_name": "file size x 1.2",
            "unit": "% off the peak",
            "better": "lower",
            "ratio": round(peer / max(ours, 0.001), 2),
        }


def main() -> int:
    """Measure, print, write; the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--cycles", type=int, default=0)
    options = parser.parse_args()
    path = find("smollm2-135m", Workspace.locate(os.environ, Path.cwd()))
    missed: list[str] = []
    if options.cycles:
        grown = growth(path, options.cycles)
        print(f"{options.cycles} loads and unloads: grown by {grown / MIB:.2f} MiB (at most {GROWTH_BYTES / MIB:g})")
        return 1 if grown > GROWTH_BYTES else 0
    metadata, rows = read(path), []
    around, per_word = tokens_of_words(path)
    with tempfile.TemporaryDirectory() as folder:
        for shape in grid(options.quick):
            rows.append(measure(path, metadata, shape, around, per_word, Path(folder) / "dry-runs.json"))
            missed += rows[-1].misses()
            print(f"{rows[-1].title} done, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    table(rows, metadata.file_bytes)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    versions = {"llama-cpp-python": version("llama-cpp-python"), "python": platform.python_version()}
    about = {"machine": machine.describe().as_dict(), "versions": versions}
    write_json(OUT, {"rows": list(as_rows(rows, metadata.file_bytes)), **about})
    print(f"{len(rows)} shapes, written to {OUT}" + "".join(f"\nMISSED: {text}" for text in missed))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
