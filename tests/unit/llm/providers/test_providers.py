"""Kinds of providers: those of the table, those of plug-ins, and those that nobody brings."""

import sys
from importlib.metadata import EntryPoint, EntryPoints
from types import ModuleType

import pytest

from agentlab.errors import BadRequestError, UnknownNameError
from agentlab.llm.config import LLMConfig
from agentlab.llm.connections import Connections
from agentlab.llm.provider_config import OpenAICompatProvider, PluginProvider, ScriptedProvider
from agentlab.llm.provider_kinds import FACTORIES
from agentlab.llm.providers import ProviderContext, build
from agentlab.llm.providers.openai_compat import request_body
from agentlab.llm.types import Message, ModelRequest
from agentlab.runs.redact import Redactor


def test_a_plug_in_is_found_by_its_entry_point(home, monkeypatch):
    def factory(name, provider, surroundings):
        return (name, provider.options, surroundings.workspace)

    package = ModuleType("some_package")
    package.factory = factory
    monkeypatch.setitem(sys.modules, "some_package", package)
    point = EntryPoint("mine", "some_package:factory", FACTORIES.group)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: EntryPoints([point]).select(group=group))
    result = build("p", PluginProvider(kind="mine", options={"a": 1}), ProviderContext({}, home))
    assert result == ("p", {"a": 1}, home)


def test_a_kind_that_nobody_brings(home):
    with pytest.raises(UnknownNameError, match="provider kind named 'mine'"):
        build("p", PluginProvider(kind="mine"), ProviderContext({}, home))


def test_a_provider_that_makes_vectors_is_told_from_one_that_does_not(home):
    compat = OpenAICompatProvider(kind="openai_compat", base_url="http://127.0.0.1:9/v1")
    model = build("p", compat, ProviderContext({}, home))
    chat_only = build("p", ScriptedProvider(kind="scripted"), ProviderContext({}, home))
    connections = Connections(LLMConfig(), {}, home, Redactor([]), {"a": model, "b": chat_only})
    assert connections.embedder("a") is model
    with pytest.raises(BadRequestError, match="not support embeddings") as caught:
        connections.embedder("b")
    assert "openai_compat" in caught.value.hint


def test_the_adapter_of_a_llama_cpp_server_goes_with_every_request(home):
    compat = OpenAICompatProvider(kind="openai_compat", base_url="http://127.0.0.1:9/v1", lora=1)
    body = request_body(
        ModelRequest("m", (Message("user", "Hi."),)), build("p", compat, ProviderContext({}, home))._extras
    )
    assert body["lora"] == [{"id": 1, "scale": 1.0}]
    assert body["cache_prompt"] is False
