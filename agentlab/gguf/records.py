"""Small facts about models and how they are loaded, kept in a JSON file from one command to the next."""

import contextlib
import json
from pathlib import Path
from typing import Any

from agentlab.errors import StorageError
from agentlab.runs.atomic import make_folder, read_text, write_json

_MAX_RECORDS, _MAX_BYTES = 512, 4 << 20


class Records:
    """Facts by name; of more than 512 the oldest go.

    The file is replaced whole: of two processes that write at once the last one wins, and nobody reads half a file.
    Nothing depends on it: a damaged file is an empty one, and a disk that cannot be written is none of a user's worry.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, name: str) -> Any:
        """What was put last, as JSON; None when there is nothing."""
        return self._all().get(name)

    def put(self, name: str, value: Any) -> None:
        """Keep a value that JSON can hold."""
        known = self._all()
        known.pop(name, None)
        known[name] = value
        with contextlib.suppress(StorageError):
            make_folder(self._path.parent)
            write_json(self._path, dict(list(known.items())[-_MAX_RECORDS:]))

    def _all(self) -> dict[str, Any]:
        try:
            found = json.loads(read_text(self._path, _MAX_BYTES))
        except (OSError, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}
