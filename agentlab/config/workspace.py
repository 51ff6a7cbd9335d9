"""The workspace: the folder in which `adapters/`, `models/` and `runs/` lie."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Workspace:
    """Where things are kept. `cache` is the user's model cache, looked into after `models`."""

    root: Path
    cache: Path

    @classmethod
    def locate(cls, env: Mapping[str, str], cwd: Path) -> "Workspace":
        """`AGENTLAB_HOME` or the current folder; the cache follows `AGENTLAB_CACHE`, then `XDG_CACHE_HOME`."""
        root = Path(env.get("AGENTLAB_HOME") or cwd).expanduser().absolute()
        user = Path(env.get("XDG_CACHE_HOME") or Path(env.get("HOME") or Path.home()) / ".cache")
        return cls(root=root, cache=Path(env.get("AGENTLAB_CACHE") or user / "agentlab").expanduser().absolute())

    @property
    def models(self) -> Path:
        """Model files and folders of this workspace."""
        return self.root / "models"

    @property
    def runs(self) -> Path:
        """The default folder of run folders. Only `agentlab.runs` builds paths below it."""
        return self.root / "runs"

    @property
    def adapters(self) -> Path:
        """Adapter folders."""
        return self.root / "adapters"

    @property
    def configs(self) -> Path:
        """The user's own presets, looked into before the shipped ones."""
        return self.root / "configs"

    @property
    def state(self) -> Path:
        """State shared between runs."""
        return self.root / ".agentlab"

    def resolve(self, path: str | Path) -> Path:
        """A path from a config file: relative ones start at the workspace."""
        path = Path(path).expanduser()
        return path if path.is_absolute() else self.root / path
