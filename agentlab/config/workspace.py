"""The workspace: the folder in which `adapters/`, `models/` and `runs/` lie."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agentlab.files import home, written_path


@dataclass(frozen=True, slots=True)
class Workspace:
    """Where things are kept. `cache` is the user's model cache, looked into after `models`."""

    root: Path
    cache: Path

    @classmethod
    def locate(cls, env: Mapping[str, str], cwd: Path) -> "Workspace":
        """`AGENTLAB_HOME` or the current folder; the cache follows `AGENTLAB_CACHE`, then `XDG_CACHE_HOME`.

        Raises:
            ConfigError: one of them leads to no place.
        """
        root = written_path(env.get("AGENTLAB_HOME") or cwd).absolute()
        user = env.get("XDG_CACHE_HOME") or (home(env) or root) / ".cache"
        return cls(root=root, cache=written_path(env.get("AGENTLAB_CACHE") or Path(user, "agentlab")).absolute())

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def runs(self) -> Path:
        """The default folder of run folders. Only `agentlab.runs` builds paths below it."""
        return self.root / "runs"

    @property
    def adapters(self) -> Path:
        return self.root / "adapters"

    @property
    def configs(self) -> Path:
        """The user's own presets, looked into before the shipped ones."""
        return self.root / "configs"

    @property
    def state(self) -> Path:
        return self.root / ".agentlab"

    def resolve(self, path: str | Path) -> Path:
        """A path from a config file: relative ones start at the workspace.

        Raises:
            ConfigError: it leads to no place.
        """
        path = written_path(path)
        return path if path.is_absolute() else self.root / path
