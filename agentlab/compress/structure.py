"""Models with less in them: narrower MLPs, fewer layers, a smaller vocabulary. What comes out is a plain checkpoint."""

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch  # noqa: TID253 - reached lazily, when a model is compressed
from torch import Tensor  # noqa: TID253 - as above

from agentlab.compress.anatomy import layers_of
from agentlab.compress.calibration import Statistics
from agentlab.errors import ModelFileError, UsageError
from agentlab.runs.atomic import read_text, write_json

_MLP = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
_TOKENIZER = "tokenizer.json"
_MOST_TOKENIZER = 256 << 20
_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")  # of configs, which hold a token, several or none
_BESIDE = ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


@torch.no_grad()
def narrow(model: Any, statistics: Statistics, width: int) -> None:
    """Keep the channels of each layer's MLP that are largest on average.

    Weighing them by their columns of `down_proj` as well did worse on SmolLM2 (KL 0.215 against 0.204 at 5/6 width).

    Args:
        model: changed, its config as well.
        statistics: of this model.
        width: channels that stay, in each layer.

    Raises:
        UsageError: there are no more than that.
    """
    inner = model.config.intermediate_size
    if not 0 < width < inner:
        raise UsageError(f"The MLP has {inner} channels; {width} cannot stay.", hint=f"Keep 1 to {inner - 1}.")
    for index, layer in enumerate(layers_of(model)):
        kept = statistics.layer(index, model.device).channels.topk(width).indices.sort().values
        for name in _MLP:
            module = layer.get_submodule(name)
            down = name.endswith("down_proj")
            module.weight = _parameter(module.weight[:, kept] if down else module.weight[kept])
            if module.bias is not None and not down:
                module.bias = _parameter(module.bias[kept])
            module.in_features, module.out_features = module.weight.shape[::-1]
        layer.mlp.intermediate_size = width
    model.config.intermediate_size = width


def drop_layers(model: Any, influences: Sequence[float], count: int) -> list[int]:
    """Take out the layers that change the residual stream least (arXiv 2403.03853).

    Args:
        model: changed, its config as well.
        influences: of all layers.
        count: layers to take out.

    Returns:
        Those that were taken out, by their numbers before.

    Raises:
        UsageError: no layer would stay, or none would go.
    """
    layers = layers_of(model)
    if not 0 < count < len(layers):
        raise UsageError(f"Of {len(layers)} layers {count} cannot go.", hint=f"Take out 1 to {len(layers) - 1}.")
    gone = sorted(sorted(range(len(layers)), key=influences.__getitem__)[:count])
    model.model.layers = torch.nn.ModuleList([layer for index, layer in enumerate(layers) if index not in gone])
    for index, layer in enumerate(model.model.layers):
        layer.self_attn.layer_idx = index  # its place in the cache
    config = model.config
    config.num_hidden_layers = len(layers) - count
    if getattr(config, "layer_types", None):
        config.layer_types = [kind for index, kind in enumerate(config.layer_types) if index not in gone]
    if hasattr(config, "max_window_layers"):
        config.max_window_layers = min(config.max_window_layers, config.num_hidden_layers)
    return gone


def cut_vocabulary(model: Any, tokenizer: Path, seen: Iterable[int], out: Path) -> list[int]:
    """Leave out the tokens that no text uses; texts of seen tokens are split as before.

    What stays: `seen` and all tokens that they are merged from, those of single bytes, and special ones. So every
    text can still be written, at worst byte by byte.

    Args:
        model: its embedding, head and config are changed.
        tokenizer: folder of its tokenizer, a byte-level BPE.
        seen: tokens of the texts that matter.
        out: folder for the tokenizer's new files.

    Returns:
        The old numbers of the tokens that stay, in their new order.

    Raises:
        ModelFileError: the tokenizer is of another kind, or damaged.
        StorageError: the disk is full or not ours.
    """
    content = _byte_level(tokenizer)
    kept = _kept_tokens(content, set(seen))
    number = {old: new for new, old in enumerate(kept)}
    write_json(out / _TOKENIZER, _renumbered(content, number))
    for name in _BESIDE:
        if (tokenizer / name).is_file():
            shutil.copyfile(tokenizer / name, out / name)
    _renumber_settings(out / "tokenizer_config.json", number)
    _cut_matrices(model, torch.tensor(kept, device=model.device))
    for place in (model.config, model.generation_config):
        for key in _TOKENS:
            value = getattr(place, key, None)
            if value is not None:
                setattr(place, key, [number[each] for each in value] if isinstance(value, list) else number[value])
    return kept


