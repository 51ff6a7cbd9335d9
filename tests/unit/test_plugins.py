"""A registry finds what its table names and what installed packages declare, and loads nothing else.

Then, for each thing that CONTRIBUTING.md lists: one file and one row, in the house or in a package, and it works.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from agentlab.compress.architecture import linears
from agentlab.compress.config import CompressConfig
from agentlab.compress.grid import Grid
from agentlab.compress.layerwise import quantize
from agentlab.compress.recipe import QUANTIZERS, Recipe
from agentlab.config.workspace import Workspace
from agentlab.debate.config import DebateConfig
from agentlab.debate.rules import VOTING_RULES, load_rule
from agentlab.debate.transcript import Turn
from agentlab.debate.voting import Fitted, rules_of, vote_by
from agentlab.errors import AgentlabError, UnknownNameError, UntrustedHostError
from agentlab.llm.config import LLMConfig
from agentlab.llm.provider_kinds import FACTORIES
from agentlab.llm.router import Router
from agentlab.llm.types import Message
from agentlab.lora.operators import OPERATORS, is_mutation
from agentlab.lora.reading import Adapter
from agentlab.lora.recipe import blend, plan
from agentlab.nas.config import NasConfig
from agentlab.pipeline.aggregation import AGGREGATIONS
from agentlab.plugins import Registry
from agentlab.search.arms import ARMS
from agentlab.search.space import SearchSpace, SpaceConfig
from agentlab.study.executor import OBJECTIVES
from agentlab.study.processes import ProcessExecutor
from agentlab.study.state import StudyCandidate
from tests.unit.compress.decoders import decoder, nothing, statistics
from tests.unit.lora.deltas import dense
from tests.unit.lora.folders import deltas, write_folder

GROUP = "agentlab.test-things"
THINGS: Registry = Registry("thing", GROUP, {"root": "math:sqrt", "broken": "no_such_module:at_all"})


def test_a_name_of_the_table_is_imported_when_it_is_asked_for():
    assert THINGS.load("root")(9.0) == 3.0


def test_a_package_brings_one_by_its_entry_point(plug_in):
    plug_in(GROUP, "mine = plugged_thing:value", "value = 41 + 1")
    assert THINGS.names == ["root", "broken", "mine"]
    assert "plugged_thing" not in sys.modules
    assert THINGS.load("mine") == 42


def test_a_package_cannot_take_a_shipped_name(plug_in):
    plug_in(GROUP, "root = plugged_root:value", "value = None")
    assert THINGS.names == ["root", "broken"]
    assert THINGS.load("root")(4.0) == 2.0


def test_a_name_that_nobody_brings_is_compared_with_all(plug_in):
    plug_in(GROUP, "mine = plugged_mine:value", "value = None")
    with pytest.raises(UnknownNameError, match="There is no thing named 'mime'") as caught:
        THINGS.load("mime")
    assert "mine" in caught.value.hint


def test_an_entry_point_is_read_as_its_standard_says(plug_in):
    plug_in(GROUP, "inner = plugged_inner : Outer.value [extra]", "class Outer:\n    value = 7")
    assert THINGS.where("inner") == "plugged_inner:Outer.value"
    assert THINGS.load("inner") == 7


def test_a_package_that_is_broken_is_named_and_a_table_that_is_wrong_is_our_fault(plug_in):
    plug_in(GROUP, "hurt = plugged_hurt:value", "1 / 0")
    with pytest.raises(
        AgentlabError, match="The thing hurt from an installed package cannot be used: division by zero"
    ) as caught:
        THINGS.load("hurt")
    assert "plugged_hurt:value" in caught.value.hint
    plug_in(GROUP, "bare = plugged_bare", "")
    with pytest.raises(AgentlabError, match="has no attribute"):
        THINGS.load("bare")
    with pytest.raises(ModuleNotFoundError):
        THINGS.load("broken")


# -- what CONTRIBUTING.md promises ----------------------------------------------------------------------------------

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "tests" / "data" / "package"
REGISTRIES: dict[str, Registry[Any]] = {
    registry.group: registry
    for registry in (FACTORIES, QUANTIZERS, VOTING_RULES, AGGREGATIONS, OPERATORS, ARMS, OBJECTIVES)
}


def entry_points_of_package() -> dict[str, tuple[str, str]]:
    parser = ConfigParser()
    parser.read(PACKAGE / "lab_extras-1.0.dist-info" / "entry_points.txt")
    return {group: next(iter(parser[group].items())) for group in parser.sections()}


@pytest.fixture(params=["package", "row"])
def extras(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The files of the package, found by its entry points, or by a row of each table as if they were ours."""
    folder = tmp_path / "site"
    ignored = shutil.ignore_patterns("__pycache__", *(["*.dist-info"] if request.param == "row" else []))
    shutil.copytree(PACKAGE, folder, ignore=ignored)
    if request.param == "row":
        for group, (name, where) in entry_points_of_package().items():
            monkeypatch.setitem(REGISTRIES[group].table, name, where)  # type: ignore[arg-type] # they are dictionaries
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    load_rule.cache_clear()
    for module in [name for name in sys.modules if name.partition(".")[0] == "lab_extras"]:
        del sys.modules[module]


