"""Headers of real, odd and hostile GGUF files."""

import contextlib
import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentlab.errors import MissingFileError, ModelFileError
from agentlab.gguf.metadata import read


def write_model(path: Path, *, template: str | None = "{{ messages }}") -> bytes:
    """A complete GGUF with one layer and random weights, written by the format's own library."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(64)
    writer.add_block_count(2)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_head_count_kv([2, 1])
    writer.add_token_list(["a", "b", "c"])
    if template:
        writer.add_chat_template(template)
    rng = np.random.default_rng(0)
    writer.add_tensor("token_embd.weight", rng.random((40, 32), dtype=np.float32))
    quantised = gguf.quantize(rng.random((64, 32), dtype=np.float32), gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("blk.0.ffn_up.weight", quantised, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_model(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def test_what_a_file_says_about_itself(tmp_path: Path) -> None:
    write_model(tmp_path / "tiny.gguf")
    found = read(tmp_path / "tiny.gguf")
    assert (found.architecture, found.name, found.context_length, found.layers) == ("llama", "tiny", 64, 2)
    assert found.parameters == 40 * 32 + 64 * 32
    assert found.weight_bytes == 40 * 32 * 4 + 64 * 32 // 32 * 34
    assert found.quantisation == "F32"  # 5,120 of 7,296 bytes
    assert found.heads_kv == (2, 1)  # one per layer, as some models have it
    assert found.feed_forward == (96, 96)
    assert found.key_length == 8
    assert found.vocabulary == 40  # not among the keys: read off the embedding
    assert found.chat_template


def test_a_base_model_has_no_template(tmp_path: Path) -> None:
    write_model(tmp_path / "base.gguf", template=None)
    assert not read(tmp_path / "base.gguf").chat_template


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError):
        read(tmp_path / "none.gguf")


@pytest.mark.parametrize("missing", [1, 100, 5000])
def test_a_cut_off_file_is_recognised(tmp_path: Path, model: bytes, missing: int) -> None:
    (tmp_path / "cut.gguf").write_bytes(model[:-missing])
    with pytest.raises(ModelFileError, match=r"cut off|ends early"):
        read(tmp_path / "cut.gguf")


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"PK\x03\x04 a zip file",
        b"GGUF" + struct.pack("<IQQ", 1, 0, 0),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 0),
        b"GGUF" + struct.pack("<IQQ", 3, 2**63, 1),
        b"GGUF" + struct.pack("<IQQ", 3, 1, 2**63),
        b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + struct.pack("<Q", 2**62),
        b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + struct.pack("<Q", 1) + b"k" + struct.pack("<IIQ", 9, 8, 2**60),
        b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + struct.pack("<Q", 1) + b"k" + struct.pack("<IIQ", 9, 9, 1),
    ],
    ids=["empty", "zip", "version 1", "no model", "tensors", "keys", "key name", "array", "array of arrays"],
)
def test_a_hostile_header_is_refused_before_it_is_believed(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "bad.gguf").write_bytes(header)
    with pytest.raises(ModelFileError):
        read(tmp_path / "bad.gguf")


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damage_anywhere_in_the_header_never_raises_anything_else(
    tmp_path: Path, model: bytes, data: st.DataObject
) -> None:
    damaged = bytearray(model)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, 700))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.gguf"
    path.write_bytes(damaged)
    with contextlib.suppress(ModelFileError):  # harmless damage, in a name for instance, is not noticed
        assert read(path).file_bytes == len(model)
