"""An adapter added to its base model for good: a checkpoint of its own, read back and compared before it is named."""

import shutil
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch  # noqa: TID253 - reached lazily, when an adapter is merged

from agentlab import __version__, machine
from agentlab.errors import DataError, MissingFileError, UsageError
from agentlab.hf.checkpoint import loading, read_config
from agentlab.hf.fingerprint import fingerprint_of
from agentlab.lora.card import CARD_FILE, content_hash, read_card
from agentlab.lora.reading import Adapter
from agentlab.lora.writing import stage_folder
from agentlab.models.importer import Dtype
from agentlab.runs.atomic import write_json
from agentlab.runs.document import AnswerDocument, Block, Code, Table, Text, number
from agentlab.train.adapter_base import same_base
from agentlab.train.base import TrainingBase, load_base, quietly
from agentlab.train.config import Precision
from agentlab.train.shards import INDEX, Tell, check_fit, open_checkpoint, write_merged
from agentlab.workers.templates import render_chat

_MOST_TEXT = 100_000  # characters that a template makes of one of these prompts
QUANTISED = ("4bit", "8bit")  # precisions whose base is not the one that is merged into
PROMPTS = (
    "What is the capital of France?",
    "Write one sentence about the sea.",
    "Is 17 a prime number? Explain briefly.",
    "How do I make good decisions under uncertainty?",
)


@dataclass(frozen=True, slots=True)
class LogitDistance:
    """Logits of two models at every token of the prompts."""

    largest: float  # absolute difference of logits
    typical: float  # root mean square of these differences
    divergence: float  # mean Kullback-Leibler divergence of the next token, in nats
    agreement: float  # how often the likeliest next token is the same


class MergeResult(AnswerDocument):
    """A merged checkpoint, and how far its logits are from others on the probe prompts; None was not measured."""

    path: str
    adapter: str
    base: str
    fingerprint: str
    same_base: bool | None  # None where the adapter's card does not say
    dtype: str
    modules: int
    trained_precision: str | None
    computed_in: str | None  # fp32 or bf16, of the models compared; in fp32 only the rounding of the weights differs
    to_adapted: LogitDistance | None  # from the base and the adapter beside it
    to_base: LogitDistance | None  # from the base alone
    to_trained: LogitDistance | None  # from the adapter on the base as it was quantised for training

    def blocks(self) -> list[Block]:
        blocks: list[Block] = [
            Code(self.path),
            Text(f"Base: {self.base}, {self.fingerprint}; {self.modules} modules changed, saved as {self.dtype}."),
        ]
        compared = (
            ("base with the adapter", self.to_adapted),
            ("base", self.to_base),
            (f"base in {self.trained_precision} with the adapter", self.to_trained),
        )
        rows = [_row(name, distance) for name, distance in compared if distance is not None]
        if rows:
            columns = ("merged model compared with", "largest", "typical", "divergence", "same next token")
            caption = (
                f"Logit differences on probe prompts, computed in {self.computed_in}; divergence of the next "
                "token in nats"
            )
            blocks.append(Table(columns, rows, caption=caption))
        return [*blocks, *(Text(remark) for remark in self.remarks())]

    def remarks(self) -> Iterator[str]:
        if self.to_adapted is None:
            yield "The logits were not compared, because there is too little free memory to load the model."
        if self.same_base is False:
            yield "According to its card, the adapter was trained on a different base model."
        if self.same_base is None:
            yield "The adapter does not record its base model's files, so it is unknown whether this is the right one."
        if self.trained_precision in QUANTISED:
            measured = self.to_trained is not None
            yield (
                f"The adapter was trained on the base in {self.trained_precision}; merged into {self.dtype}, "
                "the model differs from the trained "
                f"one{'; the last row shows by how much' if measured else ''}."
            )


def _row(name: str, distance: LogitDistance) -> tuple[str, ...]:
    figures = map(number, (distance.largest, distance.typical, distance.divergence))
    return (name, *figures, f"{distance.agreement:.1%}")


