"""Secrets of the environment and what is written: they never appear, and what is no secret is never touched."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agentlab.config.load import load_resolved
from agentlab.nas.config import NasConfig
from agentlab.nas.result import NasResult
from agentlab.runs.redact import Redactor
from agentlab.runs.store import find, read_result
from agentlab.session import Watch, begin, surroundings
from tests.cli.conftest import TINY, Answer

Call = Callable[..., Answer]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("value", ["default", "run_0001"])
def test_a_password_that_is_a_word_of_a_config_harms_no_run(
    agentlab: Call, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("DB_PASSWORD", value)
    assert agentlab("nas", "demo", "--run-name", "mine", "--max-iterations", "1", *TINY).code == 0
    answer = agentlab("runs", "show", "mine", "--json")
    assert (answer.code, "redacted" in answer.out) == (0, False)
    assert len(agentlab("nas", "--resume", "mine", "--max-iterations", "2", "--json").json["result"]["trials"]) == 2


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run, written without any secret in the environment."""
    root = tmp_path_factory.mktemp("workspace")
    context = surroundings({"AGENTLAB_HOME": str(root), "HOME": str(root)}, root)
    from agentlab.config.overrides import parse

    changes = [parse(word.removeprefix("--set=")) for word in (*TINY, "max_iterations=2")]
    session = begin("nas", "demo", changes, context=context, runs_dir=root / "runs", run_name="mine", argv=["agentlab"])
    return session.carry_out(Watch()).path


def _words(run: Path) -> list[str]:
    """What stands in the files of a run, in pieces of all kinds."""
    text = "".join(path.read_text() for path in sorted(run.iterdir()) if path.suffix in (".json", ".jsonl", ".yaml"))
    pieces = (r"[\w./:-]{6,40}", r"[A-Za-z]{6,}", r"[^A-Za-z0-9]{6,}", r".{6,9}")
    return sorted({word for piece in pieces for word in re.findall(piece, text)})


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_run_is_read_back_whatever_the_environment_holds(run: Path, tmp_path: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["DB_PASSWORD", "GITHUB_TOKEN", "X_API_KEY", "key"]))
    value = data.draw(st.one_of(st.sampled_from(_words(run)), st.text(min_size=4, max_size=40)))
    redactor = Redactor.of({name: value})
    copy = tmp_path / "mine"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(run, copy)
    for file in ("config.yaml", "source.yaml", "events.jsonl"):
        (copy / file).write_text(redactor.mask_file(file, (run / file).read_text()))
    (copy / "result.json").write_text(json.dumps(redactor.mask_tree(json.loads((run / "result.json").read_text()))))
    record, before = find(tmp_path, "mine"), find(run.parent, "mine")
    assert [event.type for event in record.events()] == [event.type for event in before.events()]
    assert type(read_result(record, NasResult)) is NasResult
    config = (run / "config.yaml").read_text()
    if redactor.mask(config) == config:  # else the run would not have begun
        load_resolved(NasConfig, copy / "config.yaml", (), env={})


@given(
    st.from_regex(r"[A-Za-z0-9+/_-]{12}[0-9][a-z][A-Z0-9+/\"\\<&|]{4}", fullmatch=True),
    st.sampled_from(["a.jsonl", "b.yaml", "c.txt"]),
)
@example('ab"cd\\ef1<g&h|', "a.jsonl")
def test_a_real_key_appears_in_no_kind_of_file(secret: str, name: str) -> None:
    redactor = Redactor.of({"SOME_API_KEY": secret})
    tree = {"said": f"it is {secret}.", secret: [secret, {"deep": secret}]}
    text = {"a.jsonl": f"{json.dumps(tree)}\n", "b.yaml": json.dumps(tree), "c.txt": str(secret), "d.json": secret}[
        name
    ]
    masked = redactor.mask_file(name, text)
    assert secret not in masked
    assert json.dumps(secret)[1:-1] not in masked


def test_a_secret_is_masked_before_markup_is_put_around_it(run: Path) -> None:
    from agentlab.runs.document import Heading, Table, Text
    from agentlab.runs.report import html, markdown

    secret = "a_b*c<d&e1F2"
    blocks = Redactor([secret]).scrub_blocks([Heading(secret), Text(f"x {secret}"), Table(("a",), [(secret,)])])
    assert markdown("t", blocks).count("redacted") == html("t", blocks, lambda _: "").count("redacted") == 3
    page = html("t", Redactor(["<table>", "</h2>\n<p>"]).scrub_blocks([Table(("a",), [("b",)])]), lambda _: "")
    assert "<table>" in page


def test_a_secret_where_only_a_name_may_stand_is_refused_before_anything_is_written(
    agentlab: Call, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DB_PASSWORD", "x9y8z7-Secret")
    answer = agentlab("train-persona", "--set", "personas=[{name: x9y8z7-Secret, data: a.jsonl}]")
    assert (answer.code, "personas.name: contains the value of DB_PASSWORD" in answer.err) == (2, True)
    assert "x9y8z7" not in answer.err
    assert not (workspace / "runs").exists()


def test_a_workspace_does_not_say_where_trust_is_kept(
    agentlab: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    workspace, user = tmp_path / "theirs", tmp_path / "user"
    workspace.mkdir()
    (workspace / ".env").write_text(f"XDG_CONFIG_HOME={workspace}\n")
    monkeypatch.setenv("AGENTLAB_HOME", str(workspace))
    monkeypatch.setenv("HOME", str(user))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert agentlab("llm", "trust", "MY_API_KEY", "llm.example.org").code == 0
    assert (user / ".config/agentlab/trusted-keys").read_text() == "MY_API_KEY@llm.example.org\n"
    assert surroundings({"HOME": str(user)}, workspace).env["AGENTLAB_TRUST"] == "MY_API_KEY@llm.example.org"
