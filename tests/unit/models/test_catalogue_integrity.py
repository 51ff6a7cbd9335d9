"""Only the promised bytes get through, and never more of them."""

import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentlab.errors import ModelFileError
from agentlab.models.catalogue import CatalogueRow, copy_verified, verify

CONTENT = bytes(range(256)) * 64


def test_the_promised_bytes_are_copied_and_verified(row: CatalogueRow, tmp_path: Path) -> None:
    copy_verified(io.BytesIO(CONTENT), tmp_path / "copy", row, "a test")
    verify(tmp_path / "copy", row)
    assert (tmp_path / "copy").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (CONTENT[:-1], "instead of"),
        (CONTENT + b"x", "more than"),
        (CONTENT[:-1] + b"x", "SHA-256"),
        (b"", "delivered 0"),
    ],
)
def test_anything_else_is_refused(row: CatalogueRow, tmp_path: Path, content: bytes, complaint: str) -> None:
    with pytest.raises(ModelFileError, match=complaint):
        copy_verified(io.BytesIO(content), tmp_path / "copy", row, "a test")
    assert (tmp_path / "copy").stat().st_size <= row.bytes


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, len(CONTENT) - 1), st.integers(1, 255))
def test_a_single_changed_byte_on_disk_is_found(row: CatalogueRow, tmp_path: Path, where: int, change: int) -> None:
    damaged = bytearray(CONTENT)
    damaged[where] ^= change
    (tmp_path / "model").write_bytes(damaged)
    with pytest.raises(ModelFileError) as caught:
        verify(tmp_path / "model", row)
    assert "agentlab models pull tiny" in (caught.value.hint or "")
