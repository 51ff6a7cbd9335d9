"""A run as one zip file. The same run gives the same bytes."""

import zipfile
from pathlib import Path

from agentlab.errors import UsageError
from agentlab.runs.atomic import storage_errors
from agentlab.runs.run import LOCK
from agentlab.runs.store import RunRecord

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date a zip file can hold


def export(record: RunRecord, target: Path) -> Path:
    """Pack every file of the run below a folder of its name.

    Raises:
        UsageError: the target exists.
        StorageError: it cannot be written.
    """
    if target.exists():
        raise UsageError(f"{target} already exists.", hint="Choose another --out.")
    temporary = target.with_name(f".{target.name}.tmp")
    files = sorted(path for path in record.path.rglob("*") if path.is_file() and path.name != LOCK)
    with storage_errors(target):
        try:
            with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
                for path in files:
                    entry = zipfile.ZipInfo(f"{record.id}/{path.relative_to(record.path).as_posix()}", _EPOCH)
                    entry.compress_type = zipfile.ZIP_DEFLATED
                    entry.external_attr = 0o644 << 16
                    archive.writestr(entry, path.read_bytes())
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    return target
