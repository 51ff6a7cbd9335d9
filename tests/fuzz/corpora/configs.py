"""Configs of every command, damaged in their trees; and YAML that is hostile as such."""

import json
from pathlib import Path
from random import Random

from tests.fuzz.case import Case, agentlab
from tests.fuzz.mutate import ODD_TEXTS, as_json, damaged_bytes, damaged_tree
from tests.fuzz.shelf import KINDS, REPOSITORY

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
HOSTILE = (
    BOMB,
    *("a: &a\n  b: *a\n", "<<: [*x]\n", "&a a: *a\n", "? [1, 2]\n: 3\n", "{}: {}\n", "a: 1\na: 2\n", "--- a\n--- b\n"),
    *(
        "%YAML 9.9\n---\nseed: 1\n",
        "seed: |\n  a\n \tb\n",
        "\ufeffseed: 1\n",
        "null: 1\n",
        "true: 1\n",
        "2001-01-01: 1\n",
    ),
    *("a: " + "[" * 5000, "{" * 5000, "- " * 5000, "a: " + "9" * 5000, "a: 1e" + "9" * 400, "a" * 5000 + ": 1\n"),
    *(
        "'",
        "\t",
        "*",
        "!<tag:yaml.org,2002:python/object/apply:os.system> [id]\n",
        "llm: {extends: my}\n",
        "llm: ./my.yaml\n",
    ),
    *(
        f"seed: {value}\n"
        for value in (
            "0x1F",
            "1_000",
            "1:30",
            ".inf",
            "2001-01-01",
            "190:20:30.15",
            "!!set",
            "{a}",
            "!!binary",
            "aGk=",
            "!!!!",
        )
    ),
    *(
        f"extends: {name}\n"
        for name in ("my", "./my.yaml", "other.yaml", "[default, demo]", "../../x", "/dev/zero", "null", "5", "{}")
    ),
)
WITH_BASE = ("train-persona", "debate", "evolve", "compress")


def config(rng: Random, shelf: Path) -> Case:
    """A whole config with one to three damages."""
    kind = rng.choice(KINDS)
    tree = json.loads((shelf / "whole" / f"{kind}.json").read_text())
    if rng.random() < 0.1:
        tree |= json.loads((shelf / "whole" / f"{rng.choice(KINDS)}.json").read_text())
    tree = damaged_tree(rng, tree)
    if isinstance(tree, dict) and rng.random() < 0.2:
        tree["extends"] = rng.choice(("demo", "default", "my", *ODD_TEXTS))
    return Case([_line(rng, kind)], {"my.yaml": as_json(tree)}, {"models/base": "checkpoint"})


def yaml(rng: Random, _: Path) -> Case:
    """Hostile YAML alone, or inside a shipped preset."""
    kind = rng.choice(KINDS)
    shipped = sorted((REPOSITORY / "configs" / kind).glob("*.yaml"))
    text = rng.choice(HOSTILE)
    if rng.random() < 0.5:
        preset = rng.choice(shipped).read_text()
        text = rng.choice((preset + text, text + preset, preset.replace(": ", f": {text.strip()} ", 1), preset))
        content = damaged_bytes(rng, text.encode())
    else:
        content = text.encode()
    files: dict[str, bytes] = {"my.yaml": content, "other.yaml": b"extends: ./my.yaml\n"}
    if rng.random() < 0.3:
        files[f"configs/{kind}/my.yaml"] = content
    return Case([_line(rng, kind)], files)


def _line(rng: Random, kind: str) -> list[str]:
    """A command that reads the config; mostly the dry run of its own."""
    if rng.random() < 0.3:
        return agentlab(rng.choice((f"configs validate ./my.yaml --command {kind}", f"configs show {kind} ./my.yaml")))
    if kind == "llm":
        lines = ("llm show ./my.yaml", "serve ./my.yaml --token-env NOT_SET", "nas demo --dry-run --set llm=./my.yaml")
        return agentlab(rng.choice(lines))
    base = "--base base" if kind in WITH_BASE and rng.random() < 0.8 else ""
    return agentlab(f"{kind} ./my.yaml --dry-run {base} {rng.choice(('', '--set=llm=scripted', '--set=llm=none'))}")
