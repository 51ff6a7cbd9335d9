"""How many requests per second our client can send, against guidellm on the same mock server.

The server runs on a core of its own, both clients in turn on the other cores. Each round measures every row with each,
in random order; guidellm is asked for what it reports itself. Held: our median rate is at least guidellm's in each row.

guidellm lives in `.venv-peers/guidellm`, which is made on demand with its newest version. It wants torch, transformers
and datasets, which it finds in our environment; what it wants beside them is installed into its own.

Usage: python tests/bench/llm_bench_rate.py [ROUNDS]     3 unless told; writes .agentlab/bench/llm-bench-rate.json; exit
1 below guidellm. A round takes two to five minutes, most of which guidellm takes to start.
"""

import asyncio
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from importlib.metadata import version
from pathlib import Path

from agentlab import machine
from agentlab.bench.load.sending import client, request_rate
from agentlab.bench.mock.server import in_process
from agentlab.config.workspace import Workspace
from agentlab.runs.atomic import write_json

OUT = Path(".agentlab/bench/llm-bench-rate.json")
PEER = Path(".venv-peers/guidellm").absolute()
SECONDS = 5.0
ROWS = {"16 at a time, 1 token": (16, 1), "64 at a time, 1 token": (64, 1), "16 at a time, 64 tokens": (16, 64)}


def ours(url: str, concurrency: int, tokens: int) -> float:
    """Requests per second of the client of `llm-bench`."""

    async def measure() -> float:
        clock = asyncio.get_running_loop().time
        model = client(url, Workspace.locate(os.environ, Path.cwd()))
        try:
            await request_rate(model, f"ok-n{tokens}", concurrency, 1.0, clock)  # opens the connections
            return await request_rate(model, f"ok-n{tokens}", concurrency, SECONDS, clock)
        finally:
            await model.close()

    return asyncio.run(measure())


def guidellm(url: str, concurrency: int, tokens: int, folder: Path) -> float:
    """Requests per second as guidellm reports them."""
    prompts, report = folder / "prompts.jsonl", folder / "report.json"
    lines = (json.dumps({"prompt": f"How fast can you be asked? {number}"}) for number in range(20_000))
    prompts.write_text("\n".join(lines), encoding="utf-8")
    server = f"target={url.removesuffix('/v1')},model=ok-n{tokens},request_format=/v1/chat/completions"
    command = [
        str(PEER / "bin" / "guidellm"),
        "run",
        *("--backend", f"kind=openai_http,{server},validate_backend=false"),
        *("--profile", f"kind=concurrent,streams={concurrency}"),
        *("--constraint", f"kind=max_duration,seconds={SECONDS:g}"),
        *("--data", f"kind=json_file,path={prompts}"),
        *("--output", f"kind=json,path={report}"),
        "--disable-console",
    ]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, timeout=300)
    if done.returncode:
        raise SystemExit(f"guidellm failed: {done.stderr[-2000:]}")
    metrics = json.loads(report.read_text(encoding="utf-8"))["benchmarks"][0]["metrics"]["requests_per_second"]
    return float(metrics["successful"]["mean"])


def install() -> None:
    """Make guidellm's environment if it is not there."""
    if (PEER / "bin" / "guidellm").exists():
        return
    print(f"making {PEER}, which takes a minute", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", str(PEER)], check=True)
    python = PEER / "bin" / "python"
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = subprocess.run([str(python), "-c", where], capture_output=True, text=True, check=True).stdout.strip()
    Path(packages, "shared.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", "guidellm"], check=True)


def peer_version() -> str:
    """Of guidellm."""
    script = "from importlib.metadata import version; print(version('guidellm'))"
    done = subprocess.run([str(PEER / "bin" / "python"), "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def apart() -> int | None:
    """The core of the server; this process and what it starts keep to the others."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) < 2:
        return None
    os.sched_setaffinity(0, set(cores[1:]))
    return cores[0]


def main(rounds: int) -> int:
    """Measure, print, write; the exit status."""
    install()
    core = apart()
    rates: dict[str, dict[str, list[float]]] = {row: {"ours": [], "guidellm": []} for row in ROWS}
    with tempfile.TemporaryDirectory(prefix="agentlab-") as folder, in_process(core=core) as url:
        for number in range(rounds):
            for row, (concurrency, tokens) in ROWS.items():
                for name in random.sample(["ours", "guidellm"], 2):
                    peer = name == "guidellm"
                    rate = guidellm(url, concurrency, tokens, Path(folder)) if peer else ours(url, concurrency, tokens)
                    rates[row][name].append(rate)
                    print(f"round {number + 1}, {row}, {name}: {rate:.0f}/s, load {os.getloadavg()[0]:.1f}")
    rows = []
    for row, measured in rates.items():
        mine, theirs = statistics.median(measured["ours"]), statistics.median(measured["guidellm"])
        rows.append(
            {
                "row": f"Highest request rate, {row}",
                "ours": round(mine, 1),
                "peer": round(theirs, 1),
                "peer_name": "guidellm",
                "unit": "1/s",
                "better": "higher",
                "ratio": round(mine / theirs, 3),
            }
        )
    versions = {"python": platform.python_version(), "httpx": version("httpx"), "guidellm": peer_version()}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    write_json(OUT, {"rows": rows, "machine": machine.describe().as_dict(), "versions": versions})
    print(f"\n{'requests per second, median':<34}{'ours':>9}{'guidellm':>10}{'ratio':>8}")
    for line in rows:
        print(f"{line['row'].partition(', ')[2]:<34}{line['ours']:>9}{line['peer']:>10}{line['ratio']:>8}")
    print(f"written to {OUT}")
    return 0 if all(line["ratio"] >= 1 for line in rows) else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 3))
