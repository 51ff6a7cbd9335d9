"""Inputs: one text or a file of lines, checked before anything runs."""

from pathlib import Path
from typing import Any

import pytest

from agentlab.config.workspace import Workspace
from agentlab.errors import AgentlabError
from agentlab.pipeline.config import PipelineConfig
from agentlab.pipeline.items import COPY, Input, copy_of, read_inputs


def read(folder: Path, kept: Path | None = None, **fields: Any) -> tuple[Input, ...]:
    return read_inputs(PipelineConfig.model_validate(fields), Workspace(folder, folder), kept)


def test_one_text_has_no_name(tmp_path: Path) -> None:
    assert read(tmp_path, input="why?") == (Input("", "why?"),)


def test_a_file_is_one_text(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("a\nb\n")
    assert read(tmp_path, input_file="long.txt") == (Input("", "a\nb\n"),)


def test_lines_are_texts_or_objects(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('"one"\n\n{"input": "two", "id": 7}\n')
    assert read(tmp_path, inputs="x.jsonl") == (Input("0001", "one"), Input("0002", "two", {"id": 7}))


def test_a_run_reads_its_own_copy(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('"one"\n{"input": "two", "id": 7}\n')
    inputs = read(tmp_path, inputs="x.jsonl")
    (tmp_path / COPY).write_text(copy_of(inputs))
    (tmp_path / "x.jsonl").unlink()
    assert read(tmp_path, tmp_path, inputs="x.jsonl") == inputs


def test_line_ends_of_other_alphabets_do_not_split_an_input(tmp_path: Path) -> None:
    one = (Input("", "a\u2028b\x85c"),)
    (tmp_path / COPY).write_text(copy_of(one), encoding="utf-8")
    assert read(tmp_path, tmp_path, input="anything") == one


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "is empty"),
        (b"\xff\xfe", "not UTF-8"),
        (b"not json\n", "x.jsonl:1 is not JSON"),
        (b'"a"\n[1]\n', "x.jsonl:2 has no `input`"),
        (b'{"input": " "}\n', "x.jsonl:1 has an empty `input`"),
        (b"[" * 100_000, "x.jsonl:1"),
    ],
)
def test_a_bad_file_is_refused_with_its_line(tmp_path: Path, content: bytes, part: str) -> None:
    (tmp_path / "x.jsonl").write_bytes(content)
    with pytest.raises(AgentlabError, match=part):
        read(tmp_path, inputs="x.jsonl")


@pytest.mark.parametrize(
    "fields", [{}, {"input": ""}, {"input": " \n"}, {"inputs": "absent"}, {"input_file": "absent"}]
)
def test_without_an_input_it_says_how_to_give_one(tmp_path: Path, fields: dict[str, str]) -> None:
    with pytest.raises(AgentlabError) as caught:
        read(tmp_path, **fields)
    assert caught.value.hint
