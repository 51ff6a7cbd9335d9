"""A workspace that an earlier version has left, with runs of every command: all of it is read, shown and gone on with.

`make_earlier_workspace.py` made it once. It is not made again when this fails: what users have on their disks is older.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from agentlab.commands import COMMANDS
from tests.integration.make_earlier_workspace import EARLIER, PLACE, READING, copy_workspace, run_command
from tests.unit.frozen.shapes import list_key_paths

pytestmark = pytest.mark.usefixtures("undrawn")
ANSWERS: dict[str, Any] = json.loads((EARLIER / "answers.json").read_text(encoding="utf-8"))
# Figures that a clock has measured, and sentences with such figures in them: another session has others.
CLOCKED = {
    "second",
    "seconds",
    "joules",
    "grams",
    "speed",
    "rate",
    "decode",
    "prefill",
    "load",
    "peak",
    "within",
    "ms",
    "usd",
}
OTHER_ELSEWHERE = {"bytes", "made"}  # of files that hold a path, and when a checkout wrote them
# What two runs of a pipeline share of which the second one finds answers of the first.
COMPARED = {"pipeline": ("items",)}
SPOKEN = {"sentence", "remarks", "note", "notes", "control_note", "advice"}
REWORDED = {"budget", "reason"}  # sentences that say the same figures in other words
TOO_DEAR = {"compress"}  # whose measurements take half a minute of processes; `test_compress` goes on with such runs
ROUNDING = 1e-3  # by which figures of a training differ between processors


@pytest.fixture(scope="module")
def read_workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For commands that change nothing."""
    root = tmp_path_factory.mktemp("read") / "workspace"
    copy_workspace(EARLIER / "workspace", root)
    return root


@pytest.fixture(scope="module")
def resumed_workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For commands that go on with runs."""
    root = tmp_path_factory.mktemp("resumed") / "workspace"
    copy_workspace(EARLIER / "workspace", root)
    return root


def ask(root: Path, *words: str) -> Any:
    end = run_command(root, *words)
    assert end.exit_code == 0, end
    return json.loads(end.output.replace(str(root), PLACE))


@pytest.mark.parametrize("words", READING)
def test_what_only_reads_says_what_it_said(words: str, read_workspace: Path) -> None:
    answer = ask(read_workspace, *words.split())
    assert list(_list_differences(answer, ANSWERS[words], OTHER_ELSEWHERE | SPOKEN, 1e-6)) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_a_complete_run_has_the_result_that_it_had(command: str, read_workspace: Path) -> None:
    stored = json.loads((EARLIER / "workspace" / "runs" / f"{command}-complete" / "result.json").read_text())
    assert ask(read_workspace, "runs", "resume", f"{command}-complete")["result"] == stored


def test_a_debate_is_replayed_to_the_result_that_it_had(read_workspace: Path) -> None:
    stored = json.loads((EARLIER / "workspace" / "runs" / "debate-complete" / "result.json").read_text())
    result = ask(read_workspace, "debate", "replay", "debate-complete")["result"]
    assert list(_list_differences(result, stored, SPOKEN, 1e-6)) == []


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in TOO_DEAR])
def test_an_interrupted_run_goes_on_to_what_the_complete_one_has(command: str, resumed_workspace: Path) -> None:
    runs = resumed_workspace / "runs"
    before = (runs / f"{command}-interrupted" / "events.jsonl").read_text()
    answer = json.dumps(ask(resumed_workspace, "runs", "resume", f"{command}-interrupted")["result"])
    for name, name_of_complete in ((f"{command}-interrupted", f"{command}-complete"), ("cool", "calm")):
        answer = answer.replace(name, name_of_complete)
    complete = json.loads((EARLIER / "workspace" / "runs" / f"{command}-complete" / "result.json").read_text())
    result = json.loads(answer)
    for key in COMPARED.get(command, complete.keys() - CLOCKED - SPOKEN):
        assert list(_list_differences(result[key], complete[key], CLOCKED | SPOKEN, ROUNDING, key)) == []
    after = (runs / f"{command}-interrupted" / "events.jsonl").read_text()
    assert after.startswith(before)
    new_keys = _read_event_keys(after)
    old_keys = _read_event_keys((runs / f"{command}-complete" / "events.jsonl").read_text())
    for event_type in new_keys.keys() & old_keys.keys():
        assert new_keys[event_type] == old_keys[event_type], event_type


def test_answers_that_were_kept_are_found(resumed_workspace: Path) -> None:
    """The question is the same to the last field, so nobody is asked it again."""
    ask(resumed_workspace, "pipeline", "./pipeline.yaml", "--run-name", "again")
    events = (resumed_workspace / "runs" / "again" / "events.jsonl").read_text().splitlines()
    sources = [event["data"]["from"] for event in map(json.loads, events) if event["type"] == "call.answered"]
    assert sources == ["cache"] * 3


def _read_event_keys(events: str) -> dict[str, set[str]]:
    """The keys of each type of event."""
    keys: dict[str, set[str]] = {}
    for line in events.splitlines():
        event = json.loads(line)
        keys.setdefault(event["type"], set()).update(list_key_paths("", event["data"]))
    return keys


def _figures(sentence: str) -> list[float]:
    return sorted(float(figure) for figure in re.findall(r"\d+(?:\.\d+)?", sentence.replace(",", "")))


def _list_differences(actual: Any, expected: Any, passing: set[str], rounding: float, path: str = "") -> Iterator[str]:
    """Where two answers differ by more than rounding. Keys one of whose words is in `passing` are not compared."""
    if isinstance(actual, Mapping) and isinstance(expected, Mapping):
        if actual.keys() != expected.keys():
            yield f"{path}: the keys {sorted(actual.keys() ^ expected.keys())}"
        for key in actual.keys() & expected.keys():
            if key in REWORDED and isinstance(actual[key], str):
                yield from _list_differences(_figures(actual[key]), _figures(expected[key]), passing, rounding, path)
            elif key not in passing and passing.isdisjoint(str(key).split("_")):
                yield from _list_differences(actual[key], expected[key], passing, rounding, f"{path}.{key}")
    elif isinstance(actual, list) and isinstance(expected, list) and len(actual) == len(expected):
        for index, (mine, theirs) in enumerate(zip(actual, expected, strict=True)):
            yield from _list_differences(mine, theirs, passing, rounding, f"{path}[{index}]")
    elif isinstance(actual, float) and isinstance(expected, float):
        if actual != pytest.approx(expected, rel=rounding, abs=rounding):
            yield f"{path}: {actual} and {expected}"
    elif actual != expected:
        yield f"{path}: {actual!r} and {expected!r}"
