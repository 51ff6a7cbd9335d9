"""Command lines: every command and flag of the application, with values that hardly anybody means."""

from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.case import Case
from tests.fuzz.mutate import ODD_NUMBERS, ODD_TEXTS

# What makes a command harmless: nothing is trained, served or loaded, and an absent variable ends `serve` early.
LAST = {"serve": ["--token-env=NOT_SET"], "models pull": ["--source=nowhere"], "debate eval": ["--limit=0"]}
USUAL = ("demo", "default", "made", "last", "adapter", "base", "far.yaml", "made:a", "nas", "json", "gguf", "1", "2")
COPIES = {"adapters/adapter": "adapter", "models/base": "checkpoint", "runs": "pipeline", "runs/killed": "nas/killed"}


def command_line(rng: Random, _: Path) -> Case:
    """One command with up to six words."""
    name = rng.choice(list(_commands()))
    flags, takes_words = _commands()[name]
    words = [rng.choice(("--json", "-q", "-v", "--", "-h", rng.choice(ODD_TEXTS)))] if rng.random() < 0.03 else []
    words += name.split()
    if takes_words or rng.random() < 0.1:
        words += [_value(rng) for _ in range(rng.choice((0, 1, 1, 1, 2, 3)))]
    for flag, has_value in rng.sample(list(flags.items()), min(len(flags), rng.randint(0, 4))):
        if not has_value:
            words.append(flag)
        elif rng.random() < 0.5:
            words.append(f"{flag}={_value(rng)}")
        else:
            words += [flag, _value(rng)]
    words += LAST.get(name, [])
    if "--dry-run" in flags:
        words.append("--dry-run")
    if "--set" in flags and rng.random() < 0.7:
        words.append(rng.choice(("--set=llm=none", "--set=llm=scripted")))
    words = [word.replace("\x00", "") for word in words]
    if name == "init":  # a workspace is made where it is asked for, in the folder above, too
        words = ["new" if word == ".." else word for word in words]
    return Case([["agentlab", *words]], copies=COPIES if rng.random() < 0.5 else {})


def _value(rng: Random) -> str:
    match rng.randrange(4):
        case 0:
            return str(rng.choice(ODD_NUMBERS))
        case 1:
            return rng.choice(USUAL)
        case 2:
            return f"{rng.choice(('seed', 'llm', 'model.d_model', 'a.b', 'budget.trials', ''))}={rng.choice(ODD_TEXTS)}"
        case _:
            return rng.choice(ODD_TEXTS)


@cache
def _commands() -> dict[str, tuple[dict[str, bool], bool]]:
    """By name: its flags, each with whether it takes a value, and whether the command takes words."""
    from typer.main import get_command

    from cli.main import build_app

    commands: dict[str, tuple[dict[str, bool], bool]] = {}

    def visit(command: Any, words: tuple[str, ...]) -> None:
        for name, child in getattr(command, "commands", {}).items():
            visit(child, (*words, name))
        if not getattr(command, "commands", {}):
            flags = {option.opts[0]: not option.is_flag for option in command.params if option.opts[0].startswith("-")}
            commands[" ".join(words)] = flags, len(flags) < len(command.params)

    visit(get_command(build_app()), ())
    return commands