_CONFIG = "config.json"
_BESIDE = (".json", ".txt", ".jinja", ".model", ".tiktoken")  # what lies beside weights and is small
_MOST_BESIDE = 256 << 20
_SLACK = 64 << 20
_ROOM = 1.3  # memory that a loaded model takes, as a multiple of its weights


def merge(
    adapter: Adapter, base: Path, out: Path, dtype: Dtype | None, tell: Tell, *, any_base: bool = False
) -> MergeResult:
    """Write the checkpoint folder `out`: the base with the adapter's change added, whole or not at all.

    Args:
        base: the checkpoint folder, in 16 or 32 bits.
        dtype: of the merged weights; None keeps the base's.
        tell: called before each tensor and each comparison.
        any_base: merge even if the card says that the adapter was trained on another base model.

    Raises:
        UsageError: `out` exists, or the base is another one than the card says.
        MissingFileError: the base has no config, weights or tokenizer.
        DataError: the base is quantised, or the adapter does not fit.
        ModelFileError: a file is damaged, or the merged model cannot be loaded.
        StorageError: too little space, or the folder cannot be written.
    """
    if out.exists() or out.is_symlink():
        raise UsageError(f"{out} already exists.", hint="Choose another name with --out, or delete the folder.")
    config, card = _config(base), read_card(adapter.path)
    checkpoint = open_checkpoint(base)
    check_fit(checkpoint, adapter, tied=config.get("tie_word_embeddings") is True)
    same = same_base(adapter.path, base, any_base=any_base)
    kind: torch.dtype = getattr(torch, dtype) if dtype else checkpoint.dtype
    target = kind if dtype else None
    with stage_folder(out, checkpoint.bytes(target) + _SLACK) as ready:
        write_merged(checkpoint, adapter, ready, target, tell)
        write_beside(base, ready, config, dtype)
        merge_result = MergeResult(
            path=str(out),
            adapter=str(adapter.path),
            base=str(base),
            fingerprint=fingerprint_of(base),
            same_base=same,
            dtype=str(kind).removeprefix("torch."),
            modules=len(adapter.modules),
            trained_precision=card.base.precision,
            **_compare(base, ready, adapter.path, checkpoint.weights, card.base.precision, tell),
        )
        write_json(ready / CARD_FILE, _card(out.name, adapter, merge_result))
    return merge_result


def _compare(base: Path, merged: Path, adapter: Path, weights: int, trained: str | None, tell: Tell) -> dict[str, Any]:
    """How far the merged model is from base and adapter, from the base, and from what was trained."""
    precision = _precision(weights)
    if precision is None:
        return {"computed_in": None, "to_adapted": None, "to_base": None, "to_trained": None}
    tell(0, 3, "comparing it with base and adapter")
    loaded = load_base(base, precision, "sdpa")  # first, so that what cannot be loaded is named by its own folder
    plain, adapted = logits(loaded), logits(loaded, adapter)
    del loaded
    tell(1, 3, "reading the merged model back")
    after = logits(load_base(merged, precision, "sdpa"))
    to_base, to_adapted = compare_logits(plain, after), compare_logits(adapted, after)
    to_trained = None
    if trained in QUANTISED:
        tell(2, 3, f"comparing it with the base in {trained}")
        quantised: Precision = "4bit" if trained == "4bit" else "8bit"
        to_trained = compare_logits(logits(load_base(base, quantised, "sdpa"), adapter), after)
    return {"computed_in": precision, "to_adapted": to_adapted, "to_base": to_base, "to_trained": to_trained}


def _precision(weights: int) -> Precision | None:
    """What so many weights fit into the memory in, float32 if possible; None if they do not."""
    available = (machine.gpu_memory() or machine.memory().available) / _ROOM
    if 4 * weights <= available:
        return "fp32"
    return "bf16" if 2 * weights <= available else None


