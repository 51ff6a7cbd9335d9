"""Compression of language models for real, within a budget of energy. Light to import.

    from agentlab.compress import run_compression_optimization

    found = run_compression_optimization("smollm2-135m", "smallest with < 5 % loss", carbon_budget="1g")
    found.result.models[0].winner

What an agent does of it step by step, and its tools alone, is in `deep_agent`; these names are here, too.
"""

from typing import Any

from agentlab.compress.api import enable_deep_agent_workflow, run_compression_optimization

__all__ = ["enable_deep_agent_workflow", "run_compression_optimization"]


_STEPS = frozenset(
    """CompressionConfig CompressionDeepAgent compare_models configure_lora create_compression_deep_agent
    estimate_distillation estimate_lora_impact get_best_config load_peft_model query_experiments
    setup_distillation""".split()  # noqa: SIM905 - a line for each would be no clearer
)


def __getattr__(name: str) -> Any:
    if name in _STEPS:
        from agentlab.compress import deep_agent  # loads what a search needs

        return getattr(deep_agent, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
