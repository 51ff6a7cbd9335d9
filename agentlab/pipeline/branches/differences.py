"""What differs between two questions, field by field, from the summaries that runs keep of them. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from agentlab.pipeline.branches.digest import shown
from agentlab.runs.document import Document

_MESSAGES = "messages"


class FieldChange(Document):
    """A field whose values differ; of a message, its role, hash and length. `reasons` say where its text is from."""

    field: str
    first: Any
    second: Any
    reasons: Sequence[str] = ()

    def told(self) -> str:
        """In one line: `temperature 0.7 → 0.2`, or `message 2 changed: …`."""
        if not self.field.startswith("message "):
            return f"{self.field} {shown(self.first)} → {shown(self.second)}"
        if self.first is None or self.second is None:
            said = f"{self.field} is {'new' if self.first is None else 'gone'}"
        else:
            said = f"{self.field} changed"
        return f"{said}: {' and '.join(self.reasons)}" if self.reasons else said


def field_changes(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[FieldChange]:
    """The fields of two `Asked.summary()` that differ; messages are counted from 1."""
    a, b = _flat(first), _flat(second)
    return [
        FieldChange(field=field, first=a.get(field), second=b.get(field))
        for field in dict.fromkeys((*a, *b))
        if a.get(field) != b.get(field)
    ]


def _flat(summary: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in summary.items():
        if name == _MESSAGES and isinstance(value, list):
            continue  # last, after the short ones
        if isinstance(value, Mapping):
            flat |= {f"{name}.{key}": item for key, item in value.items()}
        else:
            flat[name] = value
    messages = summary.get(_MESSAGES)
    if isinstance(messages, list):
        flat |= {f"message {number}": message for number, message in enumerate(messages, 1)}
    return flat
