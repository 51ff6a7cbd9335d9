"""The table of known models."""

import re

import pytest

from agentlab.errors import UnknownNameError
from agentlab.models import catalogue
from agentlab.models.catalogue import HubSource, WheelSource


def test_every_row_can_be_checked_and_names_its_licence() -> None:
    assert len(set(catalogue.names())) == len(catalogue.CATALOGUE)
    for row in catalogue.CATALOGUE:
        assert re.fullmatch(r"[0-9a-f]{64}", row.sha256)
        assert row.bytes > 0
        assert row.licence
        assert row.sources
        assert "/" not in row.file


def test_the_embedded_model_comes_from_the_package_index_first() -> None:
    row = catalogue.lookup(catalogue.EMBEDDED)
    first, second = row.sources
    assert isinstance(first, WheelSource)
    assert isinstance(second, HubSource)
    assert catalogue.by_file(row.file) is row


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError) as caught:
        catalogue.lookup("smolm2-135m")
    assert "smollm2-135m" in (caught.value.hint or "")