def test_contributing_names_every_registry_its_table_and_its_group() -> None:
    text = (REPOSITORY / "CONTRIBUTING.md").read_text()
    rows = re.findall(r"^\| .+ \| `(agentlab/[\w/]+\.py)` \| `(agentlab\.\w+)` \|$", text, re.MULTILINE)
    assert {group for _, group in rows} == REGISTRIES.keys() == entry_points_of_package().keys()
    sources = {str(path.relative_to(REPOSITORY)): path.read_text() for path in (REPOSITORY / "agentlab").rglob("*.py")}
    with_registry = {path for path, source in sources.items() if re.search(r"\bRegistry\(\s", source)}
    assert {path for path, _ in rows} == with_registry
    for path, group in rows:
        assert f'"{group}"' in sources[path], f"{path} has the table of {group}"


def endpoint(url: str, **settings: object) -> LLMConfig:
    tree = {
        "providers": {"e": {"kind": "echo", "base_url": url, **settings}},
        "models": {"m": {"provider": "e", "id": "any"}},
        "roles": {"primary": ["m"]},
        "ledger": {"enabled": False},
    }
    return LLMConfig.model_validate(tree, context={"env": {}})


def test_a_provider_has_keys_limits_and_abilities_of_its_own(extras: Path, tmp_path: Path) -> None:
    workspace, key = Workspace(tmp_path, tmp_path), {"api_key": "${OPENAI_API_KEY}"}
    config = endpoint("https://example.org/v1", region="us", limits={"rpm": 600})
    assert (config.caps("m"), LLMConfig.model_validate(config.model_dump())) == (("schema",), config)
    with Router(config, env={}, workspace=workspace) as router:
        assert router.complete_sync([Message("user", "Hi")], "t").text == "Hi (us)"
    with (
        Router(endpoint("https://evil.org", **key), env={"OPENAI_API_KEY": "sk-x"}, workspace=workspace) as router,
        pytest.raises(UntrustedHostError, match=r"belongs to api\.openai\.com"),
    ):
        router.check()
    for wrong, where in (({"regoin": 1}, "regoin"), ({"limits": {"rpm": 0}}, "rpm"), ({"api_key": "sk-x"}, "api_key")):
        with pytest.raises(ValidationError) as caught:
            endpoint("https://example.org", **wrong)
        assert caught.value.errors()[0]["loc"][-1] == where
    with pytest.raises(ValidationError, match="unencrypted"):
        endpoint("http://example.org")


def test_a_quantizer_is_a_recipe_a_point_of_the_space_and_codes(extras: Path, tmp_path: Path) -> None:
    settings = {"quantizer": "halves", "quantization_bits": 4, "group": 32}
    recipe = Recipe.model_validate(settings)
    assert (list(recipe.problems()), recipe.format) == ([], "compressed-tensors")
    assert str(recipe) == "HALVES 4 bits, groups of 32"
    config = CompressConfig.model_validate({"portfolio": [settings]})
    space = SearchSpace.of(config.searched_space, config.rules)
    point = space.reduce({**recipe.model_dump(include=set(config.searched_space.root)), "structure": "none"})
    assert space.problems(point) == []
    assert space.problems({**point, "quantization_bits": 3}) != []
    model = decoder()
    codes = quantize(model, statistics(model, tmp_path), QUANTIZERS.load("halves"), Grid(4, 32), check=nothing)
    assert codes.keys() == linears(model).keys()
    with pytest.raises(ValidationError, match="'kquant'"):
        Recipe(quantizer="haves")


