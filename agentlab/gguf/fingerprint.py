"""Which model file, and which build of llama.cpp: what decides an answer besides the question. Neither is loaded."""

import hashlib
import importlib.metadata
import importlib.util
import platform
from functools import lru_cache
from pathlib import Path

from agentlab.errors import MissingFileError

_HEAD = 16 << 20
_BLOCK, _BLOCKS = 1 << 20, 16
_LIBRARIES = ("*.so", "*.dylib", "*.dll")


def fingerprint(path: Path) -> str:
    """The digest ("sha256:...") of a file's size, its first 16 MiB, and 16 blocks of 1 MiB evenly spread over the rest.

    The first part holds a GGUF file's keys, vocabulary and tensor list; a file of up to 32 MiB is read whole. It takes
    milliseconds where a digest of all bytes takes seconds per GB, and tells apart models, quantisations, fine-tunings
    (they change every block) and files that were cut or damaged at the end. It does not see a change that keeps the
    size and stays between the blocks, nor the other parts of a model in several files. Remembered per process for as
    long as size and modification time stay.

    Raises:
        MissingFileError: there is no such file.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise MissingFileError(
            f"There is no model file {path}.", hint="`agentlab models list` shows what is there."
        ) from error
    return _sampled(path.absolute(), found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=1024)
def _sampled(path: Path, size: int, modified: int) -> str:
    del modified  # a part of the cache's key
    digest = hashlib.sha256(size.to_bytes(8, "big"))
    with path.open("rb") as file:
        for start, length in _spans(size):
            file.seek(start)
            digest.update(file.read(length))
    return f"sha256:{digest.hexdigest()}"


def _spans(size: int) -> list[tuple[int, int]]:
    """(where, how long) of the parts that are read."""
    rest = size - _HEAD
    if rest <= _BLOCK * _BLOCKS:
        return [(0, size)]
    last = rest - _BLOCK
    return [(0, _HEAD), *((_HEAD + last * index // (_BLOCKS - 1), _BLOCK) for index in range(_BLOCKS))]


@lru_cache(maxsize=1)
def engine_build() -> str:
    """What computes, such as "llama-cpp-python 0.3.34 x86_64 3f2a9c01d4e5": version, machine, digest of its libraries.

    A library that was built for other processors, or for a GPU, is another library with another digest; one that
    chooses its kernels when it starts is told apart by the machine's family only.
    """
    found = importlib.util.find_spec("llama_cpp")
    if found is None or not found.submodule_search_locations:
        return "llama-cpp-python none"
    digest = hashlib.sha256()
    for folder in found.submodule_search_locations:
        for path in sorted(path for kind in _LIBRARIES for path in Path(folder, "lib").glob(kind)):
            digest.update(f"{path.name}={fingerprint(path)}\n".encode())
    version = importlib.metadata.version("llama-cpp-python")
    return f"llama-cpp-python {version} {platform.machine()} {digest.hexdigest()[:12]}"
