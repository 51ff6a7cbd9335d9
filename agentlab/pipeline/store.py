"""Texts by their hash, and answers by their question, shared by all runs of a workspace.

    objects/<2>/<sha256>         a text: the answer of a call, the output of a stage
    answers/<2>/<key>.json       what was asked (in short), the answer, and the hash of all of it
    users/<2>/<sha256>           the path of a folder whose runs name texts of this store

Runs name texts by their hash, so a branch of ten stages takes space only for what changed in it.

What a power cut may take: nothing is synced when it is kept, since a sync takes as long as many stages may (a write
0.1 ms, synced 0.5 ms on a quiet disk and 8 ms on a busy one). What a cut leaves torn fails its check, counts as absent
and is asked again. A run calls `sync` once with the texts that it names, before it says that it is complete: those of
a completed run are there. Answers are never synced: they can be had again by asking.

Answers hold their text a second time, so that a question that was asked before costs one read.
"""

import contextlib
import os
import re
import secrets
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from itertools import islice
from json import loads
from pathlib import Path

from agentlab.errors import StorageError
from agentlab.pipeline.answer import Answer, Asked, canonical, decoded, encoded, sha_of
from agentlab.runs.atomic import is_temporary, make_folder, storage_errors, sync_folder, write_bytes
from agentlab.runs.document import Block, Document, Text

MOST_BYTES = 64 << 20  # of one text
_SHA = re.compile(r"[0-9a-f]{64}")
_MANY = 50  # texts, from which on it is quicker to sync the whole machine
_ABANDONED_SECONDS = 3600.0  # a file takes milliseconds to write


class Store:
    """Any number of processes may read and write it at once: files come whole, and are never changed in place."""

    def __init__(self, root: Path) -> None:
        """Nothing is made before something is kept. `root` is `Workspace.state / "pipeline"`."""
        self.objects = root / "objects"
        self.answers = root / "answers"
        self._users = root / "users"

    def put(self, text: str) -> str:
        """Keep a text; its SHA-256 is its name.

        Raises:
            StorageError: disk full, read-only or not ours; the text has more than 64 MiB.
        """
        content, sha = _bounded(encoded(text)), sha_of(text)
        path = _place(self.objects, sha)
        if _read(path) != content or not _touch(path):  # absent, damaged, or removed this moment
            _write(path, content)
        return sha

    def sync(self, shas: Iterable[str]) -> None:
        """Make these texts survive a power cut.

        Raises:
            StorageError: the disk refuses.
        """
        named = (_place(self.objects, sha) for sha in sorted({*shas}) if _SHA.fullmatch(sha))
        present = (path for path in named if path.exists())
        paths = list(islice(present, _MANY + 1))
        if len(paths) > _MANY and sys.platform == "linux":  # where it returns after the writing; see sync(2)
            os.sync()
        elif paths:
            paths += present
            folders = dict.fromkeys(path.parent for path in paths)
            for path in (*paths, *folders, self.objects, *self.objects.parents[:2]):
                with storage_errors(path):
                    _sync(path)

    def text(self, sha: str) -> str | None:
        """The text of this hash; None when it is absent or damaged. `sha` may be anything."""
        if not _SHA.fullmatch(sha):
            return None
        content = _read(_place(self.objects, sha))
        try:
            text = None if content is None else decoded(content)
        except ValueError:
            return None
        return text if text is not None and sha_of(text) == sha else None

    def remember(self, key: str, asked: Asked, answer: Answer) -> str:
        """Keep an answer under its question's key, and its text as an object, whose hash is returned.

        Raises:
            StorageError: see `put`.
        """
        sha = self.put(answer.text)
        body = {"asked": asked.summary(), "answer": asdict(answer), "sha": sha}
        content = _bounded(encoded(canonical({"check": _check(key, body), **body})))
        _write(_place(self.answers, key, ".json"), content)
        return sha

    def recall(self, key: str) -> tuple[Answer, str] | None:
        """The answer under a key, and its text's hash; None when it is absent or damaged.

        Raises:
            StorageError: its object was gone and cannot be written again.
        """
        path = _place(self.answers, key, ".json")
        found = _parsed(key, _read(path))
        if found is not None:
            _touch(path)
            answer, sha = found
            if not _touch(_place(self.objects, sha)):
                self.put(answer.text)  # the run that asks will name it
        return found

    def used_by(self, runs_dir: Path) -> None:
        """Note that runs of this folder are about to name texts: `gc` has to ask them, wherever they lie.

        Raises:
            StorageError: see `put`.
        """
        folder = str(runs_dir.resolve())
        note = _place(self._users, sha_of(folder))
        if _read(note) != encoded(folder):
            make_folder(note.parent)
            write_bytes(note, encoded(folder))  # synced: no later question would bring it back

    def users(self) -> list[Path]:
        """All folders that were noted, those that are gone as well."""
        found = [(note.name, _read(note)) for note in self._users.glob("??/*") if not is_temporary(note)]
        return [Path(decoded(folder)) for name, folder in found if folder and sha256(folder).hexdigest() == name]


