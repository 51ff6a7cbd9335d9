"""The texts of one run by their hash: a line each in its `texts.jsonl`, so that a copied run folder holds them all.

Events name texts by their SHA-256, and one that many of them name takes one line. Nothing is synced when it is written
(0.1 ms, synced 8 ms on a busy disk): what a power cut tears fails its check, counts as absent and is asked
again. A run calls `sync` once, before it says that it is complete.
"""

import errno
import json
import os
import re
import threading
from pathlib import Path

from agentlab.errors import StorageError
from agentlab.files import open_to_write
from agentlab.pipeline.answer import decode_text, encode_text, sha_of
from agentlab.pipeline.store import Store
from agentlab.runs.atomic import storage_errors, sync_folder

FILE = "texts.jsonl"
MOST_BYTES = 64 << 20  # of one text
_MOST_LINE = 6 * MOST_BYTES + 128  # a character may be written as six
_LINE = re.compile(rb'\{"sha":"([0-9a-f]{64})","text":')


class RunTexts:
    """Of the run in `folder`. Any thread may put; one process at a time does, which the run's lock sees to."""

    def __init__(self, folder: Path, store: Store) -> None:
        """Nothing is made before something is put. `store` knows the texts of runs of earlier versions."""
        self._path, self._store = folder / FILE, store
        self._putting = threading.Lock()
        self._places: dict[str, tuple[int, int]] = {}  # where the line of a text begins, and its length in bytes
        self._torn = False  # whether the file ends within a line
        self._scan()

    def text(self, sha: str) -> str | None:
        """The text of this hash; None when it is absent or damaged. `sha` may be anything."""
        return self._read(sha) if sha in self._places else self._store.text(sha)

    def put(self, text: str) -> str:
        """Keep a text; its SHA-256 is its name.

        Raises:
            StorageError: disk full, read-only or not ours; the text has more than 64 MiB.
        """
        size = len(encode_text(text))
        if size > MOST_BYTES:
            raise StorageError(
                f"A text of {size >> 20} MiB is too large to store; the limit is {MOST_BYTES >> 20} MiB.",
                hint="Set output_mode: answer_only, or lower max_tokens.",
            )
        sha = sha_of(text)
        with self._putting:
            if self._read(sha) is None:
                self._append(sha, text)
        return sha

    def sync(self) -> None:
        """Make all of them survive a power cut.

        Raises:
            StorageError: the disk refuses.
        """
        if self._places:
            with storage_errors(self._path), open_to_write(self._path, "r+b") as file:
                os.fsync(file.fileno())
                sync_folder(self._path.parent)

    def _append(self, sha: str, text: str) -> None:
        line = encode_text(json.dumps({"sha": sha, "text": text}, ensure_ascii=False, separators=(",", ":")) + "\n")
        with storage_errors(self._path), open_to_write(self._path, "ab") as file:
            mend = b"\n" if self._torn else b""
            offset, self._torn = file.tell() + len(mend), True
            if file.write(mend + line) < len(mend) + len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._torn = False
        self._places[sha] = offset, len(line)

    def _read(self, sha: str) -> str | None:
        offset, length = self._places.get(sha, (0, 0))
        if not length:
            return None
        try:
            with self._path.open("rb") as file:
                file.seek(offset)
                text = json.loads(decode_text(file.read(length)))["text"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return text if isinstance(text, str) and sha_of(text) == sha else None

    def _scan(self) -> None:
        if not self._path.is_file():
            return
        with self._path.open("rb") as file:
            offset = 0
            while line := file.readline(_MOST_LINE):
                self._torn = not line.endswith(b"\n")
                if not self._torn and (match := _LINE.match(line)):
                    self._places[match[1].decode()] = offset, len(line)
                offset += len(line)
