"""What is data bears the name that it had: in files, hashes, on the wire, on the command line, in users' programs.

Where this fails after a renaming, take the old name back where the data is made: an alias of the field, the text of the
event, the `title` of the schema. `names.json` changes with a feature alone:

    python -m tests.unit.frozen.names > tests/unit/frozen/names.json
"""

import json

import pytest

from agentlab.commands import COMMANDS
from tests.unit.frozen import names, roles

FROZEN: names.Sections = json.loads(names.FROZEN_FILE.read_text(encoding="utf-8"))
# Commands that print the result, or with --dry-run the plan, of the experiment that they carry out.
CARRY_OUT = ("debate replay", "llm-bench check", "llm-bench quality", "nas train", "pipeline plan", "pipeline rerun")


@pytest.fixture(scope="module")
def present() -> names.Sections:
    return names.read_names()


@pytest.mark.parametrize("section", FROZEN)
def test_names_are_what_they_were(section: str, present: names.Sections) -> None:
    missing = [line for line in FROZEN[section] if line not in present[section]]
    added = [line for line in present[section] if line not in FROZEN[section]]
    assert (missing, added) == ([], []), f"{section}: {len(missing)} names are lost, {len(added)} are new"


def test_nothing_is_frozen_that_is_not_looked_at(present: names.Sections) -> None:
    assert list(present) == list(FROZEN)


def test_there_are_fifty_computed_keys() -> None:
    assert len(FROZEN["computed keys"]) >= 50


def test_every_command_that_prints_json_has_its_answer_frozen() -> None:
    experiments = [*COMMANDS, *(f"{name} run" for name in COMMANDS), "runs resume", *CARRY_OUT]
    covered = {f"agentlab {name} --json" for name in (*roles.ANSWERS, *experiments)}
    printing = {line for line in FROZEN["commands and flags"] if line.endswith(" --json")}
    assert sorted(printing - covered) == []
