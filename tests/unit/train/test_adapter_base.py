"""Where the base model of an adapter lies."""

import json
from pathlib import Path

import pytest

from agentlab.config.workspace import Workspace
from agentlab.errors import MissingFileError, UnknownNameError, UsageError
from agentlab.hf.fingerprint import fingerprint_of
from agentlab.lora.card import CARD_FILE
from agentlab.train.adapter_base import base_of, same_base
from tests.unit.lora.folders import deltas, write_folder


@pytest.fixture
def own_workspace(tmp_path: Path) -> Workspace:
    for name in ("ours", "theirs"):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "config.json").write_text("{}")
    return Workspace(root=tmp_path, cache=tmp_path / "cache")


def test_what_is_given_goes_before_the_card_and_the_card_before_the_config(own_workspace: Workspace) -> None:
    path = write_folder(own_workspace.adapters / "a", deltas(1), base_model_name_or_path="models/theirs")
    assert base_of(path, None, own_workspace) == own_workspace.models / "theirs"
    (path / CARD_FILE).write_text(json.dumps({"base": {"path": str(own_workspace.models / "ours")}}))
    assert base_of(path, None, own_workspace) == own_workspace.models / "ours"
    assert base_of(path, "theirs", own_workspace) == own_workspace.models / "theirs"
    (path / CARD_FILE).write_text(json.dumps({"base": {"path": "/gone/base"}}))
    assert base_of(path, None, own_workspace) == own_workspace.models / "theirs"


def test_a_base_that_is_not_here_is_said_with_the_remedy(own_workspace: Workspace) -> None:
    path = write_folder(own_workspace.adapters / "a", deltas(1), base_model_name_or_path="someone/somewhere")
    with pytest.raises(MissingFileError, match="someone/somewhere") as missing:
        base_of(path, None, own_workspace)
    assert "--base" in str(missing.value.hint)
    with pytest.raises(UnknownNameError):
        base_of(path, "their", own_workspace)
    nameless = write_folder(own_workspace.adapters / "b", deltas(1), base_model_name_or_path=None)
    with pytest.raises(UsageError, match="does not name its base model"):
        base_of(nameless, None, own_workspace)


def test_a_base_is_the_same_by_its_fingerprint(own_workspace: Workspace) -> None:
    path, ours = write_folder(own_workspace.adapters / "a", deltas(1)), own_workspace.models / "ours"
    assert same_base(path, ours) is None
    (path / CARD_FILE).write_text(json.dumps({"base": {"fingerprint": fingerprint_of(ours)}}))
    assert same_base(path, ours) is True
    (ours / "config.json").write_text('{"changed": true}')
    with pytest.raises(UsageError, match="different base model") as another:
        same_base(path, ours)
    assert "--any-base" in str(another.value.hint)
    assert same_base(path, ours, any_base=True) is False
