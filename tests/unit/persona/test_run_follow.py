"""A process that takes part in a training learns from what the run's owner has read, or not at all."""

import json
from pathlib import Path

import pytest

from agentlab.config.load import dump_yaml
from agentlab.config.workspace import Workspace
from agentlab.errors import RunMismatchError
from agentlab.persona.config import Persona, PersonaConfig
from agentlab.persona.data import CHECKED
from agentlab.persona.run import take_part
from agentlab.runs.context import Context
from agentlab.runs.events import Event
from tests.unit.train.tiny_base import tiny_checkpoint


def test_a_file_that_changed_between_two_processes_is_refused(tmp_path: Path) -> None:
    tiny_checkpoint(tmp_path / "models" / "tiny")
    messages = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": messages}))
    run = tmp_path / "runs" / "one"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(
        dump_yaml(PersonaConfig(base="tiny", personas=(Persona(name="a", data="a.jsonl"),)))
    )

    def begin() -> None:
        event = Event(0, 0.0, CHECKED, "a", {"sha256": "sha256:another"})
        (run / "events.jsonl").write_text(event.to_json() + "\n")

    with pytest.raises(RunMismatchError, match=r"a\.jsonl"):
        take_part(run, begin, Context(Workspace(tmp_path, tmp_path), {}))
    assert not (run / "personas").exists()
