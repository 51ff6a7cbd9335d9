"""The header of a GGUF file: keys and tensor descriptions, not the weights.

The format: magic, version, tensor count, key count, keys with typed values, tensor descriptions, aligned data
(github.com/ggml-org/ggml, docs/gguf.md). A file is hostile input: every count is checked before it is believed, and
nothing is kept of a value that no caller asks for.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import util
from pathlib import Path
from types import ModuleType
from typing import IO, Any

_MAX_KEYS, _MAX_TENSORS, _MAX_NAME, _MAX_STRING, _MAX_ARRAY = 65_536, 1 << 20, 1024, 4 << 20, 1 << 24
_MAX_BYTES, _MAX_TEXTS = 256 << 20, 1 << 22  # of a whole header: the largest known vocabularies take 30 MB, 1 M texts
KEPT_ARRAY = 4096  # per-layer values are kept, vocabularies are skipped
_STRING, _ARRAY = 8, 9
_BLOCK = 1 << 20
_LENGTH = struct.Struct("<Q")
# Value type -> how `struct` reads one.
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}


@lru_cache(1)
def constants() -> ModuleType:
    """`gguf.constants`, loaded by itself: the package around it imports numpy, which takes longer than all the rest.

    Raises:
        ImportError: the package is not there, or has no such module.
    """
    package = util.find_spec("gguf")
    if package is None or package.origin is None:
        raise ImportError("the package gguf is not installed")
    spec = util.spec_from_file_location(f"{__name__}.library", Path(package.origin).parent / "constants.py")
    if spec is None or spec.loader is None:
        raise ImportError("the package gguf has no constants")
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor's name, number of elements, type (as `Q4_K`) and bytes as stored."""

    name: str
    elements: int
    kind: str
    stored: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says. `keys` has None for arrays of texts and for long ones. `size` is the file's, in bytes."""

    keys: Mapping[str, Any]
    tensors: tuple[Tensor, ...]
    size: int


def read_header(path: Path) -> Header:
    """Read the header of a file and check that the file is as long as it says.

    Raises:
        ValueError: it is not GGUF, or damaged, or cut off.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        reader = _HeaderReader(file)
        if reader.bytes(4) != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        version = reader.number("<I")
        if version not in (2, 3):
            raise ValueError(f"it is GGUF version {version}; only versions 2 and 3 are supported")
        tensor_count = reader.count(_MAX_TENSORS, "tensors")
        key_count = reader.count(_MAX_KEYS, "keys")
        keys = {reader.text(_MAX_NAME): reader.value() for _ in range(key_count)}
        described = [reader.tensor() for _ in range(tensor_count)]
        alignment = keys.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 1 <= alignment <= 65_536:
            raise ValueError(f"it claims an invalid alignment of {alignment}")
        start = math.ceil(reader.position() / alignment) * alignment
    end = max((start + offset + tensor.stored for tensor, offset in described), default=start)
    if end > size and described:
        raise ValueError(f"it is truncated: {size} of {end} bytes")
    return Header(keys, tuple(tensor for tensor, _ in described), size)


class _HeaderReader:
    """Reads little-endian values, a block at a time, and refuses to run past the end of the file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._block, self._at = b"", 0  # what was read, and how far it was used
        self._before = 0  # bytes of the file before the block
        self._texts = 0  # in arrays, so far

    def position(self) -> int:
        return self._before + self._at

    def bytes(self, count: int) -> bytes:
        self._have(count)
        self._at += count
        return self._block[self._at - count : self._at]

    def _have(self, count: int) -> None:
        """See that so many bytes follow in the block."""
        if self._at + count > len(self._block):
            self._before += self._at
            if self._before > _MAX_BYTES:
                raise ValueError(f"its header is longer than {_MAX_BYTES >> 20} MiB")
            self._block = self._block[self._at :] + self._file.read(max(_BLOCK, count))
            self._at = 0
            if count > len(self._block):
                raise ValueError("the header ends early")

    def _skip_texts(self, count: int) -> None:
        """Pass over texts: a vocabulary has a hundred thousand of them, so this loop calls nothing it can avoid."""
        self._texts += count
        if self._texts > _MAX_TEXTS:
            raise ValueError(f"it claims more than {_MAX_TEXTS} strings")
        unpack, block, at = _LENGTH.unpack_from, self._block, self._at
        for _ in range(count):
            if at + 8 > len(block):
                self._at = at
                self._have(8)
                block, at = self._block, self._at
            (length,) = unpack(block, at)
            if length > _MAX_STRING:
                raise ValueError(f"it claims a string of {length} bytes, which is too long")
            at += 8 + length
            if at > len(block):
                self._at = at - length
                self._have(length)
                block, at = self._block, self._at + length
        self._at = at

    def _skip(self, count: int) -> None:
        while count > 0:
            step = min(count, _BLOCK)
            self._have(step)
            self._at += step
            count -= step

    def number(self, form: str) -> Any:
        try:
            return struct.unpack(form, self.bytes(struct.calcsize(form)))[0]
        except struct.error as error:
            raise ValueError("it contains a damaged number") from error

    def count(self, limit: int, unit: str) -> int:
        value = int(self.number("<Q"))
        if value > limit:
            raise ValueError(f"it claims {value} {unit}, which is too many")
        return value

    def text(self, limit: int = _MAX_STRING) -> str:
        return self.bytes(self.count(limit, "bytes of text")).decode(errors="replace")

    def value(self) -> Any:
        """A value with its type; None for an array that is too long to keep or holds texts."""
        kind = self.number("<I")
        if kind == _ARRAY:
            return self._array()
        if kind == _STRING:
            return self.text()
        if kind not in _SCALARS:
            raise ValueError(f"it has a value of unknown type {kind}")
        return self.number(_SCALARS[kind])

    def _array(self) -> tuple[Any, ...] | None:
        kind, length = self.number("<I"), self.count(_MAX_ARRAY, "array entries")
        if kind == _STRING:
            self._skip_texts(length)
            return None
        if kind not in _SCALARS:
            raise ValueError(f"it has an array of unknown type {kind}")
        if length > KEPT_ARRAY:
            self._skip(length * struct.calcsize(_SCALARS[kind]))
            return None
        return tuple(self.number(_SCALARS[kind]) for _ in range(length))

    def tensor(self) -> tuple[Tensor, int]:
        """A tensor and where its data begins, from the start of all data."""
        name, dimensions = self.text(_MAX_NAME), self.number("<I")
        if not 1 <= dimensions <= 8:
            raise ValueError(f"it has a tensor with {dimensions} dimensions")
        elements = math.prod(int(self.number("<Q")) for _ in range(dimensions))
        kind, offset = self.number("<I"), int(self.number("<Q"))
        sizes = constants().GGML_QUANT_SIZES
        if kind not in sizes:
            raise ValueError(f"it has a tensor of unknown type {kind}")
        block, block_bytes = sizes[kind]
        stored = elements // block * block_bytes
        return Tensor(name, elements, constants().GGMLQuantizationType(kind).name, stored), offset
