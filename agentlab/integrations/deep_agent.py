"""The steps of an agent in Python, see `agentlab.compress.deep_agent`, and its experiments in MLflow."""

import os
from pathlib import Path
from typing import Any

from agentlab.compress import enable_deep_agent_workflow
from agentlab.compress.deep_agent import (
    CompressionConfig,
    CompressionDeepAgent,
    compare_models,
    configure_lora,
    create_compression_deep_agent,
    estimate_distillation,
    estimate_lora_impact,
    get_best_config,
    load_peft_model,
    query_experiments,
    setup_distillation,
)
from agentlab.session import surroundings

__all__ = [
    "CompressionConfig",
    "CompressionDeepAgent",
    "compare_models",
    "configure_lora",
    "create_compression_deep_agent",
    "enable_deep_agent_workflow",
    "estimate_distillation",
    "estimate_lora_impact",
    "get_best_config",
    "load_peft_model",
    "log_experiment",
    "query_experiments",
    "setup_distillation",
]


def log_experiment(run: str, store: str | Path | None = None) -> Any:
    """Log a finished run and its trials to MLflow, once; see `agentlab runs mlflow log`. Needs the extra `mlflow`."""
    from agentlab.integrations.mlflow import log_run
    from agentlab.runs.store import find

    workspace = surroundings(os.environ, Path.cwd()).workspace
    return log_run(find(workspace.runs, run), str(store or workspace.state / "mlflow.db"))
