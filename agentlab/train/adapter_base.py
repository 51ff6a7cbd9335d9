"""Which base model a checkpoint folder holds, and which an adapter belongs to. Nothing is loaded."""

import hashlib
from functools import lru_cache
from pathlib import Path, PurePath

from agentlab.config.workspace import Workspace
from agentlab.errors import MissingFileError, UnknownNameError, UsageError
from agentlab.files import open_file
from agentlab.lora.card import read_card
from agentlab.lora.settings import read_settings
from agentlab.models.store import find

_DECIDING = ("config.json", "*.safetensors", "tokenizer*", "vocab.*", "merges.txt", "*.jinja", "*_tokens*.json")
_BLOCK = 1 << 20
_HINT = "Say with --base where the base model lies: a name of `agentlab models list`, or a path with a slash."


def base_of(adapter: Path, given: str | None, workspace: Workspace) -> Path:
    """The base model of an adapter folder: as given, or else what its card or its config names.

    An adapter that comes from another machine names a path there: then a model of the path's last part is taken.

    Args:
        adapter: the folder.
        given: a name or a path with a slash; None to believe the adapter.
        workspace: where names are looked up.

    Raises:
        UsageError: the adapter does not say.
        MissingFileError: it is not on this machine, or what was given is not there.
        UnknownNameError: nothing bears the given name.
        DataError: card or config are damaged.
    """
    if given is not None:
        return find(given, workspace)
    names = [name for name in (read_card(adapter).base.path, read_settings(adapter).base[0]) if name]
    if not names:
        raise UsageError(f"{adapter} does not say which base model it belongs to.", hint=_HINT)
    for name in (*names, *(PurePath(name).name for name in names)):
        try:
            return find(name, workspace)
        except (MissingFileError, UnknownNameError):
            continue
    raise MissingFileError(f"The base model of {adapter} is not on this machine: {names[0]}.", hint=_HINT)


def same_base(adapter: Path, base: Path, *, any_base: bool = False) -> bool | None:
    """Whether a checkpoint folder holds what an adapter was trained on, by its card; None where the card does not say.

    Args:
        adapter: the folder.
        base: the checkpoint folder.
        any_base: let another one pass.

    Raises:
        UsageError: it does not.
        MissingFileError: it is no checkpoint folder.
        DataError: the card is damaged.
    """
    known = read_card(adapter).base.fingerprint
    if known is None:
        return None
    same = known == fingerprint_of(base)
    if not same and not any_base:
        raise UsageError(
            f"{adapter.name} was trained on another base model than {base}: the fingerprints differ.",
            hint="Name the right one with --base, or take this one all the same with --any-base.",
        )
    return same


def fingerprint_of(folder: Path) -> str:
    """The digest ("sha256:...") of all bytes of a checkpoint's config, weights and tokenizer, and of their names.

    About a second per GB. Remembered per process for as long as a file keeps its size and modification time.

    Raises:
        MissingFileError: there are no such files.
    """
    digest = hashlib.sha256()
    files = sorted({path for pattern in _DECIDING for path in folder.glob(pattern) if path.is_file()})
    if not files:
        raise MissingFileError(f"{folder} is no checkpoint folder.", hint="`agentlab models list` shows what is there.")
    for path in files:
        found = path.stat()
        digest.update(f"{path.name}={_of_file(path.absolute(), found.st_size, found.st_mtime_ns)}\n".encode())
    return f"sha256:{digest.hexdigest()}"


@lru_cache(maxsize=1024)
def _of_file(path: Path, size: int, modified: int) -> str:
    del size, modified  # parts of the cache's key
    digest = hashlib.sha256()
    with open_file(path) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
