"""A run as one zip file. The same run gives the same bytes."""

import shutil
import zipfile
from pathlib import Path

from agentlab.errors import UsageError
from agentlab.runs.atomic import is_temporary, storage_errors
from agentlab.runs.run import LOCK
from agentlab.runs.store import RunRecord

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date a zip file can hold
_BLOCK = 1 << 20


def export(record: RunRecord, target: Path) -> Path:
    """Pack every file of the run below a folder of its name.

    Raises:
        UsageError: the target exists.
        StorageError: it cannot be written.
    """
    if target.exists():
        raise UsageError(f"{target} already exists.", hint="Choose another --out.")
    temporary = target.with_name(f".{target.name}.tmp")
    files = sorted(path for path in record.path.rglob("*") if _belongs(path))
    with storage_errors(target):
        try:
            with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
                for path in files:
                    entry = zipfile.ZipInfo(f"{record.id}/{path.relative_to(record.path).as_posix()}", _EPOCH)
                    entry.compress_type = zipfile.ZIP_DEFLATED
                    entry.external_attr = 0o644 << 16
                    with path.open("rb") as source, archive.open(entry, "w", force_zip64=True) as packed:
                        shutil.copyfileobj(source, packed, _BLOCK)
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    return target


def _belongs(path: Path) -> bool:
    """Not the lock, not what a kill left half-written, and no link, which may lead anywhere on this machine."""
    return path.is_file() and not path.is_symlink() and path.name != LOCK and not is_temporary(path)
