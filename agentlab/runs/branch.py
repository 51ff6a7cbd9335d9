"""A part of a run that is a run of its own kind: its events carry its name, its files lie below `studies/`."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from agentlab.runs.events import Event
from agentlab.runs.folder import Folder
from agentlab.runs.run import OpenRun


class RunBranch:
    """Looks like a run to whoever works in it. `agent-1/run_0003` outside is `run_0003` inside."""

    def __init__(self, run: OpenRun, name: str) -> None:
        self._run = run
        self.name = name
        self._prefix = f"{name}/"
        self.folder: Folder = run.folder.folder(f"studies/{name}")

    @property
    def path(self) -> Path:
        return self.folder.path

    @property
    def events(self) -> list[Event]:
        own_events = (event for event in self._run.events if event.id.startswith(self._prefix))
        return [replace(event, id=event.id.removeprefix(self._prefix)) for event in own_events]

    def emit(self, type: str, id: str = "", **data: Any) -> Event:  # noqa: A002 - the field's name in the file
        return self._run.emit(type, self._prefix + id, **data)

    def write_json(self, name: str, value: Any) -> Path:
        return self.folder.write_json(name, value)
