"""One mock server in a thread, and a plain client."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from agentlab.bench.mock.server import MockServer
from tests.unit.bench.mock.running import in_thread

ASKED = [{"role": "user", "content": "three plain words"}]


@pytest.fixture(scope="module")
def shared() -> Iterator[MockServer]:
    with in_thread(seed=1) as server:
        yield server


@pytest.fixture
def server(shared: MockServer) -> MockServer:
    """Nothing has arrived yet."""
    shared.reset()
    return shared


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=5) as client:
        yield client


@pytest.fixture
def ask(server: MockServer, client: httpx.Client) -> Callable[..., httpx.Response]:
    """Ask `model` for a chat completion; keywords go into the body."""

    def post(model: str, path: str = "/chat/completions", **body: Any) -> httpx.Response:
        return client.post(server.url + path, json={"model": model, "messages": ASKED, **body})

    return post
