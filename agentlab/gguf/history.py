"""What loaded models were measured to take: the word that counts where an estimate was too low."""

from pathlib import Path

from agentlab.gguf.memory import Shape
from agentlab.gguf.records import Records

_KEPT = 32  # loads of a model in one shape, the newest


class History:
    """Peaks of earlier loads, in a file; see `Records`."""

    def __init__(self, path: Path) -> None:
        self._records = Records(path)

    def add(self, key: str, shape: Shape, measured: int, estimated: int) -> None:
        """Keep the peak of a worker that is done (`WorkerEngine.measured`), beside what it was estimated at.

        Args:
            key: of the file and the engine's build; see `fingerprint`.
            shape: how it was loaded.
            measured: bytes of main memory, at least 1.
            estimated: the same, as it was planned with: for readers of the file.
        """
        loads = [*self._loads(key, shape), [measured, estimated]]
        self._records.put(f"{key} {shape}", loads[-_KEPT:])

    def learned(self, key: str, shape: Shape) -> int | None:
        """The 95th percentile (nearest rank) of what loads of this model in this shape took; None: never measured."""
        peaks = sorted(measured for measured, _ in self._loads(key, shape))
        return peaks[-(-len(peaks) * 95 // 100) - 1] if peaks else None

    def _loads(self, key: str, shape: Shape) -> list[list[int]]:
        found = self._records.get(f"{key} {shape}")
        return [load for load in found if _is_load(load)] if isinstance(found, list) else []


def _is_load(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(type(each) is int and each > 0 for each in value)
