"""What lies in `adapters/`, damaged folders included, and what a name means."""

import json
from pathlib import Path

import pytest

from agentlab.config.workspace import Workspace
from agentlab.errors import MissingFileError, UnknownNameError
from agentlab.lora.card import CARD_FILE
from agentlab.lora.catalogue import find, list_adapters
from agentlab.lora.reading import WEIGHTS_FILE
from agentlab.lora.views import AdapterList
from tests.unit.lora.folders import deltas, write_folder


@pytest.fixture
def own_workspace(tmp_path: Path) -> Workspace:
    return Workspace(root=tmp_path, cache=tmp_path / "cache")


def test_an_adapter_is_described_from_its_headers_and_card(own_workspace: Workspace) -> None:
    path = write_folder(own_workspace.adapters / "poet", deltas(1), rank_pattern={}, lora_alpha=8)
    (path / CARD_FILE).write_text(json.dumps({"metrics": {"eval_loss": 1.5}}))
    (entry,) = list_adapters(own_workspace)
    assert entry.problem is None
    assert entry.shape is not None
    assert (entry.shape.ranks, entry.shape.scales) == ((4, 4), (2.0, 2.0))
    assert entry.shape.targets == {"q_proj": 1, "down_proj": 1}
    assert entry.bytes == sum(part.stat().st_size for part in path.iterdir())
    (line,) = AdapterList.of([entry]).adapters
    assert (line.base, line.eval_loss) == ("some/base", 1.5)
    assert entry.made == (path / WEIGHTS_FILE).stat().st_mtime


def test_damaged_folders_are_listed_with_what_is_wrong(own_workspace: Workspace) -> None:
    cut = write_folder(own_workspace.adapters / "cut", deltas(1)) / WEIGHTS_FILE
    cut.write_bytes(cut.read_bytes()[:40])
    (own_workspace.adapters / "empty").mkdir()
    write_folder(own_workspace.adapters / "good", deltas(1))
    (write_folder(own_workspace.adapters / "scribbled", deltas(1)) / CARD_FILE).write_text("{")
    write_folder(own_workspace.adapters / "strange", deltas(1), use_dora=True)
    (own_workspace.adapters / ".making-adapter-1-x").mkdir()
    (own_workspace.adapters / "a file").write_text("")
    problems = {entry.name: entry.problem for entry in list_adapters(own_workspace)}
    assert list(problems) == ["cut", "empty", "good", "scribbled", "strange"]
    assert problems["good"] is None
    for name, word in {"cut": "damaged", "empty": "no adapter_config", "scribbled": "card", "strange": "DoRA"}.items():
        assert word in str(problems[name])
    assert "damaged" in repr(AdapterList.of(list_adapters(own_workspace)).blocks())


def test_a_workspace_without_adapters_has_none(own_workspace: Workspace) -> None:
    assert list_adapters(own_workspace) == []


def test_names_and_paths(own_workspace: Workspace) -> None:
    poet = write_folder(own_workspace.adapters / "poet", deltas(1))
    outside = write_folder(own_workspace.root / "elsewhere" / "critic", deltas(2))
    assert find("poet", own_workspace) == poet
    assert find("elsewhere/critic", own_workspace) == find(str(outside), own_workspace) == outside
    with pytest.raises(UnknownNameError, match="'poets'") as error:
        find("poets", own_workspace)
    assert "Did you mean poet?" in str(error.value.hint)
    with pytest.raises(UnknownNameError):
        find("..", own_workspace)
    with pytest.raises(MissingFileError):
        find("elsewhere/nobody", own_workspace)


def test_a_name_cannot_break_the_line_that_suggests_it(own_workspace: Workspace) -> None:
    write_folder(own_workspace.adapters / "poet\x1b[31m\n|x", deltas(1))
    for name in ("poet", "somebody"):
        with pytest.raises(UnknownNameError) as error:
            find(name, own_workspace)
        assert "'poet\\x1b[31m\\n|x'" in str(error.value.hint)