class Freed(Document):
    """The answer of `pipeline gc`: what was removed."""

    objects: int
    answers: int
    bytes: int

    def blocks(self) -> list[Block]:
        """One sentence."""
        return [Text(f"Removed {self.objects} texts and {self.answers} answers: {self.bytes / (1 << 20):.1f} MiB.")]


def gc(store: Store, referenced: set[str], older_than_seconds: float, now: float) -> Freed:
    """Remove objects and answers whose hash is not in `referenced`, and which nobody wrote or used of late.

    The age is what protects work in progress: a run uses a text before its events name it. Whatever is removed
    although somebody wanted it is absent, and asked again. `now` is in UNIX seconds.

    Raises:
        StorageError: something cannot be removed.
    """
    before = now - older_than_seconds
    objects = [path for path in _old(store.objects, before) if path.name not in referenced]
    answers = [path for path in _old(store.answers, before) if not _answers_with(path, referenced)]
    torn = [path for folder in (store.objects, store.answers) for path in _torn(folder, now - _ABANDONED_SECONDS)]
    sizes = [_removed(objects, before), _removed(answers, before), _removed(torn, now)]
    return Freed(objects=len(sizes[0]), answers=len(sizes[1]), bytes=sum(map(sum, sizes)))


def _place(folder: Path, name: str, suffix: str = "") -> Path:
    if not _SHA.fullmatch(name):
        raise ValueError(f"{name!r} is no SHA-256")
    return folder / name[:2] / f"{name}{suffix}"


def _read(path: Path) -> bytes | None:
    """The bytes of a file; None when it cannot be read or is larger than anything kept here."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError:
        return None
    return content if len(content) <= MOST_BYTES else None


def _check(key: str, body: Mapping[str, object]) -> str:
    return sha_of(canonical({"key": key, **body}))


def _parsed(key: str, content: bytes | None) -> tuple[Answer, str] | None:
    try:
        body = loads(decoded(content)) if content is not None else None
        if not isinstance(body, dict) or body.pop("check", None) != _check(key, body):
            return None
        answer, sha = Answer(**body["answer"]), body["sha"]
        return (answer, sha) if sha_of(answer.text) == sha else None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):  # JSON of another shape
        return None


def _bounded(content: bytes) -> bytes:
    if len(content) > MOST_BYTES:
        raise StorageError(
            f"A text of {len(content) >> 20} MiB is too large to keep; {MOST_BYTES >> 20} MiB is the limit.",
            hint="Let the stage hand on less: output_mode: answer_only, or a smaller max_tokens.",
        )
    return content


def _write(path: Path, content: bytes) -> None:
    """Replace `path` whole or not at all, as far as processes can see."""
    make_folder(path.parent)
    with storage_errors(path):
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            temporary.write_bytes(content)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _sync(path: Path) -> None:
    if path.is_dir():
        sync_folder(path)
        return
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _touch(path: Path) -> bool:
    """Note that a file is in use, which keeps `gc` away; False when there is none."""
    try:
        os.utime(path)
    except OSError:
        return path.exists()  # a store that may only be read is of use as well
    return True


def _old(folder: Path, before: float) -> Iterator[Path]:
    return (path for path in folder.glob("??/*") if not is_temporary(path) and _used(path) < before)


def _torn(folder: Path, before: float) -> Iterator[Path]:
    return (path for path in folder.glob("??/.*") if is_temporary(path) and _used(path) < before)


def _used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return float("inf")  # another process was quicker


def _answers_with(path: Path, referenced: set[str]) -> bool:
    found = _parsed(path.stem, _read(path))
    return found is not None and found[1] in referenced


def _removed(paths: Sequence[Path], before: float) -> list[int]:
    """Remove files, but not those that were used since they were chosen; the sizes in bytes of those that went."""
    sizes: list[int] = []
    for path in paths:
        with storage_errors(path), contextlib.suppress(FileNotFoundError):  # another process was quicker
            stat = path.stat()
            if stat.st_mtime < before:
                path.unlink()
                sizes.append(stat.st_size)
    return sizes
