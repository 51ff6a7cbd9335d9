"""Requests to `agentlab serve`, handed to its application without a socket, as any server may hand them over."""

import asyncio
import base64
import json
import os
import sys
from pathlib import Path
from typing import Any

KNOWN = {200, 400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 429, 502, 503, 504, 508}


def answer_requests(words: list[str]) -> int:
    """Answer the requests of a file; 70 if a reply is none of those that are documented."""
    requests = json.loads(Path(words[0]).read_text())
    statuses = asyncio.run(_answer_all(requests))
    unknown = [status for status in statuses if status not in KNOWN]
    if unknown:
        sys.stderr.write(f"statuses {unknown}\n")
    return 70 if unknown else 0


async def _answer_all(requests: list[dict[str, Any]]) -> list[int]:
    from agentlab.config.workspace import Workspace
    from agentlab.llm.config import LLMConfig
    from agentlab.llm.router import Router
    from agentlab.llm.serve.app import create_app
    from agentlab.llm.serve.gate import GatewayRules
    from agentlab.runs.redact import Redactor
    from tests.fuzz.shelf import SCRIPT

    config = LLMConfig.model_validate(SCRIPT, context={"env": {}})
    async with Router(
        config, env=os.environ, workspace=Workspace.locate(os.environ, Path.cwd()), in_callers_loop=True
    ) as router:
        app = create_app(config, router, GatewayRules(None, True, 64), Redactor.of(os.environ))
        return [await _answer(app, request) for request in requests]


async def _answer(app: Any, request: dict[str, Any]) -> int:
    """The status of the reply, which is printed as a client would see it."""
    body = base64.b64decode(request["body"])
    headers = [
        (name.lower().encode("latin-1", "replace"), value.encode("latin-1", "replace"))
        for name, value in request["headers"]
    ]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "root_path": "",
        "method": request["method"], "path": request["path"], "raw_path": request["path"].encode(errors="replace"),
        "query_string": request["query"].encode(errors="replace"), "headers": headers,
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8484), "state": {},
    }  # fmt: skip
    messages = [{"type": "http.request", "body": body, "more_body": False}]
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await asyncio.Event().wait()  # the client stays
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])
            sys.stdout.write(f"{message['status']} {message['headers']}\n")
        else:
            sys.stdout.write(message["body"].decode(errors="replace"))

    await app(scope, receive, send)
    return statuses[0] if len(statuses) == 1 else -1
