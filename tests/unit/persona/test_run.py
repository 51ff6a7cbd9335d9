"""What is refused before a training starts: processes that cannot do it."""

from pathlib import Path

import pytest

from agentlab.config.workspace import Workspace
from agentlab.errors import MissingFileError, RunMismatchError, UsageError
from agentlab.persona.config import Persona, PersonaConfig
from agentlab.persona.run import prepare
from agentlab.runs.context import Context
from agentlab.runs.events import Event

TWO = PersonaConfig(base="none", personas=(Persona(name="a", data="a.jsonl"), Persona(name="b", data="b.jsonl")))


def context(folder: Path, size: int, *, resumes: Path | None = None) -> Context:
    launch = {"RANK": "0", "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    return Context(Workspace(folder, folder), launch, resumed_run=resumes)


def test_several_processes_train_in_turn_only(tmp_path: Path) -> None:
    together = TWO.model_copy(update={"together": True})
    with pytest.raises(UsageError, match="2 were launched") as caught:
        prepare(together, context(tmp_path, 2))
    assert "together=false" in str(caught.value.hint)
    for config, size in ((together, 1), (TWO, 2)):  # these get as far as the base, which is not there
        with pytest.raises((UsageError, MissingFileError), match="none"):
            prepare(config, context(tmp_path, size))


@pytest.mark.parametrize(("first_size", "size", "way_out"), [(2, 1, "--num_processes 2"), (1, 2, "without a launcher")])
def test_a_training_goes_on_in_as_many_processes(tmp_path: Path, first_size: int, size: int, way_out: str) -> None:
    event = Event(seq=0, t=0.0, type="training.begun", data={"processes": first_size})
    (tmp_path / "events.jsonl").write_text(event.to_json() + "\n")
    with pytest.raises(RunMismatchError, match=f"started with {first_size}") as caught:
        prepare(TWO, context(tmp_path, size, resumes=tmp_path))
    assert way_out in str(caught.value.hint)
    with pytest.raises((UsageError, MissingFileError), match="none"):
        prepare(TWO, context(tmp_path, first_size, resumes=tmp_path))
