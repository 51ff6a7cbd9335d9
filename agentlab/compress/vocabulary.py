"""A smaller vocabulary: tokens that no text uses go, from a model and from its tokenizer."""

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch  # noqa: TID253 - reached lazily, when a model is compressed
from torch import Tensor  # noqa: TID253 - as above

from agentlab.compress.architecture import frozen_copy
from agentlab.errors import ModelFileError
from agentlab.runs.atomic import read_text, write_json

_TOKENIZER = "tokenizer.json"
_MOST_TOKENIZER = 256 << 20
_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")  # of configs, which hold a token, several or none
_BESIDE = ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


@dataclass(frozen=True, slots=True)
class Fewer:
    """The old tokens in new ones: one that stays is itself, another one the tokens that its text is split into."""

    kept: tuple[int, ...]  # the old numbers of the tokens that stay, in their new order
    pieces: tuple[tuple[int, ...], ...]  # of every old token, its new ones

    def window(self, tokens: Sequence[int]) -> tuple[list[int], list[int]]:
        """Old tokens, as new ones of the same count, and what the base is asked there.

        Returns:
            New tokens; and of each but the first, which old token begins with it, or -1 inside of one. The rest of the
            window is left out.
        """
        new, begins = list[int](), list[int]()
        for index, token in enumerate(tokens):
            new += self.pieces[token]
            begins += [index, *[-1] * (len(self.pieces[token]) - 1)]
        return new[: len(tokens)], begins[1 : len(tokens)]

    def distributions(self, logs: np.ndarray) -> np.ndarray:
        """Log-probabilities (..., old tokens) of the token, as those of its first piece (..., new tokens)."""
        first = np.array([pieces[0] for pieces in self.pieces])
        totals = np.zeros((*logs.shape[:-1], len(self.kept)), np.float32)
        for row, probabilities in zip(totals.reshape(-1, len(self.kept)), logs.reshape(-1, len(first)), strict=True):
            row += np.bincount(first, np.exp(probabilities.astype(np.float64)), len(self.kept))
        return np.log(np.maximum(totals, np.finfo(np.float32).tiny))


def cut_vocabulary(model: Any, tokenizer: Path, seen: Iterable[int], out: Path) -> Fewer:
    """Leave out the tokens that no text uses; texts of seen tokens are split as before.

    What stays: `seen` and all tokens that they are merged from, those of single bytes, and special ones. So every
    text can still be written, at worst byte by byte.

    Args:
        model: its embedding, head and config are changed.
        tokenizer: folder of its tokenizer, a byte-level BPE.
        out: folder for the tokenizer's new files.

    Raises:
        ModelFileError: the tokenizer is of another kind, or damaged.
        StorageError: the disk is full or not ours.
    """
    content = _byte_level(tokenizer)
    kept_tokens = _kept_tokens(content, set(seen))
    number, size = {old: new for new, old in enumerate(kept_tokens)}, model.config.vocab_size
    write_json(out / _TOKENIZER, _renumber_tokens(content, number))
    for name in _BESIDE:
        if (tokenizer / name).is_file():
            shutil.copyfile(tokenizer / name, out / name)
    _renumber_settings(out / "tokenizer_config.json", number)
    _cut_matrices(model, torch.tensor(kept_tokens, device=model.device))
    for config in (model.config, model.generation_config):
        for key in _TOKENS:
            value = getattr(config, key, None)
            if value is not None:
                setattr(config, key, [number[token] for token in value] if isinstance(value, list) else number[value])
    return Fewer(tuple(kept_tokens), tuple(_pieces(content, out / _TOKENIZER, number, size)))


@torch.no_grad()
def _cut_matrices(model: Any, kept_tokens: Tensor) -> None:
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = head.weight is embedding.weight
    embedding.weight = frozen_copy(embedding.weight[kept_tokens])
    embedding.num_embeddings = len(kept_tokens)
    embedding.padding_idx = None  # it matters in training alone, where no gradient would reach that token
    head.weight = embedding.weight if tied else frozen_copy(head.weight[kept_tokens])
    head.out_features = model.config.vocab_size = model.vocab_size = len(kept_tokens)


