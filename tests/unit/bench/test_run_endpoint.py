"""The models of a run: those of the config, or scripts of the mock server."""

from agentlab.bench.config import BenchConfig
from agentlab.bench.run import open_models, planned_llm
from agentlab.llm.config import LLMConfig


def test_without_scripts_the_config_is_taken_as_it_is() -> None:
    config = BenchConfig(llm=LLMConfig())
    assert planned_llm(config) is config.llm
    with open_models(config) as llm:
        assert llm is config.llm


def test_each_script_is_a_free_model_of_a_server_that_ends_with_the_run() -> None:
    config = BenchConfig.model_validate(
        {"mock": ["ok", "500"], "llm": {"defaults": {"timeout": {"idle": 3}}, "budget": {"per_run_usd": 7}}}
    )
    with open_models(config) as llm:
        assert llm.used_models() == ("ok", "500")
        assert llm.models["ok"].price is not None
        assert (llm.models["ok"].price.input, llm.models["ok"].price.output) == (0, 0)
        assert llm.providers["mock"].base_url.startswith("http://127.0.0.1:")
        assert (llm.defaults.timeout.idle, llm.budget.per_run_usd) == (3, 7)
    assert planned_llm(config).models == llm.models
