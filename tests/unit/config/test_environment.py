"""`.env` lies below the real variables and is read without touching them."""

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.config.environment import MAX_BYTES, parse_env, read_environment
from agentlab.errors import ConfigError


def test_real_variables_win_and_are_not_changed(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=file\nB=file\n")
    before = dict(os.environ)
    assert read_environment(tmp_path, {"B": "real"}) == {"A": "file", "B": "real"}
    assert dict(os.environ) == before


def test_without_the_file_there_is_the_environment(tmp_path: Path) -> None:
    assert read_environment(tmp_path, {"A": "1"}) == {"A": "1"}
    (tmp_path / ".env").mkdir()  # a virtual environment of that name
    assert read_environment(tmp_path, {"A": "1"}) == {"A": "1"}


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=1", "1"),
        ("export A = two words ", "two words"),
        ("A=", ""),
        ("A=x # comment", "x"),
        ("A=x#y", "x#y"),
        ("A= # comment", ""),
        ("A='it is $HOME # kept' # comment", "it is $HOME # kept"),
        (r'A="a\"b\n\\c"', 'a"b\n\\c'),
        ("A=a=b", "a=b"),
        ("A=1\r", "1"),
    ],
)
def test_values(line: str, value: str) -> None:
    assert parse_env(f"# first\n\n{line}\n", ".env") == {"A": value}


@pytest.mark.parametrize("line", ["secret-value", "1A=secret-value", "A-B=secret-value", "A='secret-value", 'A="s" x'])
def test_garbage_is_named_by_line_and_never_shown(line: str) -> None:
    with pytest.raises(ConfigError, match=r"\.env:2") as caught:
        parse_env(f"GOOD=1\n{line}\n", ".env")
    assert "secret-value" not in caught.value.message


@given(st.text(st.characters(exclude_characters="'\n\r\0", exclude_categories=["Cs"]), max_size=30))
def test_single_quotes_keep_everything(value: str) -> None:
    assert parse_env(f"A='{value}'", ".env") == {"A": value}


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert all(isinstance(value, str) for value in parse_env(text, ".env").values())


def test_size_and_encoding_are_bounded(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"A" * (MAX_BYTES + 1))
    with pytest.raises(ConfigError, match="larger than 64 KiB"):
        read_environment(tmp_path, {})
    (tmp_path / ".env").write_bytes(b"A=\xff\n")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_environment(tmp_path, {})
