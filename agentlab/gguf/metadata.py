"""What a GGUF model says about itself, read from the headers of its file or parts alone."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from agentlab.errors import MissingFileError, ModelFileError
from agentlab.gguf.header import KEPT_ARRAY, Header, Tensor, constants, read_header

_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
_MAX_PARTS = 1000
_AGAIN = "Download the file again; `agentlab models list` shows the models on this machine."
_EMBEDDING, _OUTPUT = "token_embd.weight", "output.weight"
# Rows of such a model cannot be cut into the 256s that a type with K needs; llama.cpp then takes the other.
_STAND_INS = {"Q2_K": "IQ4_NL", "Q3_K": "IQ4_NL", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0", "IQ4_XS": "IQ4_NL"}


@dataclass(frozen=True, slots=True)
class GgufMetadata:
    """A model's shape."""

    architecture: str
    name: str
    parameters: int
    quantisation: str  # the type that takes most of its bytes
    weight_bytes: int
    file_bytes: int  # of all parts
    context_length: int
    layers: int
    embedding: int
    feed_forward: tuple[int, ...]  # by layer
    heads: int
    heads_kv: tuple[int, ...]  # that each layer caches itself; 0 for a recurrent or sharing one
    key_length: int
    value_length: int
    vocabulary: int
    chat_template: bool
    tensors: int
    types: Mapping[str, int]  # bytes of tensors by type, as stored
    multiplied: Mapping[str, int]  # the same without an embedding table that is only looked up
    file_type: str | None = None  # the mixture that the header claims, such as Q4_K_M; None if it does not say
    expert_width: int = 0  # feed-forward width of the experts that one token uses, together
    latent_length: int = 0  # numbers per position and layer where keys and values are kept compressed (MLA), else 0
    state_bytes: int = 0  # recurrent state of one sequence


def parts(path: Path) -> list[Path]:
    """The files of a model, by its name: `NAME-00001-of-00003.gguf` and so on, or the file alone. Nothing is read.

    Raises:
        ModelFileError: the name claims an absurd number of parts.
    """
    match = _PART.fullmatch(path.name)
    if match is None:
        return [path]
    count = int(match["count"])
    if not 1 <= int(match["number"]) <= count <= _MAX_PARTS:
        raise ModelFileError(
            f"{path} does not have a part number from 1 to {_MAX_PARTS} in its name.", hint="Rename the file."
        )
    return [path.with_name(f"{match['stem']}-{number:05}-of-{count:05}.gguf") for number in range(1, count + 1)]


def read(path: Path) -> GgufMetadata:
    """Read the header of a GGUF model (of several parts, by the first) and check that each file is as long as it says.

    Raises:
        MissingFileError: the file or a part of it is not there.
        ModelFileError: it is not a GGUF model, or damaged, or cut off, or cannot be read.
    """
    if path.is_dir():
        raise ModelFileError(
            f"{path} is a folder, not a GGUF file.",
            hint="Pass the file in it; for a model split into parts, pass the first part.",
        )
    if not path.is_file():
        raise MissingFileError(
            f"The model file {path} does not exist.", hint="`agentlab models list` shows the models on this machine."
        )
    files = parts(path)
    if path != files[0]:
        raise ModelFileError(
            f"{path} is not the first part of its model.", hint=f"Use the first part, {files[0].name}."
        )
    headers = []
    for number, file in enumerate(files):
        if not file.is_file():
            raise MissingFileError(
                f"Part {number + 1} of {len(files)} of {path} is missing: {file.name}.",
                hint="All parts must be in one folder.",
            )
        try:
            headers.append(read_header(file))
            _check_part(headers[-1], number, len(files))
        except ValueError as error:
            raise ModelFileError(f"{file} is not a usable GGUF model: {error}.", hint=_AGAIN) from error
        except OSError as error:
            raise ModelFileError(f"{file} cannot be read: {error.strerror}.") from error
    try:
        return _describe(headers)
    except ValueError as error:
        raise ModelFileError(f"{path} is not a usable GGUF model: {error}.", hint=_AGAIN) from error


def agrees(declared: str, metadata: GgufMetadata) -> bool:
    """Whether a model is quantised as somebody says, in the customary words: Q4_K_M, q8_0, F16.

    The header's own claim decides between mixtures of one type (Q4_K_S and Q4_K_M) where it names one; that most bytes
    are of the type has to be true in any case.
    """
    name = declared.strip().upper().removeprefix("UD-")
    kinds = sorted((kind.name for kind in constants().GGMLQuantizationType), key=len, reverse=True)
    kind = next((kind for kind in kinds if name == kind or name.startswith(f"{kind}_")), None)
    if kind is None:  # the mixtures IQ3_M, IQ3_XS and IQ2_M are named after no type
        return name == metadata.file_type
    stand_in = _STAND_INS.get(kind) if metadata.embedding % 256 else None
    if metadata.quantisation not in (kind, stand_in):
        return False
    return name in (kind, metadata.file_type) or name not in _mixtures() or metadata.file_type not in _mixtures()


def known_architecture(name: str) -> bool:
    """Whether llama.cpp has a model of that architecture, by the table of its `gguf` package."""
    return name in constants().MODEL_ARCH_NAMES.values()


