"""Complaints about a union whose members are told apart by a tag, deep inside a config."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BeforeValidator, Field

from agentlab.config.base import StrictModel
from agentlab.config.load import load
from agentlab.config.overrides import parse
from agentlab.config.workspace import Workspace
from agentlab.errors import ConfigError


class Text(StrictModel):
    kind: Literal["text"] = "text"
    text: str = ""
    judge: int = 0


class Judge(StrictModel):
    kind: Literal["judge"] = "judge"
    model: str
    width: int | float = 1


Rule = Annotated[Text | Judge, Field(discriminator="kind")]


def _spelled_out(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


class Step(StrictModel):
    id: str
    rule: Annotated[Rule | None, BeforeValidator(_spelled_out)] = None


class Lab(StrictModel):
    steps: tuple[Step, ...] = ()
    direct: Rule = Text()
    several: tuple[int, ...] = Field((0,), min_length=1)
    named: dict[str, Rule] = Field(default_factory=dict)


FILE = """\
steps:
- id: first
  rule: text
- id: second
  rule:
    kind: judge
    model: m
"""


@pytest.fixture
def complaints(tmp_path: Path) -> Callable[..., list[str]]:
    def call(text: str, *sets: str) -> list[str]:
        (tmp_path / "f.yaml").write_text(text)
        workspace, overrides = Workspace(root=tmp_path, cache=tmp_path), [parse(change) for change in sets]
        with pytest.raises(ConfigError) as caught:
            load(Lab, "lab", "f.yaml", overrides, workspace=workspace, env={}, cwd=tmp_path)
        return caught.value.message.split("\n")

    return call


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        ("tekst", ": unknown kind 'tekst'; did you mean text?"),
        ("xyz", ": unknown kind 'xyz'; known: text, judge"),
        ("{kind: jugde}", ".kind: unknown kind 'jugde'; did you mean judge?"),
        ("{model: m}", ": kind is required"),
        ("judge", ".model: is required"),
        ("{kind: judge}", ".model: is required"),
        ("{kind: judge, modle: m, model: n}", ".modle: unknown key; did you mean model?"),
        ("{kind: judge, model: m, judge: 1}", ".judge: unknown key; known: kind, model, width"),
        ("{kind: judge, model: m, width: {}}", ".width: must be a whole number or a number, not a mapping"),
        # a key of the same name as the tag
        ("{kind: text, text: t, txet: t}", ".txet: unknown key; did you mean text?"),
        ("{kind: text, text: 3}", ".text: must be text, not 3"),
        ("{kind: text, judge: x}", ".judge: must be a whole number, not 'x'"),
        ("3", ": must be a mapping, not 3"),
    ],
)
def test_the_member_that_was_meant_speaks(complaints: Callable[..., list[str]], rule: str, complaint: str) -> None:
    assert complaints(f"steps: [{{id: a, rule: {rule}}}]\n")[0].endswith(f" steps.0.rule{complaint}")
    if "{" in rule:  # without the short spelling
        assert complaints(f"direct: {rule}\n")[0].endswith(f" direct{complaint}")
        assert complaints(f"named: {{x: {rule}}}\n")[0].endswith(f" named.x{complaint}")


def test_a_list_is_not_too_short_because_its_elements_are_wrong(complaints: Callable[..., list[str]]) -> None:
    assert complaints("several: [x]\n") == ["f.yaml:1:11: several.0: must be a whole number, not 'x'"]
    assert complaints("several: []\n") == ["f.yaml:1:1: several: must be at least 1 entries long, not a list"]


def test_an_element_is_addressed_by_its_id(complaints: Callable[..., list[str]]) -> None:
    assert complaints(FILE, "steps.second.rule.kind=text") == [
        "f.yaml:7:5: steps.1.rule.model: unknown key; known: kind, text, judge"
    ]
    assert complaints(FILE, "steps.second.rule.kind=txt") == [
        "--set: steps.1.rule.kind: unknown kind 'txt'; did you mean text?"
    ]
    assert complaints(FILE, "steps.third.rule=text") == [
        "--set: steps.third.rule: steps has no element 'third'; known: first, second."
    ]
    assert complaints(FILE, "steps.first.rule.kind=judge") == [
        "--set: steps.first.rule.kind: steps.0.rule is a single value and has no keys."
    ]
