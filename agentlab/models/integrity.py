"""Whether a file holds the bytes that the catalogue promises, on disk and while it is being written."""

import hashlib
import os
from pathlib import Path
from typing import IO

from agentlab.errors import ModelFileError
from agentlab.files import open_file
from agentlab.models.catalogue import CatalogueRow

_BLOCK = 1 << 20


def verify(path: Path, row: CatalogueRow) -> None:
    """Compare size, then SHA-256 (0.1 s for 100 MB).

    Raises:
        ModelFileError: the file is not the one the row promises.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    if size != row.bytes:
        raise ModelFileError(f"{path} has {size} bytes instead of {row.bytes}.", hint=_again(row))
    with open_file(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != row.sha256:
        raise ModelFileError(f"{path} has the SHA-256 {digest} instead of {row.sha256}.", hint=_again(row))


def copy_verified(stream: IO[bytes], target: Path, row: CatalogueRow, origin: str) -> None:
    """Write the promised bytes of `stream` to the new file `target` and sync it; never more than `row.bytes`.

    Raises:
        ModelFileError: the stream is shorter, longer or different; `origin` names it.
        OSError: reading or writing failed.
    """
    digest, left = hashlib.sha256(), row.bytes
    with target.open("xb") as file:
        while block := stream.read(min(_BLOCK, left + 1)):
            left -= len(block)
            if left < 0:
                raise ModelFileError(f"{origin} delivers more than the {row.bytes} bytes of {row.file}.")
            digest.update(block)
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    if left:
        raise ModelFileError(f"{origin} delivers {row.bytes - left} bytes of {row.file} instead of {row.bytes}.")
    if digest.hexdigest() != row.sha256:
        raise ModelFileError(f"{origin} delivers a {row.file} with the wrong SHA-256, {digest.hexdigest()}.")


def _again(row: CatalogueRow) -> str:
    return f"Get it again with `agentlab models pull {row.name}`."
