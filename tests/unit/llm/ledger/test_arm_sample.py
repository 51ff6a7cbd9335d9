"""What a provider may report and no ledger may believe."""

import math
from dataclasses import replace

import pytest

from agentlab.llm.ledger.arm import Quality
from agentlab.llm.types import Usage


@pytest.mark.parametrize(
    "change",
    [
        {"total": math.inf},
        {"first": math.nan},
        {"at": math.nan},
        {"usage": Usage(1, 1, math.nan)},
        {"usage": Usage(1, 10**400, None)},
        {"usage": Usage(2**63, None, None)},
        {"usage": Usage(None, -1, None)},
        {"usage": Usage(1, 1, -0.01)},
    ],
)
def test_what_cannot_be_stored_or_averaged_is_not_sound(sample, change):
    assert sample().is_sound()
    assert not replace(sample(), **change).is_sound()


def test_a_verdict_that_is_no_number_is_not_sound():
    assert Quality(0.0, "t", "Modell für später", 0.5).is_sound()
    assert not Quality(0.0, "t", "m", math.nan).is_sound()


def test_names_are_cleaned_and_bounded(sample):
    odd = replace(sample(), task="lone \ud83d", run="x" * 500)
    assert (odd.with_clean_names().task, len(odd.with_clean_names().run)) == ("lone ?", 200)
    assert replace(sample(), task="für").with_clean_names().task == "für"
