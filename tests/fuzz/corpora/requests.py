"""Requests to `agentlab serve`, twenty a case: bodies, headers, addresses and lengths."""

import base64
import json
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.case import Case
from tests.fuzz.mutate import ODD_TEXTS, damaged_json

# Addresses, each with a body that it understands.
BODIES = dict(
    line.split(maxsplit=1)
    for line in """
/v1/chat/completions {"model": "agentlab", "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]}
/v1/chat/completions? {"model": "said", "messages": [], "stream": true, "stop": ["x"], "temperature": 0.5, "seed": 1}
/v1/chat/completions?a {"messages": [{"role": "user", "content": "hi"}], "response_format": {"type": "json_object"}}
/v1/completions {"model": "agentlab", "prompt": ["hi"], "max_tokens": 5, "echo": false, "stream": true, "suffix": null}
/v1/responses {"model": "agentlab", "input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}]}
/v1/responses? {"input": "hi", "stream": true, "text": {"format": {"type": "text"}}, "metadata": {"a": "b"}}
/v1/embeddings {"model": "agentlab", "input": ["a", "b"], "encoding_format": "float", "dimensions": 3}
/v1/models {}
/v1/models/said {}
/health {}
/metrics {}
""".strip().splitlines()
)
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
HOSTS = (
    "localhost",
    "127.0.0.1:8484",
    "[::1]:1",
    "[::1].evil",
    "x@127.0.0.1",
    "127.0.0.1:1, evil",
    "evil",
    "127.1",
    "0",
)
NAMES = ("host", "origin", "content-type", "authorization", "x-agentlab-hops", "expect", "range", "accept", "")
METHODS = ("POST", "POST", "POST", "POST", "GET", "PUT", "HEAD", "OPTIONS", "x")


def requests(rng: Random, _: Path) -> Case:
    """Twenty requests to one gateway."""
    batch = [_request(rng) for _request_number in range(20)]
    return Case([["gateway", "requests.json"]], {"requests.json": json.dumps(batch).encode()})


def _request(rng: Random) -> dict[str, Any]:
    address = rng.choice(list(BODIES))
    body = BODIES[address].encode()
    if rng.random() < 0.1 and "messages" in BODIES[address]:
        body = json.dumps({**json.loads(body), "tools": TOOLS, "tool_choice": "auto"}).encode()
    if rng.random() < 0.9:
        body = damaged_json(rng, body)
    path, _, query = address.partition("?")
    headers = [["host", "localhost" if rng.random() < 0.8 else rng.choice(HOSTS)], ["content-type", "application/json"]]
    headers += [[rng.choice(NAMES), rng.choice((*ODD_TEXTS, *HOSTS))] for _header in range(rng.choice((0, 0, 0, 1, 3)))]
    if rng.random() < 0.1:  # a server lets no other length pass than a number
        headers.append(["content-length", rng.choice(("0", str(len(body)), "9" * 19))])
    if rng.random() < 0.05:
        path += rng.choice(ODD_TEXTS).encode(errors="replace").decode()
    encoded = base64.b64encode(body).decode()
    return {"method": rng.choice(METHODS), "path": path, "query": query, "headers": headers, "body": encoded}
