"""Small facts about models and how they are loaded, kept in a JSON file from one command to the next."""

import contextlib
import json
from pathlib import Path
from typing import Any

from agentlab.errors import StorageError
from agentlab.gguf.memory import MemoryShape
from agentlab.runs.atomic import make_folder, read_text, write_json

_MAX_RECORDS, _MAX_BYTES = 512, 4 << 20
_KEPT = 32  # loads of a model in one shape, the newest


class Records:
    """Facts by name; of more than 512 the oldest go.

    The file is replaced whole: of two processes that write at once the last one wins, and nobody reads half a file.
    Nothing depends on it: a damaged file is an empty one, and a disk that cannot be written is not reported.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, name: str) -> Any:
        return self._all().get(name)

    def put(self, name: str, value: Any) -> None:
        records = self._all()
        records.pop(name, None)
        records[name] = value
        with contextlib.suppress(StorageError):
            make_folder(self._path.parent)
            write_json(self._path, dict(list(records.items())[-_MAX_RECORDS:]))

    def _all(self) -> dict[str, Any]:
        try:
            records = json.loads(read_text(self._path, _MAX_BYTES))
        except (OSError, ValueError, RecursionError):
            return {}
        return records if isinstance(records, dict) else {}


class LoadHistory:
    """What loaded models were measured to take, in a file (see `Records`). It counts where an estimate was too low."""

    def __init__(self, path: Path) -> None:
        self._records = Records(path)

    def add(self, key: str, shape: MemoryShape, measured: int, estimated: int) -> None:
        """Keep the peak of a worker that is done (`WorkerEngine.measured`), in bytes of main memory, at least 1.

        `key`: of the file and the engine's build, see `fingerprint`. What was `estimated` is for readers of the file.
        """
        loads = [*self._loads(key, shape), [measured, estimated]]
        self._records.put(f"{key} {shape}", loads[-_KEPT:])

    def learned_peak(self, key: str, shape: MemoryShape) -> int | None:
        """The 95th percentile (nearest rank) of what loads of this model in this shape took; None: never measured."""
        peaks = sorted(measured for measured, _ in self._loads(key, shape))
        return peaks[-(-len(peaks) * 95 // 100) - 1] if peaks else None

    def _loads(self, key: str, shape: MemoryShape) -> list[list[int]]:
        loads = self._records.get(f"{key} {shape}")
        return [load for load in loads if _is_load(load)] if isinstance(loads, list) else []


def _is_load(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(type(size) is int and size > 0 for size in value)
