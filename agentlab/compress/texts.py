"""Windows of tokens: what statistics are taken on, and what nobody has seen before it is measured on."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agentlab.errors import DataError, MissingFileError
from agentlab.runs.atomic import read_text

SHIPPED = "pydoc_data.topics"  # prose about Python that every CPython has: no download
_MOST = 64 << 20
_SHARE = 3  # one in so many pieces is held out
MOST = 64  # windows that a recipe is chosen by, and as many that the winner is confirmed on
_STREAM = 4  # of the generator
_CHARACTERS = 8  # of a token: prose has half as many


@dataclass(frozen=True, slots=True)
class CompressTexts:
    """Windows of equal length, as token ids."""

    calibration: tuple[tuple[int, ...], ...]
    held_out: tuple[tuple[int, ...], ...]  # what every recipe is measured on
    choose: tuple[tuple[int, ...], ...]  # for recipes near a bound; the first are those of `held_out`
    confirm: tuple[tuple[int, ...], ...]  # for the winner; shares no window with `choose`
    seen: frozenset[int]  # all tokens of the text that is not held out
    sha256: str  # of the text
    source: str  # where the text is from


def pieces(path: Path | None) -> dict[str, str]:
    """Pieces of text that belong together: topics of Python's help, or paragraphs of a file.

    Raises:
        MissingFileError: there is no such file.
        DataError: it is no text, or empty.
    """
    if path is None:
        from pydoc_data.topics import topics

        return dict(topics)
    if not path.is_file():
        raise MissingFileError(f"No such text file: {path}.", hint="Pass another with --text, or omit it.")
    try:
        text = read_text(path, _MOST).replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}") from error
    except ValueError as error:
        raise DataError(f"Cannot use {path}: {error}.", hint="Use a part of the file.") from error
    paragraphs = {part.strip(): part.strip() for part in text.split("\n\n") if part.strip()}
    if not paragraphs:
        hint = "Calibration needs a few thousand words of text similar to what the model will process."
        raise DataError(f"{path} is empty.", hint=hint)
    return paragraphs


def windows(
    tokenizer: Any, parts: Mapping[str, str], source: str, counts: tuple[int, int], length: int, seed: int = 0
) -> CompressTexts:
    """Calibration and held-out windows; no piece of text is in both.

    Args:
        parts: pieces of text by name; a hash of the name says on which side each is.
        source: what the reader is told of them.
        counts: windows of each side.
        length: tokens of a window, with the token that begins a text where the tokenizer puts one.
        seed: draws windows beyond those that are held out: half of what is left is to choose, half to confirm.

    Raises:
        DataError: there is too little text.
    """
    begin: list[int] = tokenizer("")["input_ids"]
    ids: list[list[int]] = [tokenizer(side, add_special_tokens=False)["input_ids"] for side in _sides(parts)]
    side_windows = [_cut(begin, side, count, length) for side, count in zip(ids, counts, strict=True)]
    _refuse_short(source, [len(group) for group in side_windows], counts, length)
    digest = hashlib.sha256("\0".join(f"{name}\0{parts[name]}" for name in sorted(parts)).encode()).hexdigest()
    held_out = tuple(side_windows[1])
    unused = [window for window in dict.fromkeys(_cut(begin, ids[1], len(ids[1]), length)) if window not in held_out]
    rng = np.random.default_rng([seed, _STREAM])
    to_choose, to_confirm = _sample(unused[::2], rng), _sample(unused[1::2], rng)
    choose, seen = (*held_out, *to_choose)[: max(MOST, len(held_out))], frozenset(begin + ids[0])
    return CompressTexts(tuple(side_windows[0]), held_out, choose, to_confirm, seen, f"sha256:{digest}", source)


def _sample(unused: Sequence[tuple[int, ...]], rng: np.random.Generator) -> tuple[tuple[int, ...], ...]:
    return tuple(unused[index] for index in rng.permutation(len(unused))[:MOST])


def check_enough(tokenizer: Any, parts: Mapping[str, str], source: str, counts: tuple[int, int], length: int) -> None:
    """Refuse what `windows` would refuse, reading no more of a long text than it takes to know; arguments as there."""
    width = length - len(tokenizer("")["input_ids"])
    available = []
    for side, count in zip(_sides(parts), counts, strict=True):
        beginning = side[: count * width * _CHARACTERS]
        tokens = len(tokenizer(beginning, add_special_tokens=False)["input_ids"])
        if tokens < count * width and len(beginning) < len(side):
            tokens = len(tokenizer(side, add_special_tokens=False)["input_ids"])
        available.append(min(tokens // width, count))
    _refuse_short(source, available, counts, length)


def _sides(parts: Mapping[str, str]) -> tuple[str, str]:
    """The texts to calibrate with, and those to measure on."""
    sides: tuple[list[str], list[str]] = ([], [])
    for name in sorted(parts, key=_hash):
        sides[_hash(name) % _SHARE == 0].append(parts[name])
    return "\n\n".join(sides[0]), "\n\n".join(sides[1])


def _refuse_short(source: str, available: Sequence[int], counts: Sequence[int], length: int) -> None:
    if short := [f"{present} of {count}" for present, count in zip(available, counts, strict=True) if present < count]:
        raise DataError(
            f"{source} is too short: it yields {' and '.join(short)} windows of {length} tokens.",
            hint="Use a longer text with paragraphs, or shorter or fewer windows: --set text.length=128 or "
            "text.held_out=4.",
        )


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def _cut(begin: Sequence[int], ids: Sequence[int], count: int, length: int) -> list[tuple[int, ...]]:
    width = length - len(begin)
    free = len(ids) // width
    indices = range(free) if free < count else [free * step // count for step in range(count)]  # evenly spread
    return [(*begin, *ids[index * width : (index + 1) * width]) for index in indices]
