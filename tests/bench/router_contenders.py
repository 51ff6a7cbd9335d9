"""The clients that tests/bench/router.py compares, each in a process and an environment of its own.

Usage: python router_contenders.py NAME URL    reads lines {"row": ..., "calls": ...}, answers {"cpu": ..., "wall": ...}

Nothing here may import agentlab at the top: the environments of the peers do not have it. Every contender asks for a
plain answer of one token, and for a stream of 100 with its usage, and has to come to the same text.
"""

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

Ask = Callable[[], Awaitable[str]]
Rows = dict[str, Ask]

MESSAGES = [{"role": "user", "content": "Say something short, please."}]
SAMPLING = {"temperature": 0, "max_tokens": 256}
STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
CHUNKS = 100
# `at once`: all chunks in one write; `paced`: one every millisecond, each an arrival of its own, as from a model
MODELS = {"plain": "ok-n1", "at once": f"ok-n{CHUNKS}", "paced": f"ok-n{CHUNKS}-itl1"}
EXPECTED = {row: " ".join(map(str, range(1 if row == "plain" else CHUNKS))) for row in MODELS}
_SETTLING = 0.05  # seconds for work that a client leaves to the background


def raw(url: str) -> Rows:
    """httpx by hand: what no client over it can be cheaper than."""
    import httpx

    client = httpx.AsyncClient(trust_env=False, timeout=30)

    async def plain() -> str:
        body = {"model": MODELS["plain"], "messages": MESSAGES, **SAMPLING}
        reply = await client.post(f"{url}/chat/completions", json=body)
        return str(json.loads(reply.content)["choices"][0]["message"]["content"])

    def streamed(model: str) -> Ask:
        async def ask() -> str:
            body = {"model": model, "messages": MESSAGES, **SAMPLING, **STREAMED}
            parts = []
            async with client.stream("POST", f"{url}/chat/completions", json=body) as reply:
                async for line in reply.aiter_lines():
                    if line.startswith("data: {"):
                        chunk = json.loads(line[6:])
                        if chunk["choices"]:
                            parts.append(chunk["choices"][0]["delta"].get("content") or "")
            return "".join(parts)

        return ask

    return {"plain": plain, **{row: streamed(model) for row, model in MODELS.items() if row != "plain"}}


def ours(url: str, *, in_callers_loop: bool = True) -> Rows:
    """`Router.complete`, with its defaults but for retries, the ledger on disk included; it streams any answer."""
    from agentlab.config.workspace import Workspace
    from agentlab.llm.config import LLMConfig
    from agentlab.llm.router import Router
    from agentlab.llm.types import Message

    roles = dict(zip(MODELS, ("primary", "reserve", "fallback"), strict=True))
    tree = {
        "providers": {"mock": {"kind": "openai_compat", "base_url": url}},
        "models": {role: {"provider": "mock", "id": MODELS[row]} for row, role in roles.items()},
        "roles": {role: [role] for role in roles.values()},
        "tasks": {row: {"roles": [role]} for row, role in roles.items()},
        "defaults": {"retries": 0},
    }
    home = Path(tempfile.mkdtemp(prefix="agentlab-bench-"))
    config = LLMConfig.model_validate(tree, context={"env": {}})
    router = Router(config, env={}, workspace=Workspace(home, home), in_callers_loop=in_callers_loop)
    messages = [Message("user", MESSAGES[0]["content"])]

    def completed(task: str) -> Ask:
        async def ask() -> str:
            return (await router.complete(messages, task)).text

        return ask

    return {row: completed(row) for row in MODELS}


def openai(url: str) -> Rows:
    """The openai package."""
    from openai import AsyncOpenAI

    client = AsyncOpenAI(base_url=url, api_key="none", max_retries=0)

    async def plain() -> str:
        reply = await client.chat.completions.create(model=MODELS["plain"], messages=MESSAGES, **SAMPLING)
        return str(reply.choices[0].message.content)

    def streamed(model: str) -> Ask:
        async def ask() -> str:
            stream = await client.chat.completions.create(model=model, messages=MESSAGES, **SAMPLING, **STREAMED)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])

        return ask

    return {"plain": plain, **{row: streamed(model) for row, model in MODELS.items() if row != "plain"}}


def litellm(url: str) -> Rows:
    """litellm's Router, two deployments of each model as in its guides, retries off."""
    from litellm import Router

    def deployment(row: str) -> dict[str, object]:
        return {
            "model_name": row,
            "litellm_params": {"model": f"openai/{MODELS[row]}", "api_base": url, "api_key": "none"},
        }

    router = Router(model_list=[deployment(row) for row in MODELS for _ in range(2)], num_retries=0)

    async def plain() -> str:
        reply = await router.acompletion(model="plain", messages=MESSAGES, **SAMPLING)
        return str(reply.choices[0].message.content)

    def streamed(row: str) -> Ask:
        async def ask() -> str:
            stream = await router.acompletion(model=row, messages=MESSAGES, **SAMPLING, **STREAMED)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])

        return ask

    return {"plain": plain, **{row: streamed(row) for row in MODELS if row != "plain"}}


CONTENDERS: dict[str, Callable[[str], Rows]] = {
    "raw": raw,
    "ours": ours,
    "thread": partial(ours, in_callers_loop=False),
    "openai": openai,
    "litellm": litellm,
}


async def measure(ask: Ask, calls: int, expected: str) -> dict[str, float]:
    """Seconds per call: CPU time of this process, and time on the wall."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(calls):
        answer = await ask()
        if answer != expected:
            raise SystemExit(f"wrong answer: {answer[:200]!r}")
    wall = time.perf_counter() - wall
    await asyncio.sleep(_SETTLING)
    return {"cpu": (time.process_time() - cpu) / calls, "wall": wall / calls}


async def main(name: str, url: str) -> None:
    """Measure what the lines on the standard input ask for, until they end."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    rows = CONTENDERS[name](url)
    for line in sys.stdin:
        request = json.loads(line)
        timing = await measure(rows[request["row"]], request["calls"], EXPECTED[request["row"]])
        answers.write(json.dumps(timing) + "\n")
        answers.flush()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
