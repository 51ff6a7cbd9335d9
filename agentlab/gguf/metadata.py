"""What a GGUF file says about itself, read from its header alone.

The format: magic, version, tensor count, key count, keys with typed values, tensor descriptions, aligned data
(github.com/ggml-org/ggml, docs/gguf.md). A file is hostile input: every count is checked before it is believed, and
nothing is kept of a value that no caller asks for.
"""

import math
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from agentlab.errors import MissingFileError, ModelFileError

_MAX_KEYS, _MAX_TENSORS, _MAX_NAME, _MAX_STRING, _MAX_ARRAY = 65_536, 1 << 20, 1024, 4 << 20, 1 << 24
_KEPT_ARRAY = 4096  # per-layer values are kept, vocabularies are skipped
_STRING, _ARRAY = 8, 9
# Value type -> how `struct` reads one.
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}


@dataclass(frozen=True, slots=True)
class GgufMetadata:
    """A model's shape. `weight_bytes` is what the tensors take in memory as stored; `quantisation` is their main type.

    `heads_kv` and `feed_forward` have one entry per layer.
    """

    architecture: str
    name: str
    parameters: int
    quantisation: str
    weight_bytes: int
    file_bytes: int
    context_length: int
    layers: int
    embedding: int
    feed_forward: tuple[int, ...]
    heads: int
    heads_kv: tuple[int, ...]
    key_length: int
    value_length: int
    vocabulary: int
    chat_template: bool


@dataclass(frozen=True, slots=True)
class _Tensor:
    name: str
    elements: int
    kind: int
    offset: int


