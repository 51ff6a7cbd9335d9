"""Carries recipes out on a real model: cut, recover, quantize, export; then measures the file in its runtime."""

from pathlib import Path

from agentlab.compress.config import CompressConfig
from agentlab.compress.objective import Workshop
from agentlab.runs.context import Context
from agentlab.runs.run import Run


def open_workshop(
    config: CompressConfig, base: Path, source: Path | None, run: Run, context: Context, threads: int
) -> Workshop:
    """Load the base."""
    raise NotImplementedError
