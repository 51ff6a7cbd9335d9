"""What an adapter's folder says of where it came from."""

from typing import TYPE_CHECKING, Any

from agentlab.persona.config import PersonaConfig
from agentlab.persona.data import Source
from agentlab.persona.result import PersonaResult
from agentlab.runs import provenance
from agentlab.runs.run import Run

if TYPE_CHECKING:
    from agentlab.train.base import Base

SCHEMA = 1


def card_of(config: PersonaConfig, source: Source, row: PersonaResult, base: "Base", run: Run) -> dict[str, Any]:
    """Plain data for `card.json`: enough to make the adapter again, and to know whether it fits a base."""
    return {
        "schema": SCHEMA,
        "name": row.name,
        "base": {"path": str(base.path), "fingerprint": base.fingerprint, "precision": base.precision},
        "data": {
            "path": str(source.data.learnt.path),
            "eval_path": None if source.data.held_out is None else str(source.data.held_out.path),
            **source.hashes,
            "conversations": row.conversations,
            "held_out": row.held_out,
            "supervised_tokens": row.supervised_tokens,
            "system": source.system,
        },
        "lora": config.lora.model_dump(mode="json"),
        "training": config.training.model_dump(mode="json"),
        "together": config.together,
        "metrics": {
            "loss_before": row.before,
            "eval_loss": row.eval_loss,
            "gain": None if row.gain is None else row.gain.model_dump(mode="json"),
            "best_step": row.best_step,
            "steps": row.steps,
        },
        "versions": provenance.versions(),
        "seed": config.seed,
        "run": run.id,
    }
