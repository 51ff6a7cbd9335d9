"""The gateway beside synchronous code, in a thread of this process."""

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future

import uvicorn

from agentlab.llm.config import LLMConfig
from agentlab.llm.serve.run import GatewaySettings, run
from agentlab.runs.context import Context


@contextlib.contextmanager
def in_thread(config: LLMConfig, settings: GatewaySettings, context: Context) -> Iterator[str]:
    """Its base URL. Errors as of `serve`."""
    started: Future[str] = Future()
    servers: list[uvicorn.Server] = []

    @contextlib.contextmanager
    def noted(server: uvicorn.Server) -> Iterator[None]:
        servers.append(server)
        yield

    def work() -> None:
        try:
            run(config, settings, context, started.set_result, noted)
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    thread = threading.Thread(target=work, name="agentlab-serve", daemon=True)
    thread.start()
    try:
        yield started.result()
    finally:
        for server in servers:
            server.should_exit = True
        thread.join()
