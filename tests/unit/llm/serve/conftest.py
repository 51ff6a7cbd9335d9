"""A gateway on loopback before the mock server."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import pytest

from agentlab.bench.mock.server import MockServer
from agentlab.config.workspace import Workspace
from agentlab.llm.config import LLMConfig
from agentlab.llm.serve.run import GatewaySettings
from agentlab.runs.context import Context
from tests.unit.bench.mock.running import in_thread as mock_in_thread
from tests.unit.llm.serve.gateways import in_thread


@pytest.fixture(scope="module")
def mock() -> Iterator[MockServer]:
    """The provider."""
    with mock_in_thread() as server:
        yield server


@pytest.fixture
def config(mock: MockServer) -> Callable[..., LLMConfig]:
    """Models by the scripts of their answers; the first is primary, the others are fallbacks."""

    def make(*scripts: str, **changes: object) -> LLMConfig:
        models = {script: {"provider": "mock", "id": script} for script in scripts}
        tree = {
            "providers": {"mock": {"kind": "openai_compat", "base_url": mock.url, "api_key": "${TEST_API_KEY}"}},
            "models": models,
            "roles": {"primary": scripts[:1], "fallback": scripts[1:]},
            "defaults": {"timeout": {"connect": 1, "first_token": 1, "idle": 1, "total": 3}, "retries": 0},
            "ledger": {"enabled": False},
            **changes,
        }
        return LLMConfig.model_validate(tree, context={"env": {}})

    return make


@pytest.fixture
def gateway(config, tmp_path, key) -> Iterator[Callable[..., httpx.Client]]:
    """A client of a gateway: `gateway("ok", "500")`."""
    with ExitStack() as stack:

        def start(*scripts: str, env: dict[str, str] | None = None, at_once: int = 64, **changes: object):
            workspace = Workspace(tmp_path, tmp_path / "cache")
            context = Context(workspace, {"TEST_API_KEY": key, **(env or {})})
            url = stack.enter_context(
                in_thread(config(*scripts, **changes), GatewaySettings(port=0, at_once=at_once), context)
            )
            return stack.enter_context(httpx.Client(base_url=url, trust_env=False, timeout=10))

        yield start


@pytest.fixture
def question() -> Callable[..., dict[str, object]]:
    """The body of a request."""

    def make(model: str = "agentlab", **fields: object) -> dict[str, object]:
        return {"model": model, "messages": [{"role": "user", "content": "Count."}], **fields}

    return make


@pytest.fixture
def ask(question) -> Callable[..., httpx.Response]:
    """Ask a gateway: `ask(client, "agentlab/single", stream=True)`."""

    def make(client: httpx.Client, model: str = "agentlab", headers: object = None, **fields: object) -> httpx.Response:
        return client.post("/chat/completions", json=question(model, **fields), headers=headers)

    return make