def _mixtures() -> dict[str, int]:
    """Name of a mixture -> its number in `general.file_type`."""
    types = constants().LlamaFileType
    known_types = (kind for kind in types if kind is not types.GUESSED)
    return {kind.name.removeprefix("MOSTLY_").removeprefix("ALL_"): kind.value for kind in known_types}


def _check_part(header: Header, number: int, count: int) -> None:
    declared = header.keys.get("split.no", 0), header.keys.get("split.count", 1)
    alone = count == 1 and declared[1] in (0, 1)
    if not alone and declared != (number, count):
        raise ValueError(
            f"its header says part {declared[0]!r:.20} (counted from 0) of {declared[1]!r:.20}, but its name disagrees"
        )


def _describe(headers: Sequence[Header]) -> GgufMetadata:
    keys = headers[0].keys
    tensors = list(chain.from_iterable(header.tensors for header in headers))
    architecture = keys.get("general.architecture")
    if not isinstance(architecture, str) or not tensors:
        raise ValueError("it contains no model")
    shape = _Shape(keys, architecture)
    layers, embedding = shape.number("block_count"), shape.number("embedding_length")
    heads = shape.number("attention.head_count")
    heads_kv = shape.heads_kv(layers, heads)
    types = _bytes_by_type(tensors)
    tied = all(tensor.name != _OUTPUT for tensor in tensors)
    mixtures = {number: name for name, number in _mixtures().items()}
    file_type = keys.get("general.file_type")
    return GgufMetadata(
        architecture=architecture,
        name=str(keys.get("general.name") or architecture),
        parameters=sum(tensor.elements for tensor in tensors),
        quantisation=types.most_common(1)[0][0],
        weight_bytes=types.total(),
        file_bytes=sum(header.size for header in headers),
        context_length=shape.number("context_length"),
        layers=layers,
        embedding=embedding,
        feed_forward=shape.per_layer("feed_forward_length", layers, 0),
        heads=heads,
        heads_kv=heads_kv,
        key_length=shape.number("attention.key_length", embedding // max(heads, 1)),
        value_length=shape.number("attention.value_length", embedding // max(heads, 1)),
        vocabulary=shape.number("vocab_size", _rows(tensors, embedding)),
        chat_template=bool(keys.get("tokenizer.chat_template")),
        tensors=len(tensors),
        types=types,
        multiplied=_bytes_by_type([tensor for tensor in tensors if tied or tensor.name != _EMBEDDING]),
        file_type=mixtures.get(file_type) if isinstance(file_type, int) else None,
        expert_width=shape.experts(),
        latent_length=shape.latent(),
        state_bytes=shape.state() * heads_kv.count(0),
    )


def _bytes_by_type(tensors: Sequence[Tensor]) -> Counter[str]:
    bytes_by_type: Counter[str] = Counter()
    for tensor in tensors:
        bytes_by_type[tensor.kind] += tensor.stored
    return bytes_by_type


def _rows(tensors: Sequence[Tensor], columns: int) -> int:
    return next((tensor.elements // max(columns, 1) for tensor in tensors if tensor.name == _EMBEDDING), 0)


class _Shape:
    """The keys under the name of the architecture."""

    def __init__(self, keys: Mapping[str, Any], architecture: str) -> None:
        self._keys, self._architecture = keys, architecture

    def number(self, name: str, default: int | None = None) -> int:
        value = self._keys.get(f"{self._architecture}.{name}", default)
        value = max(value) if isinstance(value, tuple) and value else value
        if not isinstance(value, int) or not 0 <= value < 1 << 31:
            raise ValueError(f"its {self._architecture}.{name} is {value!r:.80}")
        return value

    def per_layer(self, name: str, layers: int, default: int) -> tuple[int, ...]:
        if layers > KEPT_ARRAY:
            raise ValueError(f"it claims {layers} layers, which is too many")
        value = self._keys.get(f"{self._architecture}.{name}", default)
        values = value if isinstance(value, tuple) else (value,) * layers
        if len(values) != layers or not all(isinstance(v, int) and 0 <= v < 1 << 31 for v in values):
            raise ValueError(f"its {self._architecture}.{name} is {value!r:.80}")
        return values

    def heads_kv(self, layers: int, heads: int) -> tuple[int, ...]:
        """Per layer; 0 where it shares an earlier layer's cache, or is recurrent."""
        counts = self.per_layer("attention.head_count_kv", layers, heads)
        caching_layers = layers - self.number("attention.shared_kv_layers", 0)
        interval = self.number("full_attention_interval", 0)
        return tuple(
            0 if layer >= caching_layers or (interval and (layer + 1) % interval) else count
            for layer, count in enumerate(counts)
        )

    def experts(self) -> int:
        shared = self.number("expert_shared_count", 0) * self.number("expert_feed_forward_length", 0)
        return self.number("expert_used_count", 0) * self.number("expert_feed_forward_length", 0) + shared

    def latent(self) -> int:
        if not self.number("attention.key_length_mla", 0):
            return 0
        return self.number("attention.kv_lora_rank", 0) + self.number("rope.dimension_count", 0)

    def state(self) -> int:
        """Bytes of one recurrent layer: the last inputs of its convolution, and its state, in float32."""
        inner, size = self.number("ssm.inner_size", 0), self.number("ssm.state_size", 0)
        conv_inputs = max(self.number("ssm.conv_kernel", 1) - 1, 0)
        return 4 * (conv_inputs * (inner + 2 * self.number("ssm.group_count", 0) * size) + size * inner)
