"""The report of a bred population: verdict first, every child with its line, and a graph that other programs read."""

import json
import re
from pathlib import Path

import pytest

from agentlab.evolve.lineage import dot, mermaid, parents_in
from agentlab.evolve.result import EvolveResult
from tests.unit.evolve.small import new_run, scripted, workspace


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return workspace(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def bred(root: Path) -> tuple[EvolveResult, Path]:
    with new_run(root, "bred") as run:
        result, _ = scripted(root, algorithm="ga", max_items=400).run(run)
        run.write_report(run.manifest)
        return result, run.path


def test_the_verdict_comes_first_and_nothing_is_left_out(bred: tuple[EvolveResult, Path]) -> None:
    result, folder = bred
    page = (folder / "report.md").read_text()
    assert page.split("\n\n")[1].startswith("The evolved adapter run")
    for picture in ("plots/test.svg", "plots/fitness.svg", "plots/lineage.svg"):
        assert f"({picture})" in page
        assert (folder / picture).stat().st_size > 1000
    for child in result.trials:
        assert child.id.replace("_", r"\_") in page
    assert len(page.split("## Generations")[1].split("## Children")[0].splitlines()) > len(result.generations)


def test_lineage_is_told_to_other_programs(bred: tuple[EvolveResult, Path]) -> None:
    result, folder = bred
    lineage = json.loads((folder / "lineage.json").read_text())
    assert (lineage["winner"], len(lineage["children"])) == (result.winner, len(result.trials))
    edges = [(parent, child.id) for child in result.trials for parent in child.parents]
    assert edges
    assert re.findall(r"(run_\d+) --> (run_\d+)", mermaid(result.trials, result.winner)) == edges
    assert re.findall(r"(run_\d+) -> (run_\d+);", dot(result.trials, result.winner)) == edges
    assert all(parent < child for parent, child in edges)


def test_what_algorithms_say_of_parents_is_understood() -> None:
    assert parents_in("crossover of trials 3 and 17") == [3, 17]
    assert parents_in("step of 0.05 from trial 4; nearest point that passes") == [4]
    assert parents_in("drawn at random, as there are no parents yet") == []
