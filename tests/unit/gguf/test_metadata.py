"""Headers of real, odd and hostile GGUF files."""

import contextlib
import struct
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentlab.errors import MissingFileError, ModelFileError
from agentlab.gguf.metadata import agrees, known_architecture, parts, read


def write_model(
    path: Path, *, template: str | None = "{{ messages }}", keys: Mapping[str, int] | None = None, tied: bool = True
) -> bytes:
    """A complete GGUF with two layers and random weights, written by the format's own library."""
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
    for key, value in (keys or {}).items():
        writer.add_uint32(key, value)
    rng = np.random.default_rng(0)
    writer.add_tensor("token_embd.weight", rng.random((40, 32), dtype=np.float32))
    quantised = gguf.quantize(rng.random((64, 32), dtype=np.float32), gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("blk.0.ffn_up.weight", quantised, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    if not tied:
        writer.add_tensor("output.weight", rng.random((40, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def write_parts(folder: Path, count: int = 3, claimed: int | None = None) -> Path:
    """A model in parts of one tensor each; the first one."""
    for number in range(count):
        writer = gguf.GGUFWriter(folder / f"big-{number + 1:05}-of-{count:05}.gguf", "llama")
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", claimed or count)
        if number == 0:
            writer.add_context_length(64)
            writer.add_block_count(1)
            writer.add_embedding_length(32)
            writer.add_head_count(4)
        writer.add_tensor(f"blk.{number}.ffn_up.weight", np.ones((64, 32), dtype=np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return folder / f"big-00001-of-{count:05}.gguf"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_model(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def test_what_a_file_says_about_itself(tmp_path: Path) -> None:
    write_model(tmp_path / "tiny.gguf")
    metadata = read(tmp_path / "tiny.gguf")
    assert (metadata.architecture, metadata.name, metadata.context_length, metadata.layers) == ("llama", "tiny", 64, 2)
    assert metadata.parameters == 40 * 32 + 64 * 32
    assert metadata.weight_bytes == 40 * 32 * 4 + 64 * 32 // 32 * 34
    assert metadata.quantisation == "F32"  # 5,120 of 7,296 bytes
    assert metadata.heads_kv == (2, 1)  # one per layer, as some models have it
    assert metadata.feed_forward == (96, 96)
    assert metadata.key_length == 8
    assert metadata.vocabulary == 40  # not among the keys: read off the embedding
    assert metadata.chat_template
    assert metadata.tensors == 2
    assert metadata.types == {"F32": 40 * 32 * 4, "Q8_0": 64 * 34}
    assert metadata.multiplied == metadata.types  # the embedding makes the output as well
    assert metadata.file_type is None
    assert (metadata.expert_width, metadata.latent_length, metadata.state_bytes) == (0, 0, 0)


def test_an_embedding_that_is_only_looked_up_is_not_multiplied(tmp_path: Path) -> None:
    write_model(tmp_path / "tiny.gguf", tied=False)
    metadata = read(tmp_path / "tiny.gguf")
    assert metadata.types["F32"] == 2 * 40 * 32 * 4
    assert metadata.multiplied["F32"] == 40 * 32 * 4


def test_compressed_keys_and_values(tmp_path: Path) -> None:
    keys = {"attention.key_length_mla": 96, "attention.kv_lora_rank": 128, "rope.dimension_count": 32}
    write_model(tmp_path / "mla.gguf", keys={f"llama.{key}": value for key, value in keys.items()})
    assert read(tmp_path / "mla.gguf").latent_length == 160


def test_layers_that_cache_nothing(tmp_path: Path) -> None:
    write_model(tmp_path / "sharing.gguf", keys={"llama.attention.shared_kv_layers": 1})
    assert read(tmp_path / "sharing.gguf").heads_kv == (2, 0)
    keys = {"full_attention_interval": 2, "ssm.inner_size": 64, "ssm.state_size": 16, "ssm.conv_kernel": 4}
    write_model(tmp_path / "hybrid.gguf", keys={f"llama.{key}": value for key, value in keys.items()})
    metadata = read(tmp_path / "hybrid.gguf")
    assert metadata.heads_kv == (0, 1)  # every second layer attends
    assert metadata.state_bytes == 4 * (3 * 64 + 16 * 64)


def test_experts(tmp_path: Path) -> None:
    keys = {"expert_used_count": 4, "expert_feed_forward_length": 768, "expert_shared_count": 1}
    write_model(tmp_path / "moe.gguf", keys={f"llama.{key}": value for key, value in keys.items()})
    assert read(tmp_path / "moe.gguf").expert_width == 5 * 768


def test_a_model_in_parts_is_one_model(tmp_path: Path) -> None:
    first = write_parts(tmp_path)
    metadata = read(first)
    assert metadata.parameters == 3 * 64 * 32
    assert metadata.weight_bytes == 3 * 64 * 32 * 4
    assert metadata.file_bytes == sum(path.stat().st_size for path in tmp_path.iterdir())
    assert parts(first) == sorted(tmp_path.iterdir())
    assert parts(tmp_path / "whole.gguf") == [tmp_path / "whole.gguf"]


def test_a_part_that_is_not_there_is_named(tmp_path: Path) -> None:
    first = write_parts(tmp_path)
    (tmp_path / "big-00002-of-00003.gguf").unlink()
    with pytest.raises(MissingFileError, match=r"Part 2 of 3 .*: big-00002-of-00003\.gguf"):
        read(first)


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    first = write_parts(tmp_path)
    last = tmp_path / "big-00003-of-00003.gguf"
    last.write_bytes(last.read_bytes()[:-10])
    with pytest.raises(ModelFileError, match=r"big-00003-of-00003\.gguf is not a usable GGUF model: it is truncated"):
        read(first)


def test_a_later_part_is_no_model(tmp_path: Path) -> None:
    write_parts(tmp_path)
    with pytest.raises(ModelFileError, match="not the first part") as caught:
        read(tmp_path / "big-00002-of-00003.gguf")
    assert "big-00001-of-00003.gguf" in (caught.value.hint or "")


def test_parts_under_other_names_are_refused(tmp_path: Path) -> None:
    first = write_parts(tmp_path)
    first.rename(tmp_path / "renamed.gguf")
    with pytest.raises(ModelFileError, match="but its name disagrees"):
        read(tmp_path / "renamed.gguf")
    with pytest.raises(ModelFileError, match="but its name disagrees"):
        read(write_parts(tmp_path, count=2, claimed=5))


@pytest.mark.parametrize("name", ["a-00000-of-00003.gguf", "a-00004-of-00003.gguf", "a-00001-of-99999.gguf"])
def test_absurd_parts(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(ModelFileError, match="parts"):
        parts(tmp_path / name)


@pytest.mark.parametrize(
    ("declared", "main", "file_type", "true"),
    [
        ("Q4_1", "Q4_1", None, True),
        ("q4_1", "Q4_1", "Q4_1", True),
        ("Q4_K_M", "Q4_K", None, True),
        ("Q4_K_M", "Q4_K", "Q4_K_M", True),
        ("Q4_K_S", "Q4_K", "Q4_K_M", False),  # the header knows which mixture
        ("Q4_K", "Q4_K", "Q4_K_M", True),
        ("UD-Q4_K_XL", "Q4_K", "Q4_K_M", True),  # a mixture of somebody's own
        ("Q4_K_M", "F16", "Q4_K_M", False),  # the header is not believed against the tensors
        ("Q5_K_M", "Q4_K", "Q4_K_M", False),
        ("Q4_0", "Q4_1", None, False),
        ("F16", "F16", "F16", True),
        ("fp16", "F16", "F16", False),
        ("BF16", "F16", None, False),
        ("IQ3_M", "IQ3_S", "IQ3_M", True),
        ("IQ3_M", "IQ3_S", None, False),
        ("IQ4_XS", "IQ4_XS", "IQ4_XS", True),
        ("Q8_0", "Q8_0", None, True),
        ("good", "Q8_0", None, False),
        ("", "Q8_0", None, False),
    ],
)
def test_a_declared_quantisation(tmp_path: Path, declared: str, main: str, file_type: str | None, true: bool) -> None:
    write_model(tmp_path / "tiny.gguf")
    metadata = replace(read(tmp_path / "tiny.gguf"), embedding=4096, quantisation=main, file_type=file_type)
    assert agrees(declared, metadata) is true


def test_rows_that_are_no_multiple_of_256_are_stored_in_another_type(tmp_path: Path) -> None:
    write_model(tmp_path / "tiny.gguf")
    small = replace(read(tmp_path / "tiny.gguf"), embedding=896, quantisation="Q5_0", file_type="Q4_K_M")
    assert agrees("Q4_K_M", small)
    assert not agrees("Q4_K_M", replace(small, embedding=1024))


def test_the_header_names_its_mixture(tmp_path: Path) -> None:
    write_model(tmp_path / "tiny.gguf", keys={"general.file_type": 15})
    assert read(tmp_path / "tiny.gguf").file_type == "Q4_K_M"
    for number in (1024, 4_000_000_000):  # "guessed", and nothing at all
        write_model(tmp_path / "tiny.gguf", keys={"general.file_type": number})
        assert read(tmp_path / "tiny.gguf").file_type is None


def test_architectures() -> None:
    assert known_architecture("llama")
    assert not known_architecture("LLAMA")
    assert not known_architecture("")


def test_a_base_model_has_no_template(tmp_path: Path) -> None:
    write_model(tmp_path / "base.gguf", template=None)
    assert not read(tmp_path / "base.gguf").chat_template


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError):
        read(tmp_path / "none.gguf")


@pytest.mark.parametrize("missing", [1, 100, 5000])
def test_a_cut_off_file_is_recognised(tmp_path: Path, model: bytes, missing: int) -> None:
    (tmp_path / "cut.gguf").write_bytes(model[:-missing])
    with pytest.raises(ModelFileError, match=r"truncated|ends early"):
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


def test_a_sparse_file_of_any_size_is_refused_at_once(tmp_path: Path) -> None:
    """Its keys are arrays of 16 MiB, one after the other, over 10 GB of nothing."""
    stride, path = (1 << 24) + 25, tmp_path / "sparse.gguf"
    with path.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, 1, 600))
        for number in range(600):
            file.seek(24 + number * stride)
            file.write(struct.pack("<Q", 1) + b"k" + struct.pack("<IIQ", 9, 0, 1 << 24))
        file.truncate(10 << 30)
    began = time.process_time()
    with pytest.raises(ModelFileError, match="header is longer than 256 MiB"):
        read(path)
    assert time.process_time() - began < 5


def test_so_is_one_of_a_hundred_million_empty_texts(tmp_path: Path) -> None:
    path = tmp_path / "texts.gguf"
    with path.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, 1, 60) + struct.pack("<Q", 1) + b"k")
        file.write(struct.pack("<IIQ", 9, 8, 1 << 24))
        file.truncate(10 << 30)
    began = time.process_time()
    with pytest.raises(ModelFileError, match="more than 4194304 strings"):
        read(path)
    assert time.process_time() - began < 2


def test_a_folder_is_no_model_file(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="is a folder"):
        read(tmp_path)
