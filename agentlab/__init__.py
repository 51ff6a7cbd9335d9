"""agentlab: LLM agents that run model-improvement experiments, each with its own control."""

__version__ = "0.1.0"
