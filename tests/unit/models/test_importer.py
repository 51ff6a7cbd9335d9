"""What an import refuses before it starts; the import itself is in tests/integration."""

from pathlib import Path

import pytest

from agentlab.errors import MissingFileError, ModelFileError, UnknownNameError, UsageError
from agentlab.models.importer import as_dtype, import_gguf


def test_an_existing_folder_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(UsageError, match="already exists") as caught:
        import_gguf(tmp_path / "any.gguf", tmp_path / "there", "float32")
    assert "--out" in (caught.value.hint or "")


def test_a_missing_or_damaged_file_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError):
        import_gguf(tmp_path / "none.gguf", tmp_path / "out" / "x", "float32")
    (tmp_path / "bad.gguf").write_bytes(b"GGUF and then nothing")
    with pytest.raises(ModelFileError):
        import_gguf(tmp_path / "bad.gguf", tmp_path / "out" / "x", "float32")
    assert not (tmp_path / "out").exists()


def test_a_dtype_is_named_as_torch_names_it() -> None:
    assert as_dtype("bfloat16") == "bfloat16"
    with pytest.raises(UnknownNameError) as caught:
        as_dtype("bf16")
    assert "bfloat16" in (caught.value.hint or "")
