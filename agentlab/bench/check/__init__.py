"""Whether models answer at all, and which role suits which."""

from agentlab.bench.check.asking import LLMTestRunner

__all__ = ["LLMTestRunner"]
