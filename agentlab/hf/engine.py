"""The engine that runs a checkpoint of transformers in a worker process.

torch takes hundreds of megabytes and seconds to import, and want of memory ends a process: both happen in the worker.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentlab import machine
from agentlab.errors import MissingFileError
from agentlab.workers import exit_status, memory
from agentlab.workers.chat_process import ChatProcess, ChatWorker

CALLS = 64  # at a time; the worker lets in what fits into the memory, in their order


@dataclass(frozen=True, slots=True)
class HfConfig:
    """How a model is loaded. `dtype` "auto" is the type that its weights are stored in; `threads` change last bits."""

    path: Path
    dtype: str = "auto"
    threads: int = 1
    load_seconds: float = 300.0


def _explain_death(status: int, log: str) -> tuple[str, str | None]:
    cause, hint = exit_status.describe(status)
    memory_hint = (
        "Try again; if it dies again, send fewer requests at once, use a smaller model, or close other programs."
    )
    return cause, memory_hint if hint is None or memory.ran_out(RuntimeError(log)) else hint


class HfEngine(ChatProcess):
    """A `ChatEngine` for one checkpoint, with an adapter for each answer. Schemas are not enforced."""

    def __init__(self, config: HfConfig) -> None:
        """Nothing is started or read before the first call."""

        def load(_: Callable[[], bool]) -> dict[str, Any]:
            if not config.path.is_dir():
                raise MissingFileError(
                    f"The folder {config.path} does not exist.", hint="`agentlab models list` shows all models."
                )
            return {"path": str(config.path.absolute()), "dtype": config.dtype, "threads": config.threads}

        super().__init__(
            ChatWorker(
                name=config.path.name,
                module="agentlab.hf.worker",
                # without the last, a local checkpoint would be looked up on the network as well
                variables={**machine.worker_environment(config.threads), "HF_HUB_OFFLINE": "1"},
                load=load,
                load_seconds=config.load_seconds,
                death=_explain_death,
                calls=CALLS,
            )
        )
