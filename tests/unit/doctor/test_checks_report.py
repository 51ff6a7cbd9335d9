"""The report, for people and for scripts."""

import pytest

from agentlab.doctor.checks import DoctorReport, DoctorRow
from agentlab.errors import MissingError, UnknownNameError
from agentlab.runs.document import Table, Text

REPORT = DoctorReport(
    rows=[
        DoctorRow(name="model", status="missing", detail="not here", remedy="agentlab models pull smollm2-135m"),
        DoctorRow(name="gpu", status="warn", detail="none", remedy="buy one"),
        DoctorRow(name="disk", status="ok", detail="9 GB free", remedy="free some"),
    ]
)


def test_remedies_are_shown_for_what_is_not_ok() -> None:
    table, *rest = REPORT.blocks()
    assert isinstance(table, Table)
    assert len(table.rows) == 3
    assert rest == [Text("model: agentlab models pull smollm2-135m"), Text("gpu: buy one")]


def test_a_required_row_has_to_be_ok() -> None:
    REPORT.require(["disk"])
    REPORT.require([])
    with pytest.raises(MissingError, match="model: not here") as caught:
        REPORT.require(["disk", "model", "gpu"])
    assert caught.value.exit_code == 3
    assert caught.value.hint == "agentlab models pull smollm2-135m"


def test_an_unknown_row_is_a_usage_error() -> None:
    with pytest.raises(UnknownNameError, match="modle"):
        REPORT.require(["modle"])
