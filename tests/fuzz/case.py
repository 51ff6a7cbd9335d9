"""A case: the files it puts into an empty workspace, and the command lines that meet them. Cases are kept as JSON."""

import base64
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Case:
    """One case of a corpus.

    Attributes:
        lines: command lines. The first word is the program: `agentlab`, or `gateway` for requests to `serve`.
        files: their contents by path in the workspace.
        copies: folders of the shelf (see `shelf.py`) by path in the workspace; `files` are written over them.
    """

    lines: list[list[str]]
    files: dict[str, bytes] = field(default_factory=dict)
    copies: dict[str, str] = field(default_factory=dict)

    def write(self, workspace: Path, shelf: Path) -> None:
        """Put the files into a workspace."""
        for target, folder in self.copies.items():
            shutil.copytree(shelf / folder, workspace / target, dirs_exist_ok=True)
        for name, content in self.files.items():
            path = workspace / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def as_json(self) -> dict[str, Any]:
        """Text stays readable; other bytes are base64."""
        return {"lines": self.lines, "copies": self.copies, "files": {k: _shown(v) for k, v in self.files.items()}}

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> "Case":
        """The inverse of `as_json`."""
        return cls(tree["lines"], {k: _content(v) for k, v in tree["files"].items()}, tree["copies"])


def _shown(content: bytes) -> str | list[str]:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return [base64.b64encode(content).decode()]


def _content(encoded: str | list[str]) -> bytes:
    return encoded.encode() if isinstance(encoded, str) else base64.b64decode(encoded[0])


def agentlab(line: str) -> list[str]:
    """A command line of words without spaces."""
    return ["agentlab", *line.split()]


def read_case(path: Path) -> tuple[str, Case]:
    """The corpus and the case of a reproducer or a seed."""
    tree = json.loads(path.read_text())
    return tree["corpus"], Case.from_json(tree)


def write_case(path: Path, corpus: str, case: Case, **remarks: Any) -> None:
    """Keep a case, with what was seen."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"corpus": corpus, **remarks, **case.as_json()}, indent=1) + "\n")
