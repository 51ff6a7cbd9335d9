"""The options that commands share: a command shows those that it takes, and refuses the others."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from typer.main import get_command

from agentlab.commands import COMMANDS
from cli.main import build_app
from tests.cli.conftest import Answer

KEYS = {"--seed": "seed", "--max-cost": "llm", "--control": "control"}  # of the config, which the flag changes


def experiments() -> Iterator[tuple[str, str, set[str]]]:
    """(command, subcommand, its flags) of all that start an experiment."""
    root: Any = get_command(build_app())
    for command in COMMANDS:
        for name, child in root.commands[command].commands.items():
            flags = {flag for parameter in child.params for flag in parameter.opts}
            if "--seed" in flags:
                yield command, name, flags


@pytest.mark.parametrize(("command", "name", "flags"), [pytest.param(*each, id=each[1]) for each in experiments()])
def test_a_flag_is_shown_where_the_config_has_its_key(command: str, name: str, flags: set[str]) -> None:
    fields = COMMANDS[command].config_model().model_fields
    command_flags = {flag for flag in KEYS if flag in flags}
    config_flags = {flag for flag, key in KEYS.items() if key in fields}
    assert command_flags == (
        config_flags if (command, name) != ("nas", "train") else {"--seed"}
    )  # it trains alone, without an agent


@pytest.mark.parametrize(
    "words",
    [
        ("pipeline", "demo", "--control", "full"),
        ("llm-bench", "demo", "--control", "full"),
        ("train-persona", "demo", "--control", "full"),
        ("train-persona", "demo", "--max-cost", "1"),
        ("nas", "train", "demo", "--control", "full"),
    ],
)
def test_an_option_that_a_command_does_not_take_is_unknown_to_it(
    agentlab: Callable[..., Answer], words: tuple[str, ...]
) -> None:
    refused = agentlab(*words, "--dry-run")
    assert refused.code == 2
    assert f"No such option: {words[-2]}" in refused.err
    group = words[:2] if words[1] == "train" else words[:1]
    assert words[-2] not in agentlab(*group, "--help").out
