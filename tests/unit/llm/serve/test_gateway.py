"""The routes over HTTP: a real uvicorn, the real router, the mock server as provider."""

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from agentlab.llm.serve.gate import LARGEST


def events(reply: httpx.Response) -> list:
    lines = [block.removeprefix("data: ") for block in reply.text.split("\n\n") if block]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def metric(client: httpx.Client, name: str) -> float:
    page = client.get(f"{str(client.base_url).removesuffix('/v1/')}/metrics").text
    return next((float(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith(name)), 0.0)


class TestAnswers:
    def test_who_answered_stands_in_the_document_and_in_a_header(self, gateway, ask):
        reply = ask(gateway("500", "ok"), "agentlab/fallback")
        assert reply.status_code == 200
        assert reply.json()["model"] == reply.headers["X-Agentlab-Model"] == "ok"

    def test_a_model_by_name_is_the_only_one_asked(self, gateway, mock, ask):
        mock.reset()
        reply = ask(gateway("ok", "500"), "500")
        assert reply.status_code == 502
        assert "ok" not in mock.seen()["models"]

    def test_a_stream(self, gateway, ask):
        *pieces, last, done = events(ask(gateway("ok"), stream=True))
        assert pieces[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
        assert "".join(p["choices"][0]["delta"]["content"] for p in pieces) == "0 1 2 3 4 5 6 7"
        assert (last["choices"][0]["finish_reason"], last["model"], done) == ("stop", "ok", "[DONE]")
        assert len({p["id"] for p in pieces}) == 1

    def test_a_stream_is_heard_while_it_comes(self, gateway, question):
        client = gateway("ok-n4-itl200")
        with client.stream("POST", "/chat/completions", json=question(stream=True)) as reply:
            times = [time.monotonic() for _ in reply.iter_raw()]
        assert times[-1] - times[0] > 0.4

    def test_until_its_first_piece_a_stream_may_still_fail_over(self, gateway, ask):
        assert events(ask(gateway("reset-before", "ok"), stream=True))[-1] == "[DONE]"

    def test_a_stream_that_must_follow_a_schema_is_checked_before_it_is_shown(self, gateway, ask):
        schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
        response_format = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        *pieces, _, done = events(ask(gateway("wrong-schema", "ok"), stream=True, response_format=response_format))
        text = "".join(p["choices"][0]["delta"]["content"] for p in pieces)
        assert set(json.loads(text)) == {"a"}
        assert done == "[DONE]"


class TestFailures:
    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize(
        ("script", "status"),
        [("500", 502), ("429-ra60", 429), ("400", 400), ("400-context", 400), ("401", 502), ("stall-after-0", 504)],
    )
    def test_a_failure_is_a_status(self, gateway, script, status, stream, ask, key):
        reply = ask(gateway(script), stream=stream)
        assert reply.status_code == status
        assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
        assert key not in reply.text

    def test_models_that_ask_for_patience_pass_it_on(self, gateway, ask):
        client = gateway("429-ra60")
        assert [ask(client).status_code, ask(client).status_code] == [429, 429]
        assert 1 <= int(ask(client).headers["Retry-After"]) <= 60

    def test_a_budget_that_is_spent(self, gateway, ask):
        client = gateway("ok-cost0.9", budget={"per_run_usd": 0.5})
        assert ask(client).status_code == 200
        assert ask(client).status_code == 402

    def test_a_stream_that_breaks_says_so_and_does_not_end_as_if_it_were_whole(self, gateway, ask):
        *pieces, last = events(ask(gateway("close-4-of-8", "ok"), stream=True))
        assert len(pieces) >= 4
        assert "broke off" in last["error"]["message"]

    def test_an_unknown_model(self, gateway, ask):
        reply = ask(gateway("ok"), "gpt-9")
        assert (reply.status_code, reply.json()["error"]["param"]) == (404, "model")

    def test_a_parameter_that_is_not_supported(self, gateway, ask):
        reply = ask(gateway("ok"), n=2)
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, "n")

    def test_a_body_without_measure(self, gateway, ask):
        client = gateway("ok")
        reply = client.post("/chat/completions", content=b" " * (LARGEST + 1))
        assert (reply.status_code, reply.json()["error"]["code"]) == (413, "too_large")
        assert ask(client).status_code == 200

    @pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nothing", 404), ("GET", "/embeddings", 405)])
    def test_a_route_that_is_not_there(self, gateway, method, path, status):
        reply = gateway("ok").request(method, path)
        assert (reply.status_code, reply.json()["error"]["code"]) == (status, "no_route")


class TestLeaving:
    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("script", ["silence", "ok-ttft50-itl100-n100"])
    def test_a_client_that_leaves_ends_the_call_at_the_provider(self, gateway, mock, script, stream, question):
        mock.reset()
        client = gateway(script, defaults={"timeout": {"first_token": 60, "total": 60}})
        body = json.dumps(question(stream=stream)).encode()
        url = client.base_url
        with socket.create_connection((url.host, url.port)) as peer:
            peer.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
            )
            time.sleep(0.3)  # the question is with the provider
            closed_at = time.monotonic()
        deadline = closed_at + 5
        while not (departures := mock.seen()["models"][script]["left"]) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert departures[0] - closed_at < 0.1
        assert metric(client, "agentlab_requests_in_flight") == 0


