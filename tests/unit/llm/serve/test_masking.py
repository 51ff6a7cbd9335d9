"""A server that echoes the gateway's key: no client hears it, streamed or not."""

import json

import pytest

from agentlab.runs.redact import MASK


def streamed_text(content: str) -> str:
    """What the events of a stream add up to."""
    text = ""
    for line in content.splitlines():
        if line.startswith("data: {"):
            event = json.loads(line.removeprefix("data: "))
            text += event["delta"] if event.get("type") == "response.output_text.delta" else ""
            text += "".join(choice.get("delta", {}).get("content") or "" for choice in event.get("choices", ()))
    return text


@pytest.mark.parametrize("path", ["/chat/completions", "/responses"])
@pytest.mark.parametrize("stream", [False, True])
def test_an_echoed_key_is_masked(gateway, serve, key, path, stream):
    words = [f"Authorization: Bearer {key[:n]}\n{key[n:]}".split("\n") for n in range(1, len(key))]
    provider = {"kind": "openai_compat", "api_key": "${TEST_API_KEY}"}
    for first, second in words[:: len(words) // 5]:
        server = serve()
        chunks = [{"choices": [{"delta": {"content": text}, "finish_reason": None}]} for text in (first, second, " ok")]
        server(server.events(*chunks, {"choices": [{"delta": {}, "finish_reason": "stop"}]}))
        client = gateway("ok", providers={"mock": {**provider, "base_url": server.url}})
        body = {"messages": [{"role": "user", "content": "x"}]} if "chat" in path else {"input": "x"}
        reply = client.post(path, json={"model": "agentlab", "stream": stream, **body})
        assert reply.status_code == 200
        assert key not in reply.text
        answer_text = streamed_text(reply.text) if stream else reply.text
        assert f"Bearer {MASK} ok" in answer_text


def test_a_prompt_with_the_key_goes_nowhere(gateway, serve, key):
    server = serve()
    server(server.says("ok"))
    provider = {"kind": "openai_compat", "base_url": server.url, "api_key": "${TEST_API_KEY}"}
    client = gateway("ok", providers={"mock": provider})
    reply = client.post(
        "/chat/completions", json={"model": "agentlab", "messages": [{"role": "user", "content": f"Use {key}."}]}
    )
    assert (reply.status_code, "TEST_API_KEY" in reply.text, key in reply.text) == (400, True, False)
    assert server.bodies == []
