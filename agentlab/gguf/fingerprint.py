"""Which model file, and which build of llama.cpp: what decides an answer besides the question. Neither is loaded."""

import errno
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
from functools import lru_cache
from itertools import chain
from pathlib import Path

from agentlab.errors import MissingFileError, ModelFileError
from agentlab.gguf.records import Records

_BLOCK = 1 << 20
_NOTHING = bytes(_BLOCK)
_LIBRARIES = ("*.so", "*.dylib", "*.dll")


def fingerprint(path: Path, records_file: Path | None = None) -> str:
    """The digest ("sha256:...") of a file's size and of all its bytes; of a model in several files, of this one.

    It takes a second for 1.5 GB, and no time for the holes of a sparse file. Remembered for as long as size,
    modification time and inode stay: in this process, and in the file `records_file` (see `Records`) for all others.

    Raises:
        MissingFileError: there is no such file.
        ModelFileError: it cannot be read.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise MissingFileError(
            f"The model file {path} does not exist.", hint="`agentlab models list` shows the models on this machine."
        ) from error
    return _cached_digest(path.resolve(), status.st_size, status.st_mtime_ns, status.st_ino, records_file)


@lru_cache(maxsize=1024)
def _cached_digest(path: Path, size: int, modified: int, inode: int, records_file: Path | None) -> str:
    records, name = None if records_file is None else Records(records_file), f"{path} {size} {modified} {inode}"
    recorded = None if records is None else records.get(name)
    if isinstance(recorded, str) and recorded.startswith("sha256:"):
        return recorded
    try:
        digest = _compute_digest(path, size)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}.", hint="Check its permissions.") from error
    if records is not None:
        records.put(name, digest)
    return digest


def _compute_digest(path: Path, size: int) -> str:
    """Over the size, and over each block of 1 MiB: its digest, or for blocks of nothing but zeros their number."""
    digest, zeros, at = hashlib.sha256(size.to_bytes(8, "big")), 0, 0
    with path.open("rb", buffering=0) as file:
        while at < size:
            hole = (_data(file.fileno(), at, size) - at) // _BLOCK
            zeros, at = zeros + hole, at + hole * _BLOCK
            file.seek(at)
            block = file.read(_BLOCK)
            if block == _NOTHING[: len(block)]:
                zeros += bool(block)
            else:
                digest.update(b"%d" % zeros + hashlib.sha256(block).digest())
                zeros = 0
            at += _BLOCK
    digest.update(b"%d" % zeros)
    return f"sha256:{digest.hexdigest()}"


def _data(file: int, at: int, size: int) -> int:
    """Where a sparse file's next bytes begin, `size` if there are none; `at` where the system does not say."""
    if not hasattr(os, "SEEK_DATA"):
        return at
    try:
        return os.lseek(file, at, os.SEEK_DATA)
    except OSError as error:
        return size if error.errno == errno.ENXIO else at  # ENXIO: nothing but a hole follows


@lru_cache(maxsize=1)
def engine_build() -> str:
    """What computes, such as "llama-cpp-python 0.3.34 x86_64 3f2a9c01d4e5": version, machine, digest of its libraries.

    A library that was built for other processors, or for a GPU, is another library with another digest; one that
    chooses its kernels when it starts is told apart by the machine's family only.
    """
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or not spec.submodule_search_locations:
        return "llama-cpp-python none"
    digest = hashlib.sha256()
    for folder in spec.submodule_search_locations:
        library_folder = Path(folder, "lib")
        for path in sorted(chain.from_iterable(map(library_folder.glob, _LIBRARIES))):
            digest.update(f"{path.name}={fingerprint(path)}\n".encode())
    version = importlib.metadata.version("llama-cpp-python")
    return f"llama-cpp-python {version} {platform.machine()} {digest.hexdigest()[:12]}"