def test_a_voting_rule_is_counted_where_a_config_names_it(extras: Path) -> None:
    config = DebateConfig.model_validate({"vote": {"rule": "first"}})
    turns = [Turn(question="q", arm="debate", round=0, agent=name, text="", answer=name) for name in "abb"]
    fitted = Fitted(best="a", questions=0)
    assert (vote_by("first", [turns], fitted, config).winner, vote_by("majority", [turns], fitted, config).winner) == (
        "a",
        "b",
    )
    assert "first" in rules_of(config)
    with pytest.raises(ValidationError, match=r"'majority', .* or 'judge'"):
        DebateConfig.model_validate({"vote": {"rule": "frist"}})


AGGREGATE = """
import sys
from agentlab.pipeline import aggregation
if len(sys.argv) > 1:
    aggregation.AGGREGATIONS.table[sys.argv[1]] = sys.argv[2]
from agentlab.pipeline.answer import PipelineAnswer
from agentlab.pipeline.completion import complete_step
from agentlab.pipeline.config import PipelineConfig
from agentlab.pipeline.graph import unroll
from agentlab.pipeline.state import PipelineItem

stage = {"id": "a", "model": "m", "samples": 2, "aggregation": {"method": "longest", "most": 4}}
config = PipelineConfig.model_validate({"models": {"m": {"file": "m.gguf"}}, "base_pipeline": {"stages": [stage]}})
answers = {text: PipelineAnswer(text, "stop", "m") for text in ("two", "four", "eleven")}
print(complete_step(unroll(config.stages)[0], PipelineItem("", "why?", {}, {}), answers, config, None).answer)
"""


def test_an_aggregation_has_settings_and_chooses(extras: Path) -> None:
    """In a process of its own: the table is read when stages are first defined."""
    row = () if (extras / "lab_extras-1.0.dist-info").is_dir() else ("longest", AGGREGATIONS.table["longest"])
    paths = os.pathsep.join([str(REPOSITORY), str(extras)])
    command = [sys.executable, "-c", AGGREGATE, *row]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout == "four\n", done.stderr


def test_an_operator_makes_an_adapter(extras: Path, tmp_path: Path) -> None:
    parent = Adapter(write_folder(tmp_path / "parent", deltas(1, rank=2)))
    blend([parent], plan([parent], "turn", step=1.0), tmp_path / "child", nothing)
    with Adapter(tmp_path / "child") as child:
        for name in parent.modules:
            assert np.allclose(dense(child.delta(name)), -dense(parent.delta(name)), atol=1e-4)
    assert (is_mutation("turn"), is_mutation("values"), is_mutation("sum")) == (True, True, False)


def test_a_search_arm_proposes(extras: Path) -> None:
    space = SearchSpace.of(SpaceConfig.model_validate({"x": {"type": "int", "low": 1, "high": 9}}))
    name = NasConfig.model_validate({"search": {"base": "middle"}}).search.base
    (proposal,) = ARMS.load(name)(name, space, 0).ask([], 1, np.random.default_rng(0))
    assert (proposal.params, proposal.source) == ({"x": 5}, "middle")


def test_an_objective_is_found_by_worker_processes(extras: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(extras))
    how: dict[str, Any] = {"workers": 1, "threads": 1, "memory_bytes": None, "report": nothing, "check": nothing}
    executor = ProcessExecutor(OBJECTIVES.where("square"), {"target": 3}, **how)
    try:
        executor.submit(StudyCandidate("a", 0, {"x": 5}, seed=3))
        assert executor.next_completed()[1].value == 4.0
    finally:
        executor.close()
