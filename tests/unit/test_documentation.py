"""What the pages show works: every config is valid, every command line names commands and flags that exist."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from typer.main import get_command

from agentlab.commands import COMMANDS
from agentlab.config.yaml_tree import read_yaml
from agentlab.errors import ConfigError
from agentlab.llm.config import LLMConfig
from agentlab.pipeline.stage_config import Stage
from cli.main import build_app

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = [page for page in sorted(DOCS.rglob("*.md")) if page.name != "cli.md"]  # cli.md is made of the commands
OTHERS = ("task: mytask", "error: ", "api_key: ")  # a task of lm-eval, what commands print, a line of a provider
STAGE = {"id": "draft", "model": "smollm2", "prompt": "{{ input }}"}  # what a part of a stage lacks


def list_blocks(page: Path) -> Iterator[str]:
    """The text of the indented and of the fenced blocks."""
    text = page.read_text(encoding="utf-8")
    yield from re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    for block in re.findall(r"(?:^    .*\n(?:[ \t]*\n(?=    ))?)+", text, re.MULTILINE):
        yield "\n".join(line[4:] for line in block.splitlines())


def list_configs(page: Path) -> Iterator[str]:
    for block in list_blocks(page):
        if re.match(r"[a-z_]+:(\s|$)", block) and not block.startswith(OTHERS):
            yield re.split(r"^(?:\$ )?agentlab ", block, maxsplit=1, flags=re.MULTILINE)[0]


def list_targets(tree: dict[str, Any]) -> Iterator[tuple[type[BaseModel], dict[str, Any]]]:
    """The models that a config may be of, or a part of, with the whole that it makes of it."""
    tree = {name: value for name, value in tree.items() if name != "llm" or isinstance(value, dict)}  # or a preset
    models = [LLMConfig, *(command.config_model() for command in COMMANDS.values())]
    yield from ((model, tree) for model in models if tree.keys() <= {*model.model_fields, "llm"})
    if tree.keys() <= Stage.model_fields.keys():
        samples = 2 if "aggregation" in tree else 1  # several answers are aggregated
        yield Stage, {**STAGE, "samples": samples, **tree}


CONFIGS = [(page.name, block) for page in PAGES for block in list_configs(page)]


@pytest.mark.parametrize(("page", "block"), CONFIGS, ids=[f"{page}-{block[:20]}" for page, block in CONFIGS])
def test_a_config_of_the_pages_is_valid(page: str, block: str) -> None:
    if block.startswith("when: ") and block.count("when: ") > 1:  # one line each
        trees = [read_yaml(line, page).data for line in block.splitlines()]
    else:
        trees = [read_yaml(block, page).data]
    for tree in trees:
        problems = []
        for model, whole in list_targets(tree):
            try:
                model.model_validate(whole, context={"env": {}})
                break
            except (ValueError, ConfigError) as error:
                problems.append(f"{model.__name__}: {error}")
        else:
            pytest.fail(f"{page}: no config has these keys, or they are wrong:\n{tree}\n" + "\n".join(problems))


def list_command_lines(page: Path) -> Iterator[list[str]]:
    """The words of every command in a block or between backticks; comments and what is behind a pipe are left out."""
    text = page.read_text(encoding="utf-8")
    lines = [line for block in list_blocks(page) for line in block.replace("\\\n", " ").splitlines()]
    for line in [*lines, *re.findall(r"`(agentlab [^`]+)`", text.replace("\n", " "))]:
        if re.match(r"(\$ )?agentlab [a-z]", line):
            command = re.split(r" #| \||;| &&| 2>| >", line.removeprefix("$ "), maxsplit=1)[0]
            yield shlex.split(command, posix=command.count("'") % 2 == 0)[1:]


def find_problem(words: list[str]) -> str | None:
    """What no command has, of its words; None when all exist."""
    command: Any = get_command(build_app())
    for index, word in enumerate(words):
        commands = getattr(command, "commands", {})
        if word not in commands and "run" in commands:
            command, commands = commands["run"], {}  # what a group does by itself
        if word in commands:
            command = commands[word]
        elif word.startswith("--") and word != "--help":
            flags = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
            if word.partition("=")[0] not in flags:
                return f"{' '.join(words)}: {command.name} has no {word}"
        elif index == 0 and not word.startswith("-") and word.islower():
            return f"{' '.join(words)}: there is no command {word}"
    return None


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_every_command_of_a_page_exists_with_its_flags(page: Path) -> None:
    problems = [problem for words in list_command_lines(page) if (problem := find_problem(words))]
    assert problems == []


def test_every_page_is_reached_from_the_index() -> None:
    linked = {DOCS / "index.md"}
    for page in (DOCS / "index.md", DOCS / "design.md"):
        targets = re.findall(r"\]\((?!https?:)([^)#]+\.md)", page.read_text(encoding="utf-8"))
        linked |= {(page.parent / target).resolve() for target in targets}
    assert set(PAGES) - linked == set()