class TestCapacity:
    def test_beyond_the_limit_a_client_is_told_when_to_come_back(self, gateway, ask):
        client = gateway("ok-ttft500", at_once=2)
        with ThreadPoolExecutor(5) as pool:
            replies = list(pool.map(lambda _: ask(client), range(5)))
        busy = [reply for reply in replies if reply.status_code == 503]
        assert len(busy) == 3
        assert all(int(reply.headers["Retry-After"]) >= 1 for reply in busy)
        assert ask(client).status_code == 200


class TestTheRest:
    def test_models(self, gateway):
        client = gateway("ok", "500")
        names = [row["id"] for row in client.get("/models").json()["data"]]
        assert names[0] == "agentlab"
        assert names[-2:] == ["ok", "500"]
        assert client.get("/models/agentlab/best-of-two").json()["owned_by"] == "agentlab"
        assert client.get("/models/nothing").status_code == 404

    def test_vectors(self, gateway):
        client = gateway("ok-dim4")
        reply = client.post("/embeddings", json={"model": "agentlab", "input": ["a", "b"]})
        assert [len(row["embedding"]) for row in reply.json()["data"]] == [4, 4]
        assert reply.headers["X-Agentlab-Model"] == "ok-dim4"
        refused = client.post("/embeddings", json={"model": "agentlab/adaptive", "input": "a"})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "model")

    def test_a_model_without_vectors_refuses_and_goes_on_chatting(self, gateway, ask):
        client = gateway("404")
        reply = client.post("/embeddings", json={"model": "404", "input": "a"})
        assert (reply.status_code, reply.json()["error"]["type"]) == (400, "invalid_request_error")
        assert "does not support embeddings" in reply.json()["error"]["message"]
        assert "Not asked again" not in ask(client).text

    def test_metrics(self, gateway, ask):
        client = gateway("ok-cost0.25", "500")
        ask(client), ask(client, stream=True), ask(client, "500"), ask(client, "nobody"), ask(client, n=2)
        assert metric(client, 'agentlab_requests_total{endpoint="chat",model="ok-cost0.25",outcome="ok"}') == 2
        assert metric(client, 'agentlab_requests_total{endpoint="chat",model="500",outcome="AllModels') == 1
        assert metric(client, 'agentlab_requests_total{endpoint="chat",model="none",outcome="Refused') == 1
        assert metric(client, 'agentlab_spend_usd_total{model="ok-cost0.25"}') == 0.5
        assert metric(client, 'agentlab_tokens_total{model="ok-cost0.25",direction="output"}') == 16
        assert metric(client, 'agentlab_model_state{model="500",state="closed"}') == 1
        assert metric(client, 'agentlab_request_seconds_count{endpoint="chat"}') == 5
