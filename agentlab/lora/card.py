"""The `card.json` beside an adapter: what it was made from.

Training and blending write it; it is read as a stranger's file, in which any key may be absent or of another kind.
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WrapValidator
from pydantic_core.core_schema import ValidatorFunctionWrapHandler

from agentlab.errors import DataError
from agentlab.files import open_file
from agentlab.lora.settings import CONFIG_FILE
from agentlab.runs.atomic import read_text

CARD_FILE = "card.json"
_MOST_BYTES = 1 << 20
_MOST_ENTRIES = 64  # of a table of settings or parents
_LONGEST = 200  # characters of a setting's value


def _or_none(value: Any, read: ValidatorFunctionWrapHandler) -> Any:
    try:
        return read(value)
    except ValidationError:
        return None


def _or_empty(value: Any, read: ValidatorFunctionWrapHandler) -> Any:
    try:
        return read(value)
    except ValidationError:
        return read({})


def _as_texts(value: Any) -> dict[str, str]:
    entries = list(value.items())[:_MOST_ENTRIES] if isinstance(value, dict) else []
    return {str(key)[:_LONGEST]: _as_text(setting)[:_LONGEST] for key, setting in entries}


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _as_parents(value: Any) -> list[Any]:
    return value[:_MOST_ENTRIES] if isinstance(value, list) else []


_Text = Annotated[Annotated[str, Field(max_length=4096)] | None, WrapValidator(_or_none)]
_Number = Annotated[Annotated[float, Field(allow_inf_nan=False)] | None, WrapValidator(_or_none)]
_Count = Annotated[Annotated[int, Field(ge=0, lt=2**53)] | None, WrapValidator(_or_none)]
_Texts = Annotated[dict[str, str], BeforeValidator(_as_texts)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class CardBase(_Part):
    """The base model: where it lay, what its files come to, and the precision it was loaded in."""

    path: _Text = None
    fingerprint: _Text = None
    precision: _Text = None


class CardData(_Part):
    """What it was trained on; `system` is the system message of most conversations."""

    path: _Text = None
    sha256: _Text = None
    conversations: _Count = None
    held_out: _Count = None
    supervised_tokens: _Count = None
    system: _Text = None


class CardMetrics(_Part):
    """Losses on held-out conversations, of the base and of the adapter, which is that of the best step."""

    loss_before: _Number = None
    eval_loss: _Number = None
    best_step: _Count = None
    steps: _Count = None


class CardParent(_Part):
    """An adapter that was blended; `sha256` is its `content_hash`."""

    name: _Text = None
    sha256: _Text = None
    weight: _Number = None


class CardBlend(_Part):
    """How parents were combined, and the share of the result's energy that fitted into its rank."""

    method: _Text = None
    rank: _Count = None
    density: _Number = None
    seed: _Count = None
    kept: _Number = None


class Card(_Part):
    """What is known of an adapter's making; what is not, is None or empty."""

    name: _Text = None
    base: Annotated[CardBase, WrapValidator(_or_empty)] = CardBase()
    data: Annotated[CardData, WrapValidator(_or_empty)] = CardData()
    lora: _Texts = {}
    training: _Texts = {}
    metrics: Annotated[CardMetrics, WrapValidator(_or_empty)] = CardMetrics()
    versions: _Texts = {}
    parents: Annotated[
        list[Annotated[CardParent, WrapValidator(_or_empty)]], BeforeValidator(_as_parents), Field(strict=False)
    ] = []
    blend: Annotated[CardBlend, WrapValidator(_or_empty)] = CardBlend()
    run: _Text = None
    seed: _Count = None

    def facts(self) -> dict[str, str]:
        """What is known, flat: `metrics.eval_loss` -> text."""
        facts: dict[str, str] = {}
        for key, value in self.model_dump(exclude={"parents"}, exclude_none=True).items():
            if isinstance(value, dict):
                facts.update({f"{key}.{inner}": _as_text(setting) for inner, setting in value.items()})
            else:
                facts[key] = _as_text(value)
        for number, parent in enumerate(self.parents, 1):
            details = (parent.name, parent.sha256 and parent.sha256[:12], parent.weight)
            facts[f"parent {number}"] = ", ".join(str(detail) for detail in details if detail is not None)
        return facts


def read_card(folder: Path) -> Card:
    """The card of an adapter folder; an empty one where there is none.

    Raises:
        DataError: it is no JSON object, or cannot be read.
    """
    path = folder / CARD_FILE
    if not path.is_file():
        return Card()
    try:
        document = json.loads(read_text(path, _MOST_BYTES))
        if not isinstance(document, dict):
            raise ValueError("not a JSON object")
        return Card.model_validate(document)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"Cannot read {path}: {str(error)[:200]}.", hint="Delete it; the adapter works without its card."
        ) from error


def content_hash(folder: Path) -> str:
    """SHA-256 over config and weights of an adapter folder: the same for a copy under another name."""
    from agentlab.lora.reading import WEIGHTS_FILE

    digest = hashlib.sha256()
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        with open_file(folder / name) as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
