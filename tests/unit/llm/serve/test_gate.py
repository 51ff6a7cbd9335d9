"""Who is let in."""

import pytest

from agentlab.llm import via

TOKEN = "a-token-of-some-length"
ENV = {"AGENTLAB_SERVE_TOKEN": TOKEN}
HOSTS = [
    *("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "@", "", ":80", "localhost:", "127.1"),
    *("[::1].evil", "[::1]evil:80", "x@127.0.0.1", "x:y@localhost", "127.0.0.1:18484, evil", "127.0.0.1:1,evil"),
    *("localhost/evil", "localhost#evil", "localhost?evil", "localhost\\evil", "localhost evil", "localhost:80:80"),
    *(
        "localhost:80x",
        "localhost:123456",
        "localhost%2eevil",
        "[::1",
        "::1",
        "[localhost]",
        "-localhost",
        "localhost;",
    ),
]


class TestBrowsers:
    def test_this_machine_has_many_names(self, gateway, ask):
        client = gateway("ok")
        for host in ("localhost", "127.0.0.1:1", "[::1]:80", "LOCALHOST:8484"):
            assert ask(client, headers={"Host": host}).status_code == 200

    @pytest.mark.parametrize("host", HOSTS)
    def test_a_page_that_has_bent_its_name_to_this_machine(self, gateway, host, ask):
        reply = ask(gateway("ok"), headers={"Host": host})
        assert (reply.status_code, reply.json()["error"]["code"]) == (403, "foreign_host")

    @pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:3000", "http://127.0.0.1"])
    def test_a_page_of_another_origin(self, gateway, origin, ask):
        reply = ask(gateway("ok"), headers={"Origin": origin})
        assert (reply.status_code, reply.json()["error"]["code"]) == (403, "foreign_origin")
        assert not any(name.startswith("access-control") for name in reply.headers)

    def test_asking_beforehand_is_answered_with_nothing(self, gateway):
        reply = gateway("ok").options("/chat/completions", headers={"Origin": "https://evil.example"})
        assert reply.status_code == 403


class TestToken:
    def test_it_opens_every_route(self, gateway, ask):
        client = gateway("ok", env=ENV)
        assert ask(client, headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
        assert client.get("/models", headers={"Authorization": f"bearer {TOKEN}"}).status_code == 200

    @pytest.mark.parametrize("credential", ["", TOKEN, f"Basic {TOKEN}", "Bearer", f"Bearer {TOKEN}x", "Bearer \xfc"])
    def test_without_it_nothing_is_told(self, gateway, credential):
        client = gateway("ok", env=ENV)
        headers = [(b"Authorization", credential.encode("latin-1"))] if credential else []
        for path in ("/models", "/../metrics"):
            reply = client.get(path, headers=headers)
            assert reply.status_code == 401
            assert reply.headers["WWW-Authenticate"] == "Bearer"
            assert TOKEN not in reply.text

    def test_health_needs_none(self, gateway):
        client = gateway("ok", env=ENV)
        assert client.get("/../health").json() == {"status": "ok"}

    def test_it_is_not_sent_on(self, gateway, mock, ask):
        """The provider gets its own key, whatever the client has shown."""
        client = gateway("401", env=ENV)  # the mock quotes the key it was sent
        assert TOKEN not in ask(client, headers={"Authorization": f"Bearer {TOKEN}"}).text


class TestCircles:
    def test_a_request_that_went_through_other_gateways(self, gateway, ask):
        assert ask(gateway("ok"), headers={via.HEADER: "0123456789abcdef"}).status_code == 200

    def test_a_chain_without_end(self, gateway, ask):
        reply = ask(gateway("ok"), headers={via.HEADER: ",".join(["0123456789abcdef"] * via.MOST)})
        assert (reply.status_code, reply.json()["error"]["code"]) == (508, "circle")

    def test_what_is_no_mark(self, gateway, ask):
        assert ask(gateway("ok"), headers={via.HEADER: "none of ours"}).status_code == 400
