"""A registry finds what its table names and what installed packages declare, and loads nothing else."""

import sys

import pytest

from agentlab.errors import UnknownNameError
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
