"""Counting with a tokenizer."""

from collections.abc import Callable
from pathlib import Path

import pytest

from agentlab.bench.config import BenchConfig
from agentlab.bench.load.config import LoadConfig
from agentlab.bench.load.session import answer_counter
from agentlab.config.workspace import Workspace
from agentlab.errors import MissingFileError, ModelFileError
from agentlab.runs.context import Context


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """A tokenizer whose tokens are words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "yes": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def counter(path: Path) -> Callable[[str], int] | None:
    config = BenchConfig(mock=("ok",), load=LoadConfig(tokenizer=str(path)))
    return answer_counter(config, Context(Workspace(path.parent, path.parent), {}))


def test_tokens_are_those_of_the_tokenizer(words: Path) -> None:
    count = counter(words)
    assert count is not None
    assert (count("yes yes no"), count("")) == (3, 0)


def test_what_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError):
        counter(tmp_path / "absent.json")
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(ModelFileError):
        counter(tmp_path / "broken.json")
