"""A registry finds what its table names and what installed packages declare, and loads nothing else."""

import sys

import pytest

from agentlab.errors import AgentlabError, UnknownNameError
from agentlab.plugins import Registry

GROUP = "agentlab.test-things"
THINGS: Registry = Registry("thing", GROUP, {"root": "math:sqrt", "broken": "no_such_module:at_all"})


def test_a_name_of_the_table_is_imported_when_it_is_asked_for():
    assert THINGS.load("root")(9.0) == 3.0


def test_a_package_brings_one_by_its_entry_point(plug_in):
    plug_in(GROUP, "mine = plugged_thing:value", "value = 41 + 1")
    assert THINGS.names == ["root", "broken", "mine"]
    assert "plugged_thing" not in sys.modules
    assert THINGS.load("mine") == 42


def test_a_package_cannot_take_a_shipped_name(plug_in):
    plug_in(GROUP, "root = plugged_root:value", "value = None")
    assert THINGS.names == ["root", "broken"]
    assert THINGS.load("root")(4.0) == 2.0


def test_a_name_that_nobody_brings_is_compared_with_all(plug_in):
    plug_in(GROUP, "mine = plugged_mine:value", "value = None")
    with pytest.raises(UnknownNameError, match="There is no thing named 'mime'") as caught:
        THINGS.load("mime")
    assert "mine" in caught.value.hint


def test_an_entry_point_is_read_as_its_standard_says(plug_in):
    plug_in(GROUP, "inner = plugged_inner : Outer.value [extra]", "class Outer:\n    value = 7")
    assert THINGS.where("inner") == "plugged_inner:Outer.value"
    assert THINGS.load("inner") == 7


def test_a_package_that_is_broken_is_named_and_a_table_that_is_wrong_is_our_fault(plug_in):
    plug_in(GROUP, "hurt = plugged_hurt:value", "1 / 0")
    with pytest.raises(
        AgentlabError, match="The thing hurt from an installed package cannot be used: division by zero"
    ) as caught:
        THINGS.load("hurt")
    assert "plugged_hurt:value" in caught.value.hint
    plug_in(GROUP, "bare = plugged_bare", "")
    with pytest.raises(AgentlabError, match="has no attribute"):
        THINGS.load("bare")
    with pytest.raises(ModuleNotFoundError):
        THINGS.load("broken")
