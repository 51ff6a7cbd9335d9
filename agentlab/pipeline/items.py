"""The inputs of a run: one text, or the lines of a JSONL file. A run keeps a copy, to resume and to be rerun from."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentlab.config.workspace import Workspace
from agentlab.errors import DataError, MissingFileError, UsageError
from agentlab.pipeline.config import PipelineConfig
from agentlab.runs.atomic import read_text

COPY = "inputs.jsonl"
_MOST_BYTES, _MOST_ITEMS, _LONGEST_LINE = 64 << 20, 100_000, 4 << 20
_DEEPEST = 100  # levels of a line
_HALF = re.compile("[\ud800-\udfff]")  # of a pair that makes a character; alone it cannot be written down
_OURS = ("n", "input", "output", "error", "item")  # the keys of a line of `outputs.jsonl`


@dataclass(frozen=True, slots=True)
class PipelineInput:
    """One input. `name` is empty when it is the only one; `fields` is what else its line says, `item` in templates."""

    name: str
    text: str
    fields: dict[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        return json.dumps({**self.fields, "input": self.text}, ensure_ascii=False)

    def output_line(self, number: str, output: str, error: str | None) -> dict[str, Any]:
        """Its line in `outputs.jsonl`: its fields and the answer. Fields that bear a name of ours stand in `item`."""
        free = {key: value for key, value in self.fields.items() if key not in _OURS}
        reserved_fields = {key: value for key, value in self.fields.items() if key in _OURS}
        ours = {"input": self.text, "output": output, "error": error}
        return {"n": number, **free, **ours, **({"item": reserved_fields} if reserved_fields else {})}


def read_inputs(
    config: PipelineConfig, workspace: Workspace, inputs_folder: Path | None = None, *, needed: bool = True
) -> tuple[PipelineInput, ...]:
    """What the config names; or what `inputs_folder`, the folder of a run, holds a copy of.

    A plan can be made without: where an input is not `needed` and none is named, there are none.

    Raises:
        UsageError: there is no input.
        MissingFileError, DataError: a file is absent, or not what it should be.
    """
    if inputs_folder is not None and (inputs_folder / COPY).is_file():
        inputs = _lines(inputs_folder / COPY)
        return inputs if config.inputs is not None else (PipelineInput("", inputs[0].text),)
    if config.inputs is not None:
        return _lines(workspace.resolve(config.inputs))
    if config.input_file is not None:
        return (PipelineInput("", _text(workspace.resolve(config.input_file))),)
    if config.input is None and not needed:
        return ()
    if config.input is None or not config.input.strip():
        raise UsageError(
            "The pipeline has no input." if config.input is None else "The input is empty.",
            hint="Pass --input TEXT, --input-file FILE (- reads standard input), or --inputs FILE.jsonl.",
        )
    return (PipelineInput("", config.input),)


def copy_of(inputs: Sequence[PipelineInput]) -> str:
    """The text of a run's `inputs.jsonl`."""
    return "".join(f"{pipeline_input.line()}\n" for pipeline_input in inputs)


def _text(path: Path) -> str:
    try:
        text = read_text(path, _MOST_BYTES).removeprefix("\ufeff")  # the mark that some programs begin UTF-8 with
    except FileNotFoundError:
        raise MissingFileError(f"The input file {path} does not exist.", hint="Check the path.") from None
    except OSError as error:
        raise MissingFileError(f"The input file {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        reason = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        raise DataError(f"The input file {path} cannot be used: {reason}.", hint="Save it as UTF-8 text.") from error
    if not text.strip():
        raise DataError(f"The input file {path} is empty.")
    return text


def _lines(path: Path) -> tuple[PipelineInput, ...]:
    lines = [(number, line) for number, line in enumerate(_text(path).split("\n"), 1) if line.strip()]
    if len(lines) > _MOST_ITEMS:
        raise DataError(f"{path} has {len(lines)} inputs; the limit is {_MOST_ITEMS}.", hint="Split the file.")
    digits = max(4, len(str(len(lines))))
    return tuple(_input(f"{n:0{digits}}", line, f"{path}:{number}") for n, (number, line) in enumerate(lines, 1))


def _input(name: str, line: str, where: str) -> PipelineInput:
    hint = 'Each line must be a quoted string, or an object such as {"input": "...", "id": 7}.'
    if len(line) > _LONGEST_LINE:
        raise DataError(f"{where} is longer than {_LONGEST_LINE} characters.")
    try:
        value = json.loads(line, parse_constant=_refuse_constant, parse_float=_finite)
    except _NotFiniteError as error:
        raise DataError(
            f"{where} contains {error}, which is not a valid JSON number.", hint="Write null, or omit it."
        ) from None
    except (ValueError, RecursionError):
        raise DataError(f"{where} is not valid JSON.", hint=hint) from None
    if not _within(value, _DEEPEST):
        raise DataError(f"{where} is nested deeper than {_DEEPEST} levels.")
    if _HALF.search(json.dumps(value, ensure_ascii=False)):
        raise DataError(
            f"{where} contains an unpaired surrogate (\\ud800 to \\udfff).", hint="Complete the pair, or remove it."
        )
    if isinstance(value, str):
        value = {"input": value}
    if not isinstance(value, dict) or not isinstance(value.get("input"), str):
        raise DataError(f"{where} has no `input`.", hint=hint)
    if not value["input"].strip():
        raise DataError(f"{where} has an empty `input`.", hint=hint)
    return PipelineInput(name, value["input"], {key: item for key, item in value.items() if key != "input"})


class _NotFiniteError(ValueError):
    """A number that JSON does not have, as it was written."""


def _refuse_constant(constant: str) -> float:
    raise _NotFiniteError(constant)


def _finite(digits: str) -> float:
    value = float(digits)
    return value if math.isfinite(value) else _refuse_constant(digits[:40])


def _within(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels >= 0 and all(_within(item, levels - 1) for item in inner)
