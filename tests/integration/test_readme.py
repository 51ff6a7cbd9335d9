"""The README's start, run to the letter, and every link of the documentation.

The seven demos take seconds to minutes; each is checked with `--dry-run` appended.
"""

import re
import shlex
import webbrowser
from pathlib import Path

import pytest

from cli.main import main

REPOSITORY = Path(__file__).resolve().parents[2]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
_FENCE = re.compile(r"^```(sh|yaml)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DEMOS = list(dict.fromkeys(re.findall(r"^(agentlab \S+ demo)$", README, re.MULTILINE)))
_LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")


def blocks(kind: str) -> list[str]:
    start = README[README.index("## Start") : README.index("## The seven experiments")]
    return [text for language, text in _FENCE.findall(start) if language == kind]


def page_anchors(page: Path) -> set[str]:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.model
def test_the_start_works_as_it_is_written(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: not opened.append(url))
    (config,) = blocks("yaml")
    (workspace / "haiku.yaml").write_text(config)
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    assert lines[:2] == ["make setup", "source .venv/bin/activate"]
    commands = [shlex.split(line)[1:] for line in lines[2:]]
    assert all(line.startswith("agentlab ") for line in lines[2:])
    for words in commands:
        assert main(words) == 0, (words, capsys.readouterr().err)
    assert opened[0].endswith("report.html")
    assert capsys.readouterr().out.strip()


@pytest.mark.model
@pytest.mark.parametrize("line", DEMOS)
def test_the_seven_demos_are_planned(line: str, workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main([*shlex.split(line)[1:], "--dry-run"])
    if "evolve" in line:
        assert code == 3
        assert "make personas" in capsys.readouterr().err
    else:
        assert code == 0


def test_the_readme_is_short_and_shows_all_seven() -> None:
    assert len(README.split()) <= 1500
    assert len(DEMOS) == 7


def test_every_link_leads_somewhere() -> None:
    dead = []
    for page in [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md")]:
        for target, anchor in _LINK.findall(page.read_text(encoding="utf-8")):
            path = page.parent / target if target else page
            if not path.exists() or (anchor and path.suffix == ".md" and anchor not in page_anchors(path)):
                dead.append((str(page.relative_to(REPOSITORY)), target, anchor))
    assert dead == []
