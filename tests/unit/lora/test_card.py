"""Cards come with adapters from anywhere: what is usable in them is used, and nothing else breaks."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.errors import DataError
from agentlab.lora.card import CARD_FILE, Card, content_hash, read_card
from tests.unit.lora.folders import deltas, write_folder

WHOLE = {
    "name": "analyst",
    "base": {"path": "models/base", "fingerprint": "sha256:ab", "precision": "bf16"},
    "data": {
        "path": "a.jsonl",
        "sha256": "cd",
        "conversations": 60,
        "held_out": 6,
        "supervised_tokens": 900,
        "system": "Be terse.",
    },
    "lora": {"r": 16, "targets": ["q_proj"]},
    "metrics": {"loss_before": 3.5, "eval_loss": 2, "best_step": 40, "steps": 50},
    "seed": 3,
    "unheard of": {"deep": [1]},
}

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def test_what_training_writes_is_read(tmp_path: Path) -> None:
    (tmp_path / CARD_FILE).write_text(json.dumps(WHOLE))
    card = read_card(tmp_path)
    assert (card.base.precision, card.data.conversations, card.metrics.eval_loss) == ("bf16", 60, 2.0)
    assert card.facts()["lora.targets"] == '["q_proj"]'
    assert card.facts()["metrics.loss_before"] == "3.5"
    assert (card.data.held_out, card.metrics.best_step) == (6, 40)


def test_a_blend_shows_its_parents() -> None:
    card = Card.model_validate({"parents": [{"name": "a", "sha256": "0" * 64, "weight": 0.6}, "nonsense"]})
    assert card.facts() == {"parent 1": "a, 000000000000, 0.6", "parent 2": ""}


def test_no_card_is_an_empty_card(tmp_path: Path) -> None:
    assert read_card(tmp_path) == Card()
    assert Card().facts() == {}


@pytest.mark.parametrize("text", ["", "[1]", '{"name": ', "[" * 100_000, '{"a": "' + "x" * (2 << 20) + '"}'])
def test_what_is_no_card_is_said(tmp_path: Path, text: str) -> None:
    (tmp_path / CARD_FILE).write_text(text)
    with pytest.raises(DataError, match=r"Cannot read .*card\.json"):
        read_card(tmp_path)


@given(st.dictionaries(st.sampled_from([*WHOLE, "parents", "blend", "training", "versions", "run"]), _json))
def test_any_key_may_be_of_another_kind(content: dict[str, Any]) -> None:
    card = Card.model_validate(content)
    assert all(isinstance(value, str) for value in card.facts().values())
    json.dumps(card.model_dump(mode="json"), allow_nan=False)


def test_the_hash_belongs_to_the_content_and_not_to_the_name(tmp_path: Path) -> None:
    first, same = (write_folder(tmp_path / name, deltas(1)) for name in "ab")
    different = write_folder(tmp_path / "c", deltas(2))
    assert content_hash(first) == content_hash(same) != content_hash(different)
