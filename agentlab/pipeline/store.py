"""Answers by their question, shared by all runs of a workspace.

    answers/<2>/<key>.json       what was asked (in short), the answer, and the hash of all of it
    objects/<2>/<sha256>         a text, of runs of earlier versions; now a run folder holds its own (see `text_store`)

Any of it may go at any time: what is absent or damaged is asked again. So nothing is synced.
"""

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from json import loads
from pathlib import Path

from agentlab.files import open_file
from agentlab.pipeline.answer import PipelineAnswer, PipelineQuestion, canonical, decode_text, encode_text, sha_of
from agentlab.runs.atomic import is_temporary, make_folder, storage_errors, write_bytes
from agentlab.runs.document import AnswerDocument, Block, Text

_MOST_BYTES = 512 << 20  # of a file; a text has 64 MiB at most, and JSON may write a character as six
_SHA = re.compile(r"[0-9a-f]{64}")
_ABANDONED_SECONDS = 3600.0  # a file takes milliseconds to write


class Store:
    """Any number of processes may read and write it at once: files come whole, and are never changed in place."""

    def __init__(self, root: Path) -> None:
        """Nothing is made before something is kept. `root` is `Workspace.state / "pipeline"`."""
        self.objects = root / "objects"
        self.answers = root / "answers"

    def text(self, sha: str) -> str | None:
        """The text of this hash, of an older run; None when it is absent or damaged. `sha` may be anything."""
        if not _SHA.fullmatch(sha):
            return None
        content = _read(_path_of(self.objects, sha))
        try:
            text = None if content is None else decode_text(content)
        except ValueError:
            return None
        return text if text is not None and sha_of(text) == sha else None

    def remember(self, key: str, question: PipelineQuestion, answer: PipelineAnswer) -> None:
        """Keep an answer under its question's key.

        Raises:
            StorageError: disk full, read-only or not ours.
        """
        body = {"asked": question.summary(), "answer": asdict(answer)}
        path = _path_of(self.answers, key, ".json")
        make_folder(path.parent)
        write_bytes(path, encode_text(canonical({"check": _check(key, body), **body})), sync=False)

    def recall(self, key: str) -> PipelineAnswer | None:
        """The answer under a key; None when it is absent or damaged."""
        path = _path_of(self.answers, key, ".json")
        answer = _parse_answer(key, _read(path))
        if answer is not None:
            with contextlib.suppress(OSError):  # a store that may only be read is of use as well
                os.utime(path)  # in use: `gc` keeps away
        return answer


class Freed(AnswerDocument):
    """The answer of `pipeline gc`: what was removed."""

    answers: int
    bytes: int

    def blocks(self) -> list[Block]:
        return [Text(f"Removed {self.answers} answers, freeing {self.bytes / (1 << 20):.1f} MiB.")]


def gc(store: Store, older_than_seconds: float, now: float) -> Freed:
    """Remove answers that nobody used of late. `now` is in UNIX seconds.

    Raises:
        StorageError: something cannot be removed.
    """
    before, abandoned = now - older_than_seconds, now - _ABANDONED_SECONDS
    folders = [path for path in store.answers.glob("[0-9a-f][0-9a-f]") if not path.is_symlink()]
    files = list(chain.from_iterable(folder.iterdir() for folder in folders))
    answers = [path for path in files if path.suffix == ".json" and _SHA.fullmatch(path.stem)]
    sizes = _remove_unused_files(answers, before)
    torn = _remove_unused_files([path for path in files if is_temporary(path)], abandoned)
    return Freed(answers=len(sizes), bytes=sum(sizes) + sum(torn))


def _path_of(folder: Path, name: str, suffix: str = "") -> Path:
    if not _SHA.fullmatch(name):
        raise ValueError(f"{name!r} is not a SHA-256 hash")
    return folder / name[:2] / f"{name}{suffix}"


def _read(path: Path) -> bytes | None:
    """The bytes of a file; None when it cannot be read or is larger than anything kept here."""
    try:
        with open_file(path) as file:
            content = file.read(min(_MOST_BYTES, os.fstat(file.fileno()).st_size) + 1)  # room is made for all of it
    except OSError:
        return None
    return content if len(content) <= _MOST_BYTES else None


def _check(key: str, body: Mapping[str, object]) -> str:
    return sha_of(canonical({"key": key, **body}))


def _parse_answer(key: str, content: bytes | None) -> PipelineAnswer | None:
    try:
        body = loads(decode_text(content)) if content is not None else None
        if not isinstance(body, dict) or body.pop("check", None) != _check(key, body):
            return None
        return PipelineAnswer(**body["answer"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):  # JSON of another shape
        return None


def _remove_unused_files(paths: Sequence[Path], before: float) -> list[int]:
    """Remove those of the files that were last used before a time; the sizes in bytes of those that went."""
    sizes: list[int] = []
    for path in paths:
        with storage_errors(path), contextlib.suppress(FileNotFoundError):  # another process was quicker
            stat = path.stat()
            if stat.st_mtime < before:
                path.unlink()
                sizes.append(stat.st_size)
    return sizes
