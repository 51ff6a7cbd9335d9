"""`runs rm` deletes what proves to be a run of that name, and nothing else whatever it looks like."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentlab.runs.run import OpenRun, RunEnvironment, RunOutcome, RunSpec

Call = Callable[..., Any]
Make = Callable[[Path], None]


def make_run(folder: Path) -> Path:
    """A finished run at `folder`."""
    with OpenRun.create(
        folder.parent, RunSpec("nas", "seed: 0\n", "", "h", 0, name=folder.name), RunEnvironment()
    ) as run:
        run.start({})
        run.complete(RunOutcome())
    return folder


def files(**contents: str) -> Make:
    """Makes a folder with these files; `__` in a name is a slash, `_` a dot."""

    def make(folder: Path) -> None:
        folder.mkdir()
        for name, content in contents.items():
            path = folder / name.replace("__", "/").replace("_", ".")
            path.parent.mkdir(exist_ok=True)
            path.write_text(content)

    return make


def changed_run(change: Callable[[Path], object]) -> Make:
    """Makes a run and changes it."""
    return lambda folder: change(make_run(folder)) and None


def with_manifest(**changes: Any) -> Make:
    """Makes a run whose manifest says something else, and whose lock names nobody."""

    def change(folder: Path) -> None:
        path = folder / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
        (folder / "lock").unlink()

    return changed_run(change)


def without_manifest(lock: str, events: str) -> Make:
    """Makes a folder that has only what a run may have beside its manifest."""
    return files(lock=lock, events_jsonl=events, config_yaml="seed: 0\n", manifest_json="{")


def link_to_run(folder: Path) -> None:
    folder.symlink_to(make_run(folder.parent.parent / "elsewhere" / folder.name))


def git_checkout(folder: Path) -> None:
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    (folder / "main.py").write_text("print()\n")


def renamed(folder: Path) -> None:
    make_run(folder.with_name("before")).rename(folder)


def copied(folder: Path) -> None:
    shutil.copytree(make_run(folder.with_name("original")), folder)


EVENT = '{"v":1,"seq":0,"t":1.0,"type":"run.started","id":"","data":{}}\n'
PACKAGE = json.dumps({"name": "extension", "manifest_version": 3, "id": "x"})
FOREIGN: dict[str, Make] = {
    "empty folder": Path.mkdir,
    "git checkout": git_checkout,
    "source tree": files(main_py="print()", src__lib_py="x = 1"),
    "python package": files(pyproject_toml="[project]", config_yaml="a: 1"),
    "browser extension": files(manifest_json=PACKAGE),
    "manifest that is a list": files(manifest_json="[]"),
    "manifest that is a number": files(manifest_json="1e999"),
    "manifest with only an id": files(manifest_json='{"id": "x", "schema_version": 1}'),
    "manifest that is empty": files(manifest_json=""),
    "manifest that is damaged": files(manifest_json="{", config_yaml="seed: 0"),
    "manifest of a newer agentlab": files(manifest_json='{"id": "x", "schema_version": 99}'),
    "manifest of another run": with_manifest(id="other"),
    "manifest with a path for an id": with_manifest(id="../x"),
    "manifest without an id": with_manifest(id=None),
    "renamed run": renamed,
    "copied run": copied,
    "link to a run": link_to_run,
    "link to a folder": lambda folder: folder.symlink_to(folder.parent.parent / "kept"),
    "link to nothing": lambda folder: folder.symlink_to("nowhere"),
    "link to itself": lambda folder: folder.symlink_to(folder.name),
    "file": lambda folder: folder.write_text("mine") and None,
    "pipe": lambda folder: os.mkfifo(folder),
    "events of somebody else": files(events_jsonl='{"type": "run.started"}\n', manifest_json="{"),
    "events without a lock": files(events_jsonl=EVENT, config_yaml="seed: 0", manifest_json="{"),
    "lock without events": files(lock='{"run": "x", "pid": 1}', manifest_json="{"),
    "lock of another run": without_manifest('{"run": "other", "pid": 1}', EVENT),
    "lock of another program": without_manifest('"x"', EVENT),
    "lock that is a number of a process": without_manifest("4711", EVENT),
    "events of another kind": without_manifest('{"run": "x"}', EVENT.replace("run.started", "user.login")),
    "events that are text": without_manifest('{"run": "x"}', "run.started\n"),
    "events that are damaged": without_manifest('{"run": "x"}', EVENT.replace("1.0", "NaN")),
    "manifest that is a folder": files(manifest_json__x="{}"),
    "checkpoint": files(config_json='{"model_type": "llama"}', model_safetensors="x"),
    "folder of runs": lambda folder: make_run(folder / "x") and None,
}


def tree(root: Path) -> set[tuple[str, bytes | str]]:
    """Everything below a folder; of a link where it leads to."""
    return {
        (str(path.relative_to(root)), str(path.readlink()) if path.is_symlink() else path.read_bytes())
        for path in root.rglob("*")
        if path.is_symlink() or path.is_file()
    } | {(str(path.relative_to(root)), "folder") for path in root.rglob("*") if path.is_dir()}


@pytest.mark.parametrize("make", FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_folder_stays_as_it_is(agentlab: Call, workspace: Path, make: Make) -> None:
    for name in ("runs", "elsewhere", "kept"):
        (workspace / name).mkdir()
    (workspace / "kept" / "thesis.txt").write_text("mine")
    make_run(workspace / "runs" / "good")
    make(workspace / "runs" / "x")
    before = tree(workspace)
    for words in (("x",), ("good", "x")):  # not even the one that is a run: all or none
        answer = agentlab("runs", "rm", *words, "--yes")
        assert answer.code == 2, answer.err
        assert tree(workspace) == before
    assert "runs rm" not in agentlab("runs", "show", "x").err


@pytest.mark.parametrize(
    "name", [".", "..", "../elsewhere/x", "../src", "runs/x", "./good", "good/", "/", "~", ".creating-0badcafe", "*"]
)
def test_what_is_no_name_deletes_nothing(agentlab: Call, workspace: Path, name: str) -> None:
    make_run(workspace / "runs" / "good")
    make_run(workspace / "elsewhere" / "x")
    make_run(workspace / "runs" / "good" / "x")
    files(main_py="print()")(workspace / "src")
    shutil.copytree(workspace / "elsewhere" / "x", workspace / "runs" / ".creating-0badcafe")
    before = tree(workspace)
    assert agentlab("runs", "rm", name, "--yes").code == 2
    assert agentlab("runs", "rm", str(workspace / name), "--yes").code == 2
    assert tree(workspace) == before


def test_a_folder_is_no_run_for_lying_in_the_folder_that_is_named(agentlab: Call, workspace: Path) -> None:
    files(main_py="print()")(workspace / "src")
    before = tree(workspace)
    assert agentlab("runs", "rm", "src", "--yes", "--runs-dir", ".").code == 2
    assert tree(workspace) == before


def test_nothing_is_deleted_through_a_link_in_the_place_of_the_runs_folder(agentlab: Call, workspace: Path) -> None:
    make_run(workspace / "disk" / "x")
    (workspace / "runs").symlink_to("disk")
    answer = agentlab("runs", "rm", "x", "--yes")
    assert answer.code == 2
    assert f"--runs-dir {workspace / 'disk'}" in answer.err
    assert (workspace / "disk" / "x" / "manifest.json").exists()
    assert agentlab("runs", "rm", "x", "--yes", "--runs-dir", workspace / "disk").code == 0


def test_a_link_inside_a_run_is_deleted_and_what_it_leads_to_is_not(agentlab: Call, workspace: Path) -> None:
    files(thesis_txt="mine")(workspace / "kept")
    run = make_run(workspace / "runs" / "x")
    (run / "exports").symlink_to(workspace / "kept")
    assert agentlab("runs", "rm", "x", "--yes").code == 0
    assert not run.exists()
    assert (workspace / "kept" / "thesis.txt").read_text() == "mine"


def test_nobody_is_asked_about_a_folder_that_stays(
    agentlab: Call, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workspace / "runs" / "x").mkdir(parents=True)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.confirm", lambda *_, **__: pytest.fail("asked"))
    assert agentlab("runs", "rm", "x").code == 2