def _byte_level(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_text(folder / _TOKENIZER, _MOST_TOKENIZER))
        kind = content["model"].get("type")
        parts = json.dumps([content.get("pre_tokenizer"), content.get("decoder")])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelFileError(f"Cannot read {_TOKENIZER} of {folder}: {str(error)[:200]}.") from error
    if kind != "BPE" or content["model"].get("byte_fallback") or '"ByteLevel"' not in parts:
        name = "SentencePiece" if kind == "Unigram" or content["model"].get("byte_fallback") else str(kind)
        raise ModelFileError(
            f"The vocabulary of {folder.name} is of type {name}; only byte-level BPE can be cut.",
            hint="Leave the vocabulary unchanged.",
        )
    return dict(content)


def _kept_tokens(content: dict[str, Any], seen: set[int]) -> list[int]:
    from tokenizers.pre_tokenizers import ByteLevel

    vocabulary: dict[str, int] = content["model"]["vocab"]
    parts: dict[str, list[str]] = {}
    for first, second in map(_pair, content["model"]["merges"]):
        parts.setdefault(first + second, []).extend((first, second))
    names = {number: token for token, number in vocabulary.items()}
    pending = [names[number] for number in seen if number in names]
    kept_names = {token for token in ByteLevel.alphabet() if token in vocabulary}
    while pending:
        token = pending.pop()
        if token not in kept_names:
            kept_names.add(token)
            pending += parts.get(token, ())
    added = {entry["id"] for entry in content.get("added_tokens", ())}
    return sorted({vocabulary[token] for token in kept_names} | added)


def _pieces(content: dict[str, Any], path: Path, number: dict[int, int], size: int) -> list[tuple[int, ...]]:
    from tokenizers import Tokenizer

    names = {old: token for token, old in content["model"]["vocab"].items()}
    split = Tokenizer.from_file(str(path)).model.tokenize
    pieces = list[tuple[int, ...]]()
    for old in range(size):
        if old in number:
            pieces.append((number[old],))
        elif old in names:
            pieces.append(tuple(piece.id for piece in split(names[old])) or (0,))
        else:  # rows of the embedding that are no token's are never likely
            pieces.append((0,))
    return pieces


def _pair(merge: Any) -> tuple[str, str]:
    """As it is written since tokenizers 0.20, or as one text before."""
    first, second = merge.split(" ") if isinstance(merge, str) else merge
    return first, second


def _is_possible(merge: Any, vocabulary: Mapping[str, int]) -> bool:
    first, second = _pair(merge)
    return vocabulary.keys() >= {first, second, first + second}


def _renumber_tokens(content: dict[str, Any], number: dict[int, int]) -> dict[str, Any]:
    model = content["model"]
    vocabulary = {token: number[old] for token, old in model["vocab"].items() if old in number}
    merges = [merge for merge in model["merges"] if _is_possible(merge, vocabulary)]
    added = [{**entry, "id": number[entry["id"]]} for entry in content.get("added_tokens", ())]
    processor = _with_numbers(content.get("post_processor"), number)
    model = {**model, "vocab": vocabulary, "merges": merges}
    return {**content, "added_tokens": added, "post_processor": processor, "model": model}


def _with_numbers(value: Any, number: dict[int, int]) -> Any:
    """A post-processor with new numbers in its special tokens: `ids` of templates, and pairs of a token and its own."""
    if isinstance(value, dict):
        return {key: _renumber_field(key, inner, number) for key, inner in value.items()}
    if isinstance(value, list):
        pair = len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int)
        return [value[0], number[value[1]]] if pair else [_with_numbers(part, number) for part in value]
    return value


def _renumber_field(key: str, value: Any, number: dict[int, int]) -> Any:
    return [number[token] for token in value] if key == "ids" else _with_numbers(value, number)


def _renumber_settings(path: Path, number: dict[int, int]) -> None:
    """The added tokens by their numbers, which transformers repeats in its own file."""
    if not path.is_file():
        return
    settings = json.loads(read_text(path, _MOST_TOKENIZER))
    if decoder := settings.get("added_tokens_decoder"):
        settings["added_tokens_decoder"] = {str(number[int(old)]): value for old, value in decoder.items()}
        write_json(path, settings)
