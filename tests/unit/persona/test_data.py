"""The conversations of a persona: what they say of how it is to be asked, and that they stay what they were."""

from pathlib import Path

import pytest

from agentlab.config.workspace import Workspace
from agentlab.errors import DataError, MissingFileError, RunMismatchError
from agentlab.persona.config import Persona, PersonaConfig
from agentlab.persona.data import CHECKED, PersonaSource, check_unchanged, read_sources
from agentlab.runs.events import Event
from agentlab.train.conversations import Conversation, ConversationFile, ConversationTurn
from agentlab.train.data_report import Data

TALK = (ConversationTurn("user", "Why?"), ConversationTurn("assistant", "So."))
LINE = '{"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]}\n'


@pytest.mark.parametrize(
    ("system_messages", "expected"),
    [
        pytest.param(["Be terse.", "Be terse.", None], "Be terse.", id="most have it"),
        pytest.param([None, None, None, "Be terse.", "Be terse."], None, id="most have none"),
        pytest.param([None], None, id="none has"),
        pytest.param(["Be terse.", "Be kind.", "Be terse.", "Be loud."], None, id="no one has more than half"),
    ],
)
def test_the_system_message_of_most_conversations_is_the_persona_s(
    system_messages: list[str | None], expected: str
) -> None:
    lines = tuple(
        Conversation(line, TALK if system is None else (ConversationTurn("system", system), *TALK))
        for line, system in enumerate(system_messages, start=1)
    )
    persona = Persona(name="a", data="a.jsonl")
    assert PersonaSource(persona, Data(ConversationFile(Path("a.jsonl"), "", lines), None)).system == expected


def read(folder: Path, data: str = "a.jsonl", eval_data: str | None = None) -> tuple[PersonaSource, ...]:
    persona = Persona(name="a", data=data, eval_data=eval_data)
    return read_sources(PersonaConfig(personas=(persona,)), Workspace(folder, folder))


def test_a_file_is_read_once_and_not_needed_afterwards(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(LINE)
    (source,) = read(tmp_path)
    before = dict(source.hashes)
    (tmp_path / "a.jsonl").unlink()
    assert source.hashes == before
    assert before["eval_sha256"] is None


@pytest.mark.parametrize("changed", ["a.jsonl", "held.jsonl"])
def test_a_run_goes_on_with_the_files_it_began_with(tmp_path: Path, changed: str) -> None:
    for name in ("a.jsonl", "held.jsonl"):
        (tmp_path / name).write_text(LINE)
    (source,) = read(tmp_path, eval_data="held.jsonl")
    events = [Event(0, 0.0, CHECKED, "a", dict(source.hashes))]
    check_unchanged([source], events)
    check_unchanged([source], [])
    (tmp_path / changed).write_text(LINE * 2)
    with pytest.raises(RunMismatchError, match=changed) as caught:
        check_unchanged(read(tmp_path, eval_data="held.jsonl"), events)
    assert "Restore the file" in str(caught.value.hint)
    assert "new run" in str(caught.value.hint)


def test_what_is_no_plain_file_is_called_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="is a folder"):
        read(tmp_path, "folder")
    with pytest.raises(MissingFileError, match=r"The conversation file .* does not exist"):
        read(tmp_path, "absent.jsonl")
