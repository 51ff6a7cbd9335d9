"""Which base model a checkpoint folder holds: a digest of what decides its answers. Nothing is loaded."""

import hashlib
from functools import lru_cache
from itertools import chain
from pathlib import Path

from agentlab.errors import MissingFileError
from agentlab.files import open_file

_DECIDING = ("config.json", "*.safetensors", "tokenizer*", "vocab.*", "merges.txt", "*.jinja", "*_tokens*.json")
_BLOCK = 1 << 20


def fingerprint_of(folder: Path) -> str:
    """The digest ("sha256:...") of all bytes of a checkpoint's config, weights and tokenizer, and of their names.

    About a second per GB. Remembered per process for as long as a file keeps its size and modification time.

    Raises:
        MissingFileError: there are no such files.
    """
    digest = hashlib.sha256()
    candidates = chain.from_iterable(folder.glob(pattern) for pattern in _DECIDING)
    files = sorted({path for path in candidates if path.is_file()})
    if not files:
        raise MissingFileError(
            f"{folder} is not a checkpoint folder.", hint="`agentlab models list` shows the models on this machine."
        )
    for path in files:
        status = path.stat()
        digest.update(f"{path.name}={_of_file(path.absolute(), status.st_size, status.st_mtime_ns)}\n".encode())
    return f"sha256:{digest.hexdigest()}"


@lru_cache(maxsize=1024)
def _of_file(path: Path, size: int, modified: int) -> str:
    del size, modified  # parts of the cache's key
    digest = hashlib.sha256()
    with open_file(path) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
