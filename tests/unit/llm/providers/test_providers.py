"""Kinds of providers: those of the table, those of plug-ins, and those that nobody brings."""

from importlib.metadata import EntryPoint, EntryPoints

import pytest

from agentlab.errors import UnknownNameError
from agentlab.llm import providers
from agentlab.llm.config import SHIPPED_KINDS, PluginProvider
from agentlab.llm.providers import PROVIDERS, Surroundings, build


def test_the_table_and_the_config_know_the_same_kinds():
    assert set(PROVIDERS) == set(SHIPPED_KINDS)


def test_a_plug_in_is_found_by_its_entry_point(home, monkeypatch):
    def factory(name, provider, surroundings):
        return (name, provider.options, surroundings.workspace)

    monkeypatch.setattr(EntryPoint, "load", lambda _: factory)
    point = EntryPoint("mine", "some.package:factory", providers.GROUP)
    monkeypatch.setattr(providers, "entry_points", lambda group: EntryPoints([point]).select(group=group))
    made = build("p", PluginProvider(kind="mine", options={"a": 1}), Surroundings({}, home))
    assert made == ("p", {"a": 1}, home)


def test_a_kind_that_nobody_brings(home):
    with pytest.raises(UnknownNameError, match="provider kind named 'mine'"):
        build("p", PluginProvider(kind="mine"), Surroundings({}, home))
