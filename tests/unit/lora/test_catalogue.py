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
def place(tmp_path: Path) -> Workspace:
    return Workspace(root=tmp_path, cache=tmp_path / "cache")


def test_an_adapter_is_described_from_its_headers_and_card(place: Workspace) -> None:
    path = write_folder(place.adapters / "poet", deltas(1), rank_pattern={}, lora_alpha=8)
    (path / CARD_FILE).write_text(json.dumps({"metrics": {"eval_loss": 1.5}}))
    (entry,) = list_adapters(place)
    assert entry.problem is None
    assert entry.shape is not None
    assert (entry.shape.ranks, entry.shape.scales) == ((4, 4), (2.0, 2.0))
    assert entry.shape.targets == {"q_proj": 1, "down_proj": 1}
    assert entry.bytes == sum(part.stat().st_size for part in path.iterdir())
    (line,) = AdapterList.of([entry]).adapters
    assert (line.base, line.eval_loss) == ("some/base", 1.5)
    assert entry.made == (path / WEIGHTS_FILE).stat().st_mtime


def test_damaged_folders_are_listed_with_what_is_wrong(place: Workspace) -> None:
    cut = write_folder(place.adapters / "cut", deltas(1)) / WEIGHTS_FILE
    cut.write_bytes(cut.read_bytes()[:40])
    (place.adapters / "empty").mkdir()
    write_folder(place.adapters / "good", deltas(1))
    (write_folder(place.adapters / "scribbled", deltas(1)) / CARD_FILE).write_text("{")
    write_folder(place.adapters / "strange", deltas(1), use_dora=True)
    (place.adapters / ".making-adapter-1-x").mkdir()
    (place.adapters / "a file").write_text("")
    found = {entry.name: entry.problem for entry in list_adapters(place)}
    assert list(found) == ["cut", "empty", "good", "scribbled", "strange"]
    assert found["good"] is None
    for name, word in {"cut": "damaged", "empty": "no adapter_config", "scribbled": "card", "strange": "DoRA"}.items():
        assert word in str(found[name])
    assert "damaged" in repr(AdapterList.of(list_adapters(place)).blocks())


def test_a_workspace_without_adapters_has_none(place: Workspace) -> None:
    assert list_adapters(place) == []


def test_names_and_paths(place: Workspace) -> None:
    poet = write_folder(place.adapters / "poet", deltas(1))
    outside = write_folder(place.root / "elsewhere" / "critic", deltas(2))
    assert find("poet", place) == poet
    assert find("elsewhere/critic", place) == find(str(outside), place) == outside
    with pytest.raises(UnknownNameError, match="'poets'") as error:
        find("poets", place)
    assert "Did you mean poet?" in str(error.value.hint)
    with pytest.raises(UnknownNameError):
        find("..", place)
    with pytest.raises(MissingFileError):
        find("elsewhere/nobody", place)


def test_a_name_cannot_break_the_line_that_suggests_it(place: Workspace) -> None:
    write_folder(place.adapters / "poet\x1b[31m\n|x", deltas(1))
    for asked in ("poet", "somebody"):
        with pytest.raises(UnknownNameError) as error:
            find(asked, place)
        assert "'poet\\x1b[31m\\n|x'" in str(error.value.hint)
