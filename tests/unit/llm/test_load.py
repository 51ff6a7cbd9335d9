from pathlib import Path

import pytest

from agentlab.config.overrides import parse
from agentlab.config.workspace import Workspace
from agentlab.errors import ConfigError, UnknownNameError
from agentlab.llm.load import load_llm
from agentlab.runs.context import Context

MINE = """
providers: {there: {kind: openai_compat, base_url: "${THERE_BASE_URL}"}}
models: {big: {provider: there, id: big-1}}
roles: {primary: [big]}
"""


@pytest.fixture
def context(workspace: Path) -> Context:
    return Context(Workspace(workspace, workspace), {"THERE_BASE_URL": "http://127.0.0.1:9/v1"})


def test_without_a_name_it_is_the_embedded_model(context):
    assert load_llm(None, [], context).used_models() == ("embedded",)


def test_a_shipped_name_with_a_change(context):
    config = load_llm("scripted", [parse("defaults.strategy=single"), parse("budget.per_run_usd=2")], context)
    assert (config.used_models(), config.defaults.strategy, config.budget.per_run_usd) == (("scripted",), "single", 2)


def test_a_name_of_ones_own_and_a_path(context, workspace):
    folder = workspace / "configs" / "llm"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(MINE)
    assert load_llm("mine", [], context) == load_llm("configs/llm/mine.yaml", [], context)
    assert load_llm("mine", [], context).providers["there"].base_url == "http://127.0.0.1:9/v1"


def test_what_is_wrong_is_said(context):
    with pytest.raises(UnknownNameError, match="scriptd"):
        load_llm("scriptd", [], context)
    with pytest.raises(ConfigError, match="unknown key"):
        load_llm("scripted", [parse("defaults.strategi=single")], context)
