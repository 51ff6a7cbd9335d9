"""Counting the tokens of an answer with the model's own tokenizer."""

from collections.abc import Callable
from pathlib import Path

from agentlab.errors import MissingFileError, ModelFileError

_LARGEST = 64 << 20  # bytes


def counter(path: Path) -> Callable[[str], int]:
    """Counts with a `tokenizer.json`; a text stands for itself, no special tokens are added.

    Raises:
        MissingFileError: there is no such file.
        ModelFileError: it is no tokenizer.
    """
    if not path.is_file():
        raise MissingFileError(
            f"There is no tokenizer at {path}.", hint="Point load.tokenizer at the model's tokenizer.json."
        )
    if path.stat().st_size > _LARGEST:
        raise ModelFileError(f"{path} is too large for a tokenizer.")
    from tokenizers import Tokenizer  # takes a moment, and only some runs count

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # what the library raises is a plain Exception
        raise ModelFileError(f"{path} is not a tokenizer: {error}.") from error
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