def _config(base: Path) -> dict[str, Any]:
    """The base's config.json, if the base can be merged into."""
    if base.is_file():
        raise DataError(
            f"{base} is a file, but a merge needs a checkpoint folder.",
            hint="To make one from a GGUF file: agentlab models import",
        )
    if not (base / _CONFIG).is_file():
        raise MissingFileError(f"{base} is not a checkpoint folder: it has no {_CONFIG}.", hint="Pass one with --base.")
    if not any((base / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise MissingFileError(
            f"{base} has no tokenizer.", hint="Copy the base model's tokenizer files into the folder."
        )
    config = read_config(base)
    if config.get("quantization_config"):
        raise DataError(
            f"{base} is a quantised checkpoint.", hint="Merge into the 16- or 32-bit checkpoint it was made from."
        )
    return config


def write_beside(base: Path, target: Path, config: dict[str, Any], dtype: Dtype | None) -> None:
    """Config, tokenizer, template and generation settings."""
    if dtype:
        config = {**{key: value for key, value in config.items() if key != "torch_dtype"}, "dtype": dtype}
    for path in files_beside(base):
        shutil.copyfile(path, target / path.name)
    write_json(target / _CONFIG, config)


def files_beside(base: Path) -> list[Path]:
    """What goes along with the weights of a checkpoint folder: tokenizer, template, generation settings."""
    return [
        path
        for path in sorted(base.iterdir())
        if path.suffix in _BESIDE
        and path.is_file()
        and path.stat().st_size <= _MOST_BESIDE
        and path.name not in (_CONFIG, INDEX, CARD_FILE)
        and not path.name.startswith(".")
    ]


def _card(name: str, adapter: Adapter, merge_result: MergeResult) -> dict[str, Any]:
    return {
        "name": name,
        "merged": {"name": adapter.path.name, "sha256": content_hash(adapter.path)},
        "base": {"path": merge_result.base, "fingerprint": merge_result.fingerprint, "precision": merge_result.dtype},
        "logits": merge_result.model_dump(include={"computed_in", "to_adapted", "to_base", "to_trained"}),
        "versions": {"agentlab": __version__, "torch": torch.__version__},
    }


def compare_logits(first: Sequence[torch.Tensor], second: Sequence[torch.Tensor]) -> LogitDistance:
    """Compare two models by their logits, one tensor of shape (tokens, vocabulary) per prompt."""
    a, b = torch.cat(list(first)).double(), torch.cat(list(second)).double()
    p, q = a.log_softmax(-1), b.log_softmax(-1)
    return LogitDistance(
        largest=float((a - b).abs().max()),
        typical=float((a - b).square().mean().sqrt()),
        divergence=max(0.0, float((p.exp() * (p - q)).sum(-1).mean())),
        agreement=float((a.argmax(-1) == b.argmax(-1)).double().mean()),
    )


def logits(base: TrainingBase, adapter: Path | None = None) -> list[torch.Tensor]:
    """Logits on the prompts, (tokens, vocabulary) each, on the CPU: of a base alone, or with an adapter beside it.

    Raises:
        ModelFileError: PEFT cannot load the adapter, or the model cannot answer.
    """
    model_name = f"{base.path}{f' with {adapter}' if adapter else ''}"
    with loading(f"{model_name} cannot be run"), quietly(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT has opinions on every folder
        if adapter is None:
            return [_on_prompt(base.model, base.tokenizer, prompt) for prompt in PROMPTS]
        from peft import PeftModel

        wrapped: Any = PeftModel.from_pretrained(base.model, str(adapter))
        try:
            return [_on_prompt(wrapped.eval(), base.tokenizer, prompt) for prompt in PROMPTS]
        finally:
            wrapped.unload()


def _on_prompt(model: Any, tokenizer: Any, prompt: str) -> torch.Tensor:
    text, plain = prompt, tokenizer.chat_template is None
    if not plain:
        turns = [{"role": "user", "content": prompt}]
        text = render_chat(tokenizer, turns, prompt=True)
        if len(text) > _MOST_TEXT:
            raise DataError(
                f"The chat template expands a question of {len(prompt)} characters to {len(text):,}.",
                hint="Use the original chat template of the model.",
            )
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=plain)["input_ids"].to(model.device)
    with torch.inference_mode():
        token_logits: torch.Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
    return token_logits.float().cpu()
