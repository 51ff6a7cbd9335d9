"""Folders of real runs with a file that is damaged, gone, or something else."""

import json
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.case import Case, agentlab
from tests.fuzz.mutate import as_json, damaged_bytes, damaged_json, damaged_tree

RUNS = {"completed": "nas/completed", "killed": "nas/killed", "made": "pipeline/made"}
TEXTS = {".json", ".jsonl", ".yaml", ".txt", ".md"}
OF_ALL = """
runs list
runs show NAME
runs compare NAME completed
runs export NAME --out made.zip
runs path NAME
runs rm NAME --yes
compress watch NAME
debate replay NAME
evolve export NAME --out x
llm-bench compare NAME completed
""".strip().splitlines()
OF_NAS = """
nas --resume NAME --dry-run
nas export NAME --out x
nas predict NAME --input y.csv
""".strip().splitlines()
OF_PIPELINE = """
runs resume NAME
pipeline why NAME a
pipeline diff NAME NAME
pipeline tree
pipeline rerun NAME --from b --run-name again
pipeline history show NAME
pipeline history list
pipeline history search x
pipeline history export NAME --out made.json --format json
pipeline --resume NAME
""".strip().splitlines()


def run_folder(rng: Random, shelf: Path) -> Case:
    """One or two files of one run are damaged; every command that reads runs may come."""
    name = rng.choice(list(RUNS))
    folder = shelf / RUNS[name]
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix in TEXTS]
    likely = [path for path in paths if path.parent == folder]
    files = {}
    for path in rng.choices(likely if rng.random() < 0.8 else paths, k=rng.randint(1, 2)):
        files[f"runs/{name}/{path.relative_to(folder)}"] = _damaged(rng, path)
    line = rng.choice(OF_ALL + (OF_PIPELINE if name == "made" else OF_NAS)).replace("NAME", name)
    return Case([agentlab(line)], files, {f"runs/{name}": RUNS[name], "runs/completed": RUNS["completed"]})


def _damaged(rng: Random, path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix == ".json":
        return damaged_json(rng, content)
    if path.suffix != ".jsonl" or not content or rng.random() < 0.2:
        return damaged_bytes(rng, content)
    lines: list[Any] = content.splitlines()
    index = rng.randrange(len(lines))
    lines[index] = as_json(damaged_tree(rng, json.loads(lines[index])))
    return b"\n".join(lines) + b"\n"