def _parameter(value: Tensor) -> torch.nn.Parameter:
    return torch.nn.Parameter(value.clone(), requires_grad=False)


@torch.no_grad()
def _cut_matrices(model: Any, kept: Tensor) -> None:
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = head.weight is embedding.weight
    embedding.weight = _parameter(embedding.weight[kept])
    embedding.num_embeddings = len(kept)
    embedding.padding_idx = None  # it matters in training alone, where no gradient would reach that token
    head.weight = embedding.weight if tied else _parameter(head.weight[kept])
    head.out_features = model.config.vocab_size = model.vocab_size = len(kept)


def _byte_level(folder: Path) -> dict[str, Any]:
    """The content of tokenizer.json."""
    try:
        content = json.loads(read_text(folder / _TOKENIZER, _MOST_TOKENIZER))
        kind = content["model"].get("type")
        parts = json.dumps([content.get("pre_tokenizer"), content.get("decoder")])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelFileError(f"{folder} has no {_TOKENIZER} that can be read: {str(error)[:200]}.") from error
    if kind != "BPE" or content["model"].get("byte_fallback") or '"ByteLevel"' not in parts:
        name = "SentencePiece" if kind == "Unigram" or content["model"].get("byte_fallback") else str(kind)
        raise ModelFileError(
            f"The vocabulary of {folder.name} is of type {name}; only byte-level BPE can be cut.",
            hint="Leave the vocabulary as it is.",
        )
    return dict(content)


def _kept_tokens(content: dict[str, Any], seen: set[int]) -> list[int]:
    """The numbers of tokens that stay, in their order."""
    from tokenizers.pre_tokenizers import ByteLevel

    vocabulary: dict[str, int] = content["model"]["vocab"]
    parts: dict[str, list[str]] = {}
    for first, second in map(_pair, content["model"]["merges"]):
        parts.setdefault(first + second, []).extend((first, second))
    names = {number: token for token, number in vocabulary.items()}
    left = [names[number] for number in seen if number in names]
    found = {token for token in ByteLevel.alphabet() if token in vocabulary}
    while left:
        token = left.pop()
        if token not in found:
            found.add(token)
            left += parts.get(token, ())
    added = {each["id"] for each in content.get("added_tokens", ())}
    return sorted({vocabulary[token] for token in found} | added)


def _pair(merge: Any) -> tuple[str, str]:
    """As it is written since tokenizers 0.20, or as one text before."""
    first, second = merge.split(" ") if isinstance(merge, str) else merge
    return first, second


def _renumbered(content: dict[str, Any], number: dict[int, int]) -> dict[str, Any]:
    model = content["model"]
    vocabulary = {token: number[old] for token, old in model["vocab"].items() if old in number}
    merges = [
        merge for merge in model["merges"] if all(part in vocabulary for part in (*_pair(merge), "".join(_pair(merge))))
    ]
    added = [{**each, "id": number[each["id"]]} for each in content.get("added_tokens", ())]
    processor = _with_numbers(content.get("post_processor"), number)
    return {
        **content,
        "added_tokens": added,
        "post_processor": processor,
        "model": {**model, "vocab": vocabulary, "merges": merges},
    }


def _with_numbers(value: Any, number: dict[int, int]) -> Any:
    """A post-processor with new numbers in its special tokens: `ids` of templates, and pairs of a token and its own."""
    if isinstance(value, dict):
        return {
            key: [number[each] for each in inner] if key == "ids" else _with_numbers(inner, number)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        pair = len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int)
        return [value[0], number[value[1]]] if pair else [_with_numbers(each, number) for each in value]
    return value


def _renumber_settings(path: Path, number: dict[int, int]) -> None:
    """The added tokens by their numbers, which transformers repeats in its own file."""
    if not path.is_file():
        return
    settings = json.loads(read_text(path, _MOST_TOKENIZER))
    decoder = settings.get("added_tokens_decoder")
    if decoder:
        settings["added_tokens_decoder"] = {str(number[int(old)]): value for old, value in decoder.items()}
        write_json(path, settings)
