"""Which keys the user lets go to which hosts, beside those that agentlab knows: confirmed once, kept outside of every
workspace, because a workspace may be somebody else's.
"""

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path

from agentlab.errors import StorageError, UsageError
from agentlab.files import home, open_file, open_to_write, written_path

# Both are the user's to set: never read from the `.env` of a workspace.
TRUST = "AGENTLAB_TRUST"  # KEY@HOST,KEY@HOST: what else is trusted, for CI
EXPAND = "AGENTLAB_EXPAND"  # A,B: further variables that a config may expand
MAX_BYTES = 64 * 1024

_PAIR = re.compile(r"[A-Za-z_]\w*@[A-Za-z0-9]([A-Za-z0-9.:-]*[A-Za-z0-9])?", re.ASCII)


def trust_file(env: Mapping[str, str]) -> Path | None:
    """Where confirmed pairs are kept, a line each; None for a user without a home."""
    folder = env.get("XDG_CONFIG_HOME") or (home(env) and Path(home(env) or "", ".config"))
    return written_path(Path(folder, "agentlab", "trusted-keys")).absolute() if folder else None


def is_trusted(key: str, host: str, env: Mapping[str, str]) -> bool:
    """Whether the user has confirmed that the variable `key` may be sent to `host`."""
    return f"{key}@{host}".lower() in {pair.strip().lower() for pair in env.get(TRUST, "").split(",")}


def confirm(key: str, host: str, env: Mapping[str, str]) -> Path:
    """Remember that the variable `key` may be sent to `host`.

    Raises:
        UsageError: they are no names.
        StorageError: it cannot be written down.
    """
    pair = f"{key}@{host.lower()}"
    if not _PAIR.fullmatch(pair):
        raise UsageError(
            f"{pair!r} does not name a variable and a host.",
            hint="Example: agentlab llm trust MY_API_KEY llm.example.org",
        )
    path = trust_file(env)
    if path is None:
        raise StorageError("No home folder was found, so this cannot be stored.", hint=f"export {TRUST}={pair}")
    if pair in _kept_pairs(path):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_to_write(path, "a") as file:
            file.write(f"{pair}\n")  # one write of one line: another process adds its own before or behind it
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}.", hint=f"Or: export {TRUST}={pair}") from error
    return path


def with_confirmed(env: Mapping[str, str]) -> dict[str, str]:
    """The environment, with what the user has confirmed added to AGENTLAB_TRUST."""
    path = trust_file(env)
    pairs = [*filter(None, [env.get(TRUST)]), *(_kept_pairs(path) if path else ())]
    return {**env, TRUST: ",".join(pairs)} if pairs else dict(env)


def _kept_pairs(path: Path) -> list[str]:
    with contextlib.suppress(OSError), open_file(path) as file:  # nothing is trusted that cannot be read
        lines = file.read(MAX_BYTES).decode("utf-8", errors="replace").splitlines()
        return [line for line in lines if _PAIR.fullmatch(line)]
    return []
