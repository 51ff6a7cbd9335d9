"""`events.jsonl`: append-only and fsynced. A torn last line, left by a kill, is dropped on read and cut on resume."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from agentlab.errors import RunUnreadableError
from agentlab.files import open_file, open_to_write
from agentlab.runs.atomic import storage_errors
from agentlab.runs.events import VERSION, Event

_MAX_LINE = 64 << 20  # bytes; no event comes near it


def read_events(path: Path) -> list[Event]:
    """All whole events of a file. Raises RunUnreadableError if it is absent, or damaged before its last line."""
    return _parse(path)[0]


def _parse(path: Path) -> tuple[list[Event], int]:
    """The events and the number of bytes they take."""
    events: list[Event] = []
    size, torn = 0, False
    for number, line in enumerate(_lines(path), start=1):
        if torn:  # and yet the file goes on
            raise RunUnreadableError(
                f"{path} is damaged at line {number - 1}.", hint="Restore the file from a copy, or start a new run."
            )
        try:
            event = Event.from_json(line.decode())
        except ValueError:
            torn = True
            continue
        if event.v > VERSION:
            raise RunUnreadableError(f"{path} was written by a newer agentlab.", hint="Upgrade agentlab to read it.")
        if event.seq != len(events):
            raise RunUnreadableError(
                f"{path} is missing events before line {number}.",
                hint="Restore the file from a copy, or start a new run.",
            )
        events.append(event)
        size += len(line)
    return events, size


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, however long it is; what follows the last newline is torn, and left out."""
    try:
        with open_file(path) as file:
            while (line := file.readline(_MAX_LINE)).endswith(b"\n"):
                yield line
    except OSError as error:
        raise RunUnreadableError(f"{path} cannot be read: {error.strerror}.", hint="Is this a run folder?") from error
    if len(line) == _MAX_LINE:
        raise RunUnreadableError(f"{path} contains a line that is not an event.", hint="Is this a run folder?")


class Journal:
    """The writing end. One per run folder, guarded by the run's lock."""

    def __init__(self, path: Path) -> None:
        self.events, self._size = _parse(path)
        with storage_errors(path):
            self._file = open_to_write(path, "r+b")
            self._file.truncate(self._size)
            self._file.seek(self._size)
        self._path = path

    def append(self, event: Event) -> None:
        """Write one event so that it survives a power cut, or leave the file as it was and raise StorageError."""
        line = event.to_json().encode() + b"\n"
        with storage_errors(self._path):
            try:
                written = 0
                while written < len(line):
                    written += self._file.write(line[written:])
                os.fsync(self._file.fileno())
            except OSError:
                with contextlib.suppress(OSError):  # what cannot be taken back is a torn line, dropped on read
                    self._file.truncate(self._size)
                    self._file.seek(self._size)
                raise
        self._size += len(line)
        self.events.append(event)

    def close(self) -> None:
        self._file.close()
