"""A tokenizer of Hugging Face in the keys of a GGUF file: byte-level BPE, SentencePiece with bytes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentlab.errors import ModelFileError

_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6  # llama_token_type
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_PATTERNS = {_LLAMA3: "llama-bpe", _LLAMA3.replace("{1,3}", ""): "qwen2"}  # llama.cpp knows them by name alone
_SPACE = "▁"
_HINT = "Supported tokenizers: GPT-2, SmolLM2, Llama 2, Llama 3, Qwen2 and Qwen3."


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What llama.cpp needs to know. `scores` are of SentencePiece, `merges` of BPE; `pre` names how BPE splits text."""

    model: str
    pre: str | None
    tokens: list[str]
    types: list[int]
    scores: list[float] | None
    merges: list[str] | None
    space_prefix: bool


def read_vocabulary(folder: Path, size: int) -> Vocabulary:
    """The tokenizer of a checkpoint folder, filled up with unused tokens to the `size` of the embedding.

    Raises:
        ModelFileError: there is no tokenizer.json, it is damaged, or of a kind that llama.cpp has no name for.
    """
    path = folder / "tokenizer.json"
    try:
        return _vocabulary(path, size)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ModelFileError(f"{path} cannot be read: {type(error).__name__}: {str(error)[:200]}") from error


def _vocabulary(path: Path, size: int) -> Vocabulary:
    document = json.loads(path.read_text("utf-8"))
    model, added = document["model"], {token["id"]: token for token in document["added_tokens"]}
    names = {token_id: text for text, token_id in model["vocab"].items()}
    names |= {token_id: token["content"] for token_id, token in added.items()}
    if model.get("type") != "BPE" or max(names) >= size:
        raise ModelFileError(f"{path} is a tokenizer that GGUF does not support ({model.get('type')}).", hint=_HINT)
    tokens = [names.get(token_id, f"[PAD{token_id}]") for token_id in range(size)]
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    spm = bool(model.get("byte_fallback"))
    types = [_type(token_id, names, added, model, spm=spm) for token_id in range(size)]
    if not spm:
        pre = _pre(path, document["pre_tokenizer"])
        return Vocabulary("gpt2", pre, tokens, types, None, merges, space_prefix=False)
    ranks = {"".join(merge.split(" ")): -float(rank) for rank, merge in enumerate(merges)}
    scores = [ranks.get(text, -1e6 if kind == _NORMAL else 0.0) for text, kind in zip(tokens, types, strict=True)]
    return Vocabulary("llama", None, tokens, types, scores, None, space_prefix=_prefixes(document))


def _type(
    token_id: int, names: Mapping[int, str], added: Mapping[int, Any], model: Mapping[str, Any], *, spm: bool
) -> int:
    if token_id not in names:
        return _UNUSED
    if spm and names[token_id] == model.get("unk_token"):
        return _UNKNOWN
    if token_id in added:
        return _CONTROL if added[token_id].get("special") else _USER
    text = names[token_id]
    return _BYTE if spm and len(text) == len("<0x00>") and text.startswith("<0x") else _NORMAL


def _pre(path: Path, splitter: Any) -> str:
    """llama.cpp's name for how text is split before it is merged."""
    parts = splitter.get("pretokenizers", [splitter]) if isinstance(splitter, dict) else []
    kinds = [part.get("type") for part in parts]
    if kinds == ["ByteLevel"] and parts[0].get("use_regex", True):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and parts[0].get("individual_digits"):
        return "smollm"
    pattern = parts[0].get("pattern", {}).get("Regex") if kinds == ["Split", "ByteLevel"] else None
    if pattern not in _PATTERNS:
        raise ModelFileError(f"{path} splits text in a way that llama.cpp does not support.", hint=_HINT)
    return _PATTERNS[pattern]


def _prefixes(document: Mapping[str, Any]) -> bool:
    """Whether a text gets a space before it."""
    steps = (document.get("normalizer") or {}).get("normalizers", [document.get("normalizer") or {}])
    splitter = document.get("pre_tokenizer") or {}
    return any(step.get("prepend") == _SPACE for step in steps) or splitter.get("prepend_scheme") in ("first", "always")
