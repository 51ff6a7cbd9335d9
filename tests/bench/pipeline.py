"""What a pipeline costs beside llama-cpp-python called by hand, and what it saves. The embedded model, real runs.

By hand means: one process, one loaded model, the same prompts one after another through `create_chat_completion`, each
from an empty sequence. Both sides take turns in this run, with the same threads, batch and attention. Held:

    three answers of 128 tokens     at most 2 % more time than by hand, and the same texts to the byte
    twenty answers of 4 tokens      at most 15 ms more for each stage
    an identical run again          at most 0.8 s from the shell, and no model is loaded
    another fifth stage of six      stages 5 and 6 alone are asked
    twelve stages over three models with room for two      as many loads as the exact optimum, 40 % fewer than LRU
    four questions about one text   at least 5 times fewer tokens read for the second to fourth

Usage: python tests/bench/pipeline.py [ROUNDS]    5 unless told; writes .agentlab/bench/pipeline.json; exit 1 if missed
"""

import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from agentlab import machine
from agentlab.config.workspace import Workspace
from agentlab.gguf import metadata
from agentlab.models import store
from agentlab.pipeline.schedule.plan import least_recently_used
from agentlab.runs.atomic import write_json
from agentlab.runs.context import Context
from agentlab.session import FinishedRun, Watch, begin

OUT = Path(".agentlab/bench/pipeline.json")
EMBEDDED = "smollm2-135m"
THREADS = 1  # a second thread that waits for a busy core would decide the comparison
QUESTION = "Tell me about the history of the lighthouse, in as much detail as you can."
DOCUMENT = " ".join(
    f"Paragraph {n}: the keeper of lighthouse {n} noted wind, lamp oil and ships that passed in the night."
    for n in range(60)
)

BY_HAND = """
import json, sys, time, llama_cpp
path, threads = sys.argv[1], int(sys.argv[2])
llama = llama_cpp.Llama(path, n_ctx=2048, n_batch=128, n_ubatch=128, n_threads=threads, n_threads_batch=threads,
                        flash_attn=True, verbose=False)
print("ready", flush=True)
for line in sys.stdin:
    job = json.loads(line)
    text, texts, began = job["input"], [], time.monotonic()
    for suffix in job["suffixes"]:
        llama.reset()
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(llama.ctx), True)
        said = llama.create_chat_completion([{"role": "user", "content": text + suffix}], temperature=0.0,
                                            max_tokens=job["max_tokens"], seed=1, min_p=0.05, top_p=0.95, top_k=40)
        text = said["choices"][0]["message"]["content"]
        texts.append(text)
    print(json.dumps({"seconds": time.monotonic() - began, "texts": texts}), flush=True)
"""


@dataclass
class Row:
    """A line of the table. `limit` is what `ratio` may be at most, or at least."""

    row: str
    ours: float
    peer: float
    peer_name: str
    unit: str
    better: str
    limit: float | None = None
    held: bool = True

    @property
    def ratio(self) -> float:
        return self.ours / self.peer if self.peer else float("inf")


@contextlib.contextmanager
def by_hand(model: Path) -> Iterator[Any]:
    """A process that answers chains of prompts with llama-cpp-python."""
    process = subprocess.Popen(
        [sys.executable, "-c", BY_HAND, str(model), str(THREADS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **machine.worker_environment(THREADS)},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    if process.stdout.readline().strip() != "ready":
        raise SystemExit("llama-cpp-python cannot load the model; its message stands above")

    def ask(suffixes: list[str], max_tokens: int) -> dict[str, Any]:
        assert process.stdin is not None
        assert process.stdout is not None
        job = {"input": QUESTION, "suffixes": suffixes, "max_tokens": max_tokens}
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        reply: dict[str, Any] = json.loads(process.stdout.readline())
        return reply

    try:
        yield ask
    finally:
        process.kill()
        process.wait()


class Home:
    """A workspace of its own, in which pipelines run."""

    def __init__(self, root: Path, model: Path) -> None:
        (root / "models").mkdir(parents=True)
        self.root, self.file = root, model.name
        for name in (model.name, "one.gguf", "two.gguf", "three.gguf"):
            os.link(model, root / "models" / name) if model.stat().st_dev == root.stat().st_dev else shutil.copy(
                model, root / "models" / name
            )
        self.context = Context(workspace=Workspace(root, root / "cache"), env=dict(os.environ))

    def config(self, stages: list[dict[str, Any]], **settings: Any) -> dict[str, Any]:
        """A config over the embedded model `m`, and its copies `one`, `two` and `three`."""
        files = {"m": self.file, "one": "one.gguf", "two": "two.gguf", "three": "three.gguf"}
        return {
            "models": {name: {"file": file, "required_for_base": False} for name, file in files.items()},
            "base_pipeline": {"stages": stages},
            "input": QUESTION,
            "cache": "off",
            "resources": {"threads": THREADS, **settings.pop("resources", {})},
            **settings,
        }

    def run(self, config: dict[str, Any]) -> FinishedRun[Any]:
        session = begin("pipeline", config, [], context=self.context, runs_dir=self.context.workspace.runs)
        return session.carry_out(Watch())

    def shell(self, *words: str) -> tuple[float, dict[str, Any]]:
        """Seconds and document of `agentlab pipeline ... --json`."""
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "agentlab", "pipeline", *words, "--json", "--quiet"],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "AGENTLAB_HOME": str(self.root)},
            cwd=self.root,
        )
        return time.monotonic() - began, json.loads(done.stdout)


