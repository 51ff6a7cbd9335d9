"""Whether models answer at all, and which role suits which."""

from agentlab.bench.check.runner import LLMTestRunner

__all__ = ["LLMTestRunner"]
