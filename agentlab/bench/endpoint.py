"""The language models of a run: those of its config, or the scripts of the built-in mock server."""

from collections.abc import Iterator
from contextlib import contextmanager

from agentlab.bench.config import BenchConfig
from agentlab.llm.config import LLMConfig, ModelConfig, Price, RolesConfig
from agentlab.llm.provider_config import OpenAICompatProvider

_NOWHERE = "http://127.0.0.1:9/v1"  # the discard port: stands for a server that has not started


def described(config: BenchConfig) -> LLMConfig:
    """The models as they can be told before anything is started."""
    return mock_models(config, _NOWHERE) if config.mock else config.llm


@contextmanager
def opened(config: BenchConfig) -> Iterator[LLMConfig]:
    """The models, with the mock server running while they are in use."""
    if not config.mock:
        yield config.llm
        return
    from agentlab.bench.mock.serving import in_process

    with in_process(seed=config.seed) as url:
        yield mock_models(config, url)


def mock_models(config: BenchConfig, url: str) -> LLMConfig:
    """A model for each script at this address; clocks and budget are those of the config."""
    return LLMConfig(
        providers={"mock": OpenAICompatProvider(kind="openai_compat", base_url=url)},
        models={name: ModelConfig(provider="mock", id=name, price=Price(input=0, output=0)) for name in config.mock},
        roles=RolesConfig(primary=config.mock),
        defaults=config.llm.defaults,
        budget=config.llm.budget,
    )