class _Reader:
    """Reads little-endian values and refuses to run past the end of the file."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._size = file, size

    def bytes(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) != count:
            raise ValueError("the header ends early")
        return data

    def skip(self, count: int) -> None:
        if self._file.tell() + count > self._size:
            raise ValueError("the header ends early")
        self._file.seek(count, 1)

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.bytes(struct.calcsize(form)))[0]

    def count(self, limit: int, what: str) -> int:
        value = int(self.number("<Q"))
        if value > limit:
            raise ValueError(f"it claims {value} {what}")
        return value

    def text(self, limit: int = _MAX_STRING) -> str:
        return self.bytes(self.count(limit, "bytes of text")).decode(errors="replace")

    def value(self) -> Any:
        """A value with its type; None for an array that is too long to keep or holds texts."""
        kind = self.number("<I")
        return self._array() if kind == _ARRAY else self._plain(kind)

    def _plain(self, kind: int) -> Any:
        if kind == _STRING:
            return self.text()
        if kind not in _SCALARS:
            raise ValueError(f"it has a value of unknown type {kind}")
        return self.number(_SCALARS[kind])

    def _array(self) -> tuple[Any, ...] | None:
        kind, length = self.number("<I"), self.count(_MAX_ARRAY, "array entries")
        if kind == _STRING:
            for _ in range(length):
                self.skip(self.count(_MAX_STRING, "bytes of text"))
            return None
        if kind not in _SCALARS:
            raise ValueError(f"it has an array of unknown type {kind}")
        if length > _KEPT_ARRAY:
            self.skip(length * struct.calcsize(_SCALARS[kind]))
            return None
        return tuple(self.number(_SCALARS[kind]) for _ in range(length))

    def tensor(self) -> _Tensor:
        name, dimensions = self.text(_MAX_NAME), self.number("<I")
        if not 1 <= dimensions <= 8:
            raise ValueError(f"it has a tensor with {dimensions} dimensions")
        elements = math.prod(int(self.number("<Q")) for _ in range(dimensions))
        return _Tensor(name, elements, self.number("<I"), self.number("<Q"))

    def position(self) -> int:
        return self._file.tell()


def read(path: Path) -> GgufMetadata:
    """Read the header of a GGUF file and check that the file is as long as it says.

    Raises:
        MissingFileError: there is no such file.
        ModelFileError: it is not a GGUF model, or damaged, or cut off.
    """
    if not path.is_file():
        raise MissingFileError(f"There is no model file {path}.", hint="`agentlab models list` shows what is there.")
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            keys, tensors, start = _header(_Reader(file, size))
        return _describe(keys, tensors, start, size)
    except (ValueError, struct.error) as error:
        raise ModelFileError(f"{path} is not a usable GGUF model: {error}.") from error


def _header(reader: _Reader) -> tuple[dict[str, Any], list[_Tensor], int]:
    """(keys, tensors, where their data starts)."""
    if reader.bytes(4) != b"GGUF":
        raise ValueError("it does not begin with GGUF")
    version = reader.number("<I")
    if version not in (2, 3):
        raise ValueError(f"it has version {version}, and 2 and 3 are understood")
    tensor_count = reader.count(_MAX_TENSORS, "tensors")
    key_count = reader.count(_MAX_KEYS, "keys")
    keys = {reader.text(_MAX_NAME): reader.value() for _ in range(key_count)}
    tensors = [reader.tensor() for _ in range(tensor_count)]
    alignment = keys.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 1 <= alignment <= 65_536:
        raise ValueError(f"it claims an alignment of {alignment}")
    return keys, tensors, math.ceil(reader.position() / alignment) * alignment


def _describe(keys: Mapping[str, Any], tensors: list[_Tensor], start: int, size: int) -> GgufMetadata:
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    by_kind: Counter[str] = Counter()
    end = start
    for tensor in tensors:
        if tensor.kind not in GGML_QUANT_SIZES:
            raise ValueError(f"it has a tensor of unknown type {tensor.kind}")
        kind = GGMLQuantizationType(tensor.kind)
        block, block_bytes = GGML_QUANT_SIZES[kind]
        stored = tensor.elements // block * block_bytes
        by_kind[kind.name] += stored
        end = max(end, start + tensor.offset + stored)
    if end > size:
        raise ValueError(f"it is cut off: {size} bytes of {end}")
    architecture = keys.get("general.architecture")
    if not isinstance(architecture, str) or not tensors:
        raise ValueError("it holds no model")
    shape = _Shape(keys, architecture)
    layers, embedding, heads = (
        shape.one("block_count"),
        shape.one("embedding_length"),
        shape.one("attention.head_count"),
    )
    return GgufMetadata(
        architecture=architecture,
        name=str(keys.get("general.name") or architecture),
        parameters=sum(tensor.elements for tensor in tensors),
        quantisation=by_kind.most_common(1)[0][0],
        weight_bytes=by_kind.total(),
        file_bytes=size,
        context_length=shape.one("context_length"),
        layers=layers,
        embedding=embedding,
        feed_forward=shape.each("feed_forward_length", layers, 0),
        heads=heads,
        heads_kv=shape.each("attention.head_count_kv", layers, heads),
        key_length=shape.one("attention.key_length", embedding // max(heads, 1)),
        value_length=shape.one("attention.value_length", embedding // max(heads, 1)),
        vocabulary=shape.one("vocab_size", _rows("token_embd.weight", tensors, embedding)),
        chat_template=bool(keys.get("tokenizer.chat_template")),
    )


def _rows(name: str, tensors: list[_Tensor], columns: int) -> int:
    return next((tensor.elements // max(columns, 1) for tensor in tensors if tensor.name == name), 0)


class _Shape:
    """The keys under the name of the architecture."""

    def __init__(self, keys: Mapping[str, Any], architecture: str) -> None:
        self._keys, self._architecture = keys, architecture

    def one(self, name: str, default: int | None = None) -> int:
        value = self._keys.get(f"{self._architecture}.{name}", default)
        value = max(value) if isinstance(value, tuple) and value else value
        if not isinstance(value, int) or not 0 <= value < 1 << 31:
            raise ValueError(f"its {self._architecture}.{name} is {value!r}")
        return value

    def each(self, name: str, layers: int, default: int) -> tuple[int, ...]:
        if layers > _KEPT_ARRAY:
            raise ValueError(f"it claims {layers} layers")
        value = self._keys.get(f"{self._architecture}.{name}", default)
        values = value if isinstance(value, tuple) else (value,) * layers
        if len(values) != layers or not all(isinstance(v, int) and 0 <= v < 1 << 31 for v in values):
            raise ValueError(f"its {self._architecture}.{name} is {value!r:.80}")
        return values
