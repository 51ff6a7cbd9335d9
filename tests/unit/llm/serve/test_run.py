"""What is checked before the gateway starts."""

import socket

import pytest

from agentlab.config.workspace import Workspace
from agentlab.errors import ConfigError, MissingKeyError, UsageError
from agentlab.llm.config import LLMConfig
from agentlab.llm.serve.run import TOKEN, GatewaySettings, listen, refuse_circles, token_of
from agentlab.runs.context import Context
from tests.unit.llm.serve.gateways import in_thread

SECRET = "a-token-of-some-length"


@pytest.fixture
def context(tmp_path):
    def make(**env: str) -> Context:
        return Context(Workspace(tmp_path, tmp_path), env)

    return make


def asking(url: str, **fields: object) -> LLMConfig:
    return LLMConfig.model_validate(
        {
            "providers": {"p": {"kind": "openai_compat", "base_url": url, **fields}},
            "models": {"m": {"provider": "p", "id": "x"}},
            "roles": {"primary": ["m"]},
            "ledger": {"enabled": False},
        },
        context={"env": {}},
    )


class TestToken:
    def test_on_this_machine_it_is_a_choice(self, context):
        assert token_of(GatewaySettings(), context()) is None
        assert token_of(GatewaySettings(), context(**{TOKEN: SECRET})) == SECRET
        assert token_of(GatewaySettings(token_env="MINE"), context(MINE=SECRET)) == SECRET

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", ""])
    def test_elsewhere_it_is_a_duty(self, context, host):
        with pytest.raises(UsageError, match="Other machines can reach") as caught:
            token_of(GatewaySettings(host=host), context())
        assert TOKEN in str(caught.value.hint)
        assert token_of(GatewaySettings(host=host), context(**{TOKEN: SECRET})) == SECRET

    def test_a_variable_that_was_named_has_to_be_set(self, context):
        with pytest.raises(MissingKeyError, match="MINE"):
            token_of(GatewaySettings(token_env="MINE"), context(**{TOKEN: SECRET}))
        with pytest.raises(MissingKeyError, match="--token-env"):  # a shell's variable that was empty
            token_of(GatewaySettings(token_env=""), context(**{TOKEN: SECRET}))

    @pytest.mark.parametrize("token", ["two words", "ümlaut", "a\nb"])
    def test_what_no_header_can_hold_is_no_token(self, context, token):
        with pytest.raises(UsageError) as caught:
            token_of(GatewaySettings(), context(**{TOKEN: token}))
        assert token not in caught.value.message


class TestListen:
    def test_a_port_in_use_names_the_remedy(self):
        with listen(GatewaySettings(port=0)) as first:
            with pytest.raises(UsageError, match="in use") as caught:
                listen(GatewaySettings(port=first.getsockname()[1]))
            assert "--port 0" in str(caught.value.hint)

    @pytest.mark.parametrize("host", ["256.1.1.1", "no such host", "a" * 70])
    def test_a_host_that_is_none(self, host):
        with pytest.raises(UsageError, match="Cannot listen"):
            listen(GatewaySettings(host=host, port=0))

    def test_pieces_are_sent_at_once(self):
        with (
            listen(GatewaySettings(port=0)) as listener,
            socket.create_connection(listener.getsockname()),
            listener.accept()[0] as peer,
        ):
            assert peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    @pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
    def test_the_url_of_an_ipv6_address(self):
        assert GatewaySettings(host="::1", port=7).url == "http://[::1]:7/v1"


class TestCircles:
    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "0.0.0.0", "::"])
    @pytest.mark.parametrize("url", ["http://127.0.0.1:7/v1", "http://localhost:7", "http://[::1]:7/x"])
    def test_the_gateway_is_not_its_own_provider(self, host, url):
        with pytest.raises(ConfigError, match=r"providers\.p\.base_url"):
            refuse_circles(asking(url), GatewaySettings(host=host, port=7))

    @pytest.mark.parametrize("url", ["http://127.0.0.1:8/v1", "https://example.org:7/v1"])
    def test_another_address_may_be(self, url):
        refuse_circles(asking(url), GatewaySettings(port=7))
        refuse_circles(asking("http://127.0.0.1/v1"), GatewaySettings(port=7))

    def test_standard_ports(self):
        with pytest.raises(ConfigError):
            refuse_circles(asking("http://127.0.0.1/v1"), GatewaySettings(port=80))

    def test_a_gateway_that_listens_elsewhere_is_not_on_loopback(self):
        refuse_circles(asking("http://127.0.0.1:7/v1"), GatewaySettings(host="192.168.1.5", port=7))


class TestStart:
    def test_what_is_wrong_is_said_before_it_listens(self, context):
        with pytest.raises(ConfigError), in_thread(LLMConfig(), GatewaySettings(port=0), context()):
            pass
        config = asking("http://127.0.0.1:9/v1", api_key="${OPENAI_API_KEY}")
        with pytest.raises(MissingKeyError), in_thread(config, GatewaySettings(port=0), context()):
            pass
