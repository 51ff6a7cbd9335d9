"""Inputs: one text or a file of lines, checked before anything runs."""

import json
from pathlib import Path
from typing import Any

import pytest

from agentlab.config.workspace import Workspace
from agentlab.errors import AgentlabError
from agentlab.pipeline.config import PipelineConfig
from agentlab.pipeline.items import COPY, PipelineInput, copy_of, read_inputs


def read(folder: Path, kept: Path | None = None, *, needed: bool = True, **fields: Any) -> tuple[PipelineInput, ...]:
    return read_inputs(PipelineConfig.model_validate(fields), Workspace(folder, folder), kept, needed=needed)


def test_one_text_has_no_name(tmp_path: Path) -> None:
    assert read(tmp_path, input="why?") == (PipelineInput("", "why?"),)


def test_a_file_is_one_text(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("a\nb\n")
    assert read(tmp_path, input_file="long.txt") == (PipelineInput("", "a\nb\n"),)


def test_lines_are_texts_or_objects(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('"one"\n\n{"input": "two", "id": 7}\n')
    assert read(tmp_path, inputs="x.jsonl") == (PipelineInput("0001", "one"), PipelineInput("0002", "two", {"id": 7}))


def test_a_run_reads_its_own_copy(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('"one"\n{"input": "two", "id": 7}\n')
    inputs = read(tmp_path, inputs="x.jsonl")
    (tmp_path / COPY).write_text(copy_of(inputs))
    (tmp_path / "x.jsonl").unlink()
    assert read(tmp_path, tmp_path, inputs="x.jsonl") == inputs


def test_line_ends_of_other_alphabets_do_not_split_an_input(tmp_path: Path) -> None:
    one = (PipelineInput("", "a\u2028b\x85c"),)
    (tmp_path / COPY).write_text(copy_of(one), encoding="utf-8")
    assert read(tmp_path, tmp_path, input="anything") == one


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "is empty"),
        (b"\xff\xfe", "not UTF-8"),
        (b"not json\n", "x.jsonl:1 is not valid JSON"),
        (b'"a"\n[1]\n', "x.jsonl:2 has no `input`"),
        (b'{"input": " "}\n', "x.jsonl:1 has an empty `input`"),
        (b"[" * 100_000, "x.jsonl:1"),
        (b'{"input": "a", "x": ' + b"[" * 600 + b"]" * 600 + b"}", "x.jsonl:1 is nested deeper"),
        (b'"a"\n"a\\ud800b"\n', "x.jsonl:2 contains an unpaired surrogate"),
        (b'{"input": "a", "x": [{"\\udc00": 1}]}\n', "x.jsonl:1 contains an unpaired surrogate"),
        (b'{"input": "a", "x": NaN}\n', "x.jsonl:1 contains NaN, which is not a valid JSON number"),
        (b'{"input": "a", "x": [-Infinity]}\n', "x.jsonl:1 contains -Infinity"),
        (b'{"input": "a", "x": 1e999}\n', "x.jsonl:1 contains 1e999"),
    ],
)
def test_a_bad_file_is_refused_with_its_line(tmp_path: Path, content: bytes, part: str) -> None:
    (tmp_path / "x.jsonl").write_bytes(content)
    with pytest.raises(AgentlabError, match=part):
        read(tmp_path, inputs="x.jsonl")


def test_the_mark_at_the_beginning_of_a_file_is_no_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b'\xef\xbb\xbf"one"\r\n"two"\r\n')
    (tmp_path / "x.txt").write_bytes(b"\xef\xbb\xbfone")
    assert read(tmp_path, inputs="x.jsonl") == (PipelineInput("0001", "one"), PipelineInput("0002", "two"))
    assert read(tmp_path, input_file="x.txt") == (PipelineInput("", "one"),)


def test_a_plan_needs_no_input_but_refuses_a_wrong_one(tmp_path: Path) -> None:
    assert read(tmp_path, needed=False) == ()
    assert read(tmp_path, needed=False, input="x") == (PipelineInput("", "x"),)
    with pytest.raises(AgentlabError):
        read(tmp_path, needed=False, inputs="absent")


def test_fields_of_an_input_never_replace_what_is_said_of_it(tmp_path: Path) -> None:
    line = {"input": "b", "id": 7, "n": "zz", "output": "mine", "error": "E", "item": 1}
    (tmp_path / "x.jsonl").write_text(json.dumps(line))
    (pipeline_input,) = read(tmp_path, inputs="x.jsonl")
    written = pipeline_input.output_line(pipeline_input.name, "ours", None)
    assert written == {
        "n": "0001",
        "id": 7,
        "input": "b",
        "output": "ours",
        "error": None,
        "item": {"n": "zz", "output": "mine", "error": "E", "item": 1},
    }
    assert PipelineInput("0002", "b", {"id": 7}).output_line("0002", "", "E") == {
        "n": "0002",
        "id": 7,
        "input": "b",
        "output": "",
        "error": "E",
    }


@pytest.mark.parametrize(
    "fields", [{}, {"input": ""}, {"input": " \n"}, {"inputs": "absent"}, {"input_file": "absent"}]
)
def test_without_an_input_it_says_how_to_give_one(tmp_path: Path, fields: dict[str, str]) -> None:
    with pytest.raises(AgentlabError) as caught:
        read(tmp_path, **fields)
    assert caught.value.hint