def chain(count: int, max_tokens: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Stages that read one another, and what they add to the text they read."""
    suffixes = ["", *(f"\n\nContinue this text, part {n}." for n in range(2, count + 1))]
    stages = [
        {"id": f"s{n}", "model": "m", "prompt": "{{ input }}" + suffix, "max_tokens": max_tokens, "seed": 1}
        for n, suffix in enumerate(suffixes, 1)
    ]
    return stages, suffixes


def events(run: FinishedRun[Any]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.path / "events.jsonl").read_text().splitlines()]


def worked(run: FinishedRun[Any]) -> float:
    """Seconds from the loaded model to the end of the last stage."""
    times = {event["type"]: event["t"] for event in events(run)}
    return float(times["stage.finished"] - times["model.loaded"])


def texts(run: FinishedRun[Any], home: Home) -> list[str]:
    from agentlab.pipeline.store import Store

    text_store = Store(home.root / ".agentlab" / "pipeline")
    shas = [event["data"]["sha"] for event in events(run) if event["type"] == "call.answered"]
    return [text_store.text(sha) or "" for sha in shas]


def overhead(home: Home, ask: Any, rounds: int) -> list[Row]:
    """The same chains on both sides, in turn."""
    rows = []
    for count, max_tokens in ((3, 128), (20, 4)):
        stages, suffixes = chain(count, max_tokens)
        ours, theirs = [], []
        for number in range(rounds + 1):
            if number % 2:  # who comes first may find another machine than who comes second
                hand, run = ask(suffixes, max_tokens), home.run(home.config(stages))
            else:
                run, hand = home.run(home.config(stages)), ask(suffixes, max_tokens)
            if texts(run, home) != hand["texts"]:
                raise SystemExit(f"the texts differ:\n{texts(run, home)}\n{hand['texts']}")
            if number:  # the first round warms up
                ours.append(worked(run))
                theirs.append(hand["seconds"])
        mine, peer = statistics.median(ours), statistics.median(theirs)
        paired = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
        extra = statistics.median((a - b) / count for a, b in zip(ours, theirs, strict=True)) * 1000
        is_met = paired <= 1.02 if max_tokens == 128 else extra <= 15
        note = f"{paired - 1:+.1%}, {extra:+.1f} ms a stage"
        title = f"{count} answers of {max_tokens} tokens, same texts ({note})"
        rows.append(Row(title, mine, peer, "by hand", "s", "lower", held=is_met))
    return rows


def rerun(home: Home) -> list[Row]:
    """The same again from the shell, and with another fifth stage."""
    stages, _ = chain(6, 24)
    path = home.root / "six.yaml"
    path.write_text(json.dumps(home.config(stages, cache="use")))
    first, answer = home.shell("run", str(path))
    repeats = [home.shell("run", str(path)) for _ in range(5)]
    seconds = statistics.median(s for s, _ in repeats)
    loads = max(document["result"]["loads"] for _, document in repeats)
    same = all(document["result"]["items"] == answer["result"]["items"] for _, document in repeats)
    rows = [
        Row(
            f"identical run from the shell, {loads} loads",
            seconds,
            first,
            "first run",
            "s",
            "lower",
            held=seconds <= 0.8 and loads == 0 and same,
        )
    ]
    _, changed = home.shell("rerun", "last", "--from", "s5", "--set", "base_pipeline.stages.s5.max_tokens=12")
    asked_stages = [stage["stage"] for stage in changed["result"]["stages"] if stage["asked"]]
    rows.append(
        Row(
            f"changed s5 of six: asked {asked_stages}",
            len(asked_stages),
            6,
            "all",
            "stages",
            "lower",
            held=asked_stages == ["s5", "s6"],
        )
    )
    return rows


def swaps(home: Home) -> Row:
    """Twelve stages in three chains over three models, with room for two."""
    names = ("one", "two", "three")
    stages = [
        {
            "id": f"s{n}",
            "model": names[n % 3],
            "input_from": "input" if n < 2 else f"s{n - 2}",
            "max_tokens": 4,
            "prompt": "{{ input }} " + str(n),
        }
        for n in range(12)
    ]
    size = metadata.read(home.root / "models" / "one.gguf").file_bytes
    config = home.config(stages, resources={"ram_gib": 500 / 1024}, defaults={"n_ctx": 512})
    session = begin("pipeline", config, [], context=home.context, runs_dir=home.context.workspace.runs)
    experiment: Any = session.experiment
    best = experiment.schedule
    lru = least_recently_used([unit.job() for unit in experiment.units], best.room)
    if 2 * size > best.room.budget or best.room.budget > 3 * min(best.room.sizes.values()):
        raise SystemExit("the budget is not one for two models")
    done = session.carry_out(Watch())
    loads = done.result.loads
    is_met = best.method == "exact" and loads == best.loads and loads <= 0.6 * lru.loads
    return Row(
        f"loads of 12 stages over 3 models, room for 2 (optimum {best.loads})",
        loads,
        lru.loads,
        "LRU",
        "loads",
        "lower",
        held=is_met,
    )


def prefix(home: Home) -> Row:
    """Four questions about one text, the text first."""
    stages = [
        {
            "id": f"q{n}",
            "model": "m",
            "input_from": "input",
            "max_tokens": 4,
            "prompt": "{{ input }}\n\nQuestion " + f"{n}: what did keeper {n} note?",
        }
        for n in range(4)
    ]
    run = home.run({**home.config(stages), "input": DOCUMENT})
    answers = [event["data"]["answer"] for event in events(run) if event["type"] == "call.answered"]
    fresh = [answer["prompt_tokens"] - answer["reused_tokens"] for answer in answers]
    later = statistics.mean(fresh[1:])
    return Row(
        f"tokens read, questions 2-4 of a text of {fresh[0]}",
        later,
        fresh[0],
        "question 1",
        "tokens",
        "lower",
        held=fresh[0] >= 5 * later,
    )


def show(rows: list[Row]) -> None:
    width = max(len(row.row) for row in rows)
    for row in rows:
        print(
            f"{row.row:{width}}  {row.ours:9.3f}  {row.peer:9.3f} {row.unit:6}  {row.peer_name:11} {row.ratio:6.3f}  "
            f"{'held' if row.held else 'MISSED'}"
        )


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    model = store.find(EMBEDDED, Workspace.locate(os.environ, Path.cwd()))
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="agentlab-bench-", dir=Path.cwd()) as folder:
        home = Home(Path(folder) / "home", model)
        with by_hand(model) as ask:
            rows = overhead(home, ask, rounds)
        rows += [*rerun(home), swaps(home), prefix(home)]
    show(rows)
    print(f"load before: {load:.2f}; {THREADS} thread; {rounds} rounds; llama-cpp-python {version('llama-cpp-python')}")
    OUT.parent.mkdir(parents=True, exist_ok=True)
    documents = [{**{k: v for k, v in vars(row).items() if k != "limit"}, "ratio": row.ratio} for row in rows]
    versions = {name: version(name) for name in ("llama-cpp-python", "jinja2")}
    write_json(
        OUT,
        {
            "rows": documents,
            "machine": {"cores": machine.cores(), "load": load, "system": platform.platform()},
            "versions": versions,
        },
    )
    return 0 if all(row.held for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
