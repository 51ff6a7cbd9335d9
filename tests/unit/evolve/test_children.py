"""Recipes as adapters: the same tensors again after a loss, one adapter each, and exports that are what was scored."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from agentlab.config.workspace import Workspace
from agentlab.errors import MissingFileError, RunMismatchError, UnknownNameError, UsageError
from agentlab.evolve.adapter_folder import ExportedChild, cross
from agentlab.evolve.children import Children
from agentlab.evolve.config import EvolveConfig, GenomeConfig
from agentlab.evolve.genome import Child
from agentlab.evolve.recipes import RecipeGenome
from agentlab.evolve.run import export_child
from agentlab.lora.card import content_hash, read_card
from agentlab.lora.geometry import distance, norm
from agentlab.lora.reading import Adapter
from agentlab.runs.context import Context
from agentlab.runs.events import Event
from agentlab.runs.run import OpenRun, RunEnvironment
from tests.unit.evolve.small import SMALL, new_run, prepared, workspace
from tests.unit.evolve.test_run import told
from tests.unit.lora.folders import deltas, write_folder

pytestmark = pytest.mark.usefixtures("undrawn")


FEW = {
    "max_items": 64,
    "population": 5,
    "tasks": {"file": "quiz.jsonl", "train": 8, "test": 8},
    "race": {"first": 99},
}
DELTAS = {**FEW, "genome": {"kind": "deltas", "operators": ["sum", "svd-cross", "values", "rotate"]}, "algorithm": "ga"}


@pytest.fixture(scope="module")
def workspace_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return workspace(tmp_path_factory.mktemp("children"))


def test_deltas_are_bred_lost_and_made_again_to_the_same_bits(workspace_root: Path) -> None:
    with new_run(workspace_root, "deltas") as run:
        expected = prepared(workspace_root, **DELTAS).run(run)[0]
        lines = (run.path / "events.jsonl").read_bytes().splitlines(keepends=True)
        events = told(run.events)
    child_names = {path.name for path in (run.path / "children" / "main").iterdir()}
    assert child_names <= {expected.winner, "run_0002"}  # the winner, if it is no parent, and the blend
    assert all(child.parents for child in expected.trials if child.generation)
    new_run(workspace_root, "cut").close()
    (workspace_root / "runs" / "cut" / "events.jsonl").write_bytes(b"".join(lines[: len(lines) // 2]))
    with OpenRun.resume(workspace_root / "runs" / "cut", RunEnvironment()) as cut:  # without a folder of those before
        result, _ = prepared(workspace_root, resumes=cut.path, **DELTAS).run(cut)
        assert told(cut.events) == events
    assert result == expected
    for name in child_names:
        one, remade = (workspace_root / "runs" / run_ / "children" / "main" / name for run_ in ("deltas", "cut"))
        assert content_hash(one) == content_hash(remade)


def export_of(workspace_root: Path, run: str, child: str | None, out: Path | None, **changes: object) -> ExportedChild:
    config, context = (
        EvolveConfig.model_validate({**SMALL, **changes}),
        Context(Workspace(workspace_root, workspace_root), {}),
    )
    with OpenRun.resume(workspace_root / "runs" / run, RunEnvironment()) as opened:
        events = opened.events
    return export_child(config, context, run, events, child, out, lambda *_: None)


def test_a_delta_is_exported_as_it_was_scored(workspace_root: Path, tmp_path: Path) -> None:
    export_of(workspace_root, "deltas", "run_0002", tmp_path / "blend", **DELTAS)
    assert content_hash(tmp_path / "blend") == content_hash(workspace_root / "runs/deltas/children/main/run_0002")
    export_of(workspace_root, "deltas", "run_0005", tmp_path / "out", **DELTAS)
    card = read_card(tmp_path / "out")
    assert card.run == "deltas"
    assert card.parents[0].sha256
    with pytest.raises(UnknownNameError, match="no child named 'run_0999'"):
        export_of(workspace_root, "deltas", "run_0999", tmp_path / "none", **DELTAS)


def test_a_start_is_written_if_its_id_is_named_and_is_said_to_be_one(workspace_root: Path, tmp_path: Path) -> None:
    parent = export_of(workspace_root, "deltas", "run_0000", tmp_path / "parent", **DELTAS)
    assert "the parent one, a starting point of the search" in str(parent.blocks())
    with Adapter(tmp_path / "parent") as out, Adapter(workspace_root / "adapters" / "one") as one:
        for name in one.modules:
            assert (out.delta(name).dense() - one.delta(name).dense()).abs().max() < 1e-6
    base = export_of(workspace_root, "deltas", "run_0003", tmp_path / "base", **DELTAS)
    assert "the base alone" in str(base.blocks())
    with Adapter(tmp_path / "base") as out:
        assert not any(out.delta(name).dense().any() for name in out.modules)


def test_weights_are_exported_exactly_and_nothing_is_written_before(workspace_root: Path, tmp_path: Path) -> None:
    with new_run(workspace_root, "weights") as run:
        result, _ = prepared(workspace_root, **FEW).run(run)
    assert not (workspace_root / "runs" / "weights" / "children").exists()
    export_of(workspace_root, "weights", "run_0004", tmp_path / "out", **FEW)
    child, name = result.trials[4], "model.layers.1.self_attn.q_proj"
    weights = [float(child.params[f"{parent}.layers 1-1 self_attn"]) for parent in ("one", "two")]
    paths = [tmp_path / "out", workspace_root / "adapters" / "one", workspace_root / "adapters" / "two"]
    with Adapter(paths[0]) as out, Adapter(paths[1]) as one, Adapter(paths[2]) as two:
        dense = weights[0] * one.delta(name).dense() + weights[1] * two.delta(name).dense()
        assert (out.delta(name).dense() - dense).abs().max() < 1e-6
    export_of(workspace_root, "weights", None, None, **FEW)
    winner = result.trials[int(result.winner[4:])]
    assert (workspace_root / "adapters" / f"gen_{winner.generation:04d}" / winner.id).is_dir()


def test_a_parent_that_changed_is_refused(workspace_root: Path, tmp_path: Path) -> None:
    shutil.move(workspace_root / "adapters" / "two", tmp_path / "two")
    try:
        with pytest.raises(MissingFileError):
            export_of(workspace_root, "weights", None, tmp_path / "out", **FEW)
        shutil.copytree(workspace_root / "adapters" / "one", workspace_root / "adapters" / "two")
        with pytest.raises(RunMismatchError, match="A parent has changed"):
            export_of(workspace_root, "weights", None, tmp_path / "out", **FEW)
    finally:
        shutil.rmtree(workspace_root / "adapters" / "two", ignore_errors=True)
        shutil.move(tmp_path / "two", workspace_root / "adapters" / "two")


@pytest.mark.parametrize("operator", ["ties", "dare"])
def test_fifty_crossovers_of_equals_leave_an_adapter_as_it_was_though_they_thin_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operator: str
) -> None:
    monkeypatch.setattr("os.fsync", lambda _: None)  # which takes longer than all the rest
    parents = [write_folder(tmp_path / name, deltas(seed=0)) for name in ("one", "copy")]
    genome = RecipeGenome(("one", "copy"), 1, GenomeConfig(kind="deltas", operators=(operator,)))
    events: list[Event] = []
    children = Children(tmp_path / "children", parents, genome, 0, lambda: events)
    recipes: list[dict[str, Any]] = [dict(start.params) for start in genome.starts]
    pairs = [(0, 1), *((number, number) for number in range(4, 53))]
    recipes += [{"operator": operator, "first": a, "second": b, "share": b / 53} for a, b in pairs]
    for number, params in enumerate(recipes):
        events.append(Event(number, 0.0, "trial.proposed", f"run_{number:04d}", {"params": params}))
    last = children.folder(Child("", 53, recipes[53]))  # makes those before
    assert last is not None
    with Adapter(parents[0]) as parent, Adapter(last) as child:
        for name in parent.modules:
            assert distance(parent.delta(name), child.delta(name)) < 1e-3 * norm(parent.delta(name))


def test_one_crossover_at_once_says_what_it_kept(workspace_root: Path, tmp_path: Path) -> None:
    parents = [workspace_root / "adapters" / name for name in ("one", "two")]
    plain = cross(parents, tmp_path / "plain", 0.6, 0.0, 0.01, 0, lambda *_: None)
    mutated = cross(parents, tmp_path / "mutated", 0.6, 1.0, 0.05, 0, lambda *_: None)
    assert (plain.mutated, mutated.mutated, mutated.modules) == (0, 6, 6)
    assert 0 < plain.kept < 1
    assert mutated.change == pytest.approx(0.05, rel=1e-6)
    with Adapter(tmp_path / "plain") as one, Adapter(tmp_path / "mutated") as mutated_adapter:
        for name in one.modules:
            far = distance(one.delta(name), mutated_adapter.delta(name)) / norm(one.delta(name))
            assert far == pytest.approx(0.05, rel=1e-3)
    assert read_card(tmp_path / "plain").parents[0].weight == 0.6
    with pytest.raises(UsageError, match="must be 0 to 1"):
        cross(parents, tmp_path / "odd", 1.2, 0.0, 0.01, 0, lambda *_: None)


def test_what_a_link_leads_to_is_not_tidied_away(tmp_path: Path) -> None:
    """A run folder may have come from anybody, with a link in the place of a search or of a child."""
    target, root = tmp_path / "kept", tmp_path / "children"
    (target / "thesis").mkdir(parents=True)
    for child in ("0004", "0005"):
        (root / "main" / child).mkdir(parents=True)
    (root / "agent").symlink_to(target)
    (root / "main" / "0006").symlink_to(target)
    (root / "main" / "0007").write_text("half")
    children = Children(root, [], RecipeGenome(("one", "two"), 1, GenomeConfig(kind="deltas")), 0, list)
    children.keep(["0004"])
    assert [path.name for path in (root / "main").iterdir()] == ["0004"]
    assert (target / "thesis").is_dir()
