"""The engine that runs a GGUF model in a worker process.

llama.cpp is not thread-safe, cannot be stopped while it reads a prompt, and some of its faults end the process: here
they end the worker.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from agentlab import machine
from agentlab.errors import MissingFileError
from agentlab.gguf import worker_errors
from agentlab.gguf.engine import EngineConfig
from agentlab.gguf.trusted_settings import Proofs, name_of, plain
from agentlab.workers.chat_process import ChatProcess, ChatWorker
from agentlab.workers.exit_status import describe


class WorkerEngine(ChatProcess):
    """A `ChatEngine` for one GGUF file."""

    def __init__(self, config: EngineConfig, proofs: Proofs | None = None) -> None:
        """Nothing is started or read before the first call. Without `proofs` the config is taken at its word."""
        self._config, self._proofs = config, proofs
        self.used = config  # how it is loaded
        super().__init__(
            ChatWorker(
                name=config.path.name,
                module="agentlab.gguf.worker",
                variables={**machine.worker_environment(config.threads), "GGML_NO_BACKTRACE": "1"},
                load=self._fields,
                load_seconds=config.load_seconds,
                death=self._explain_death,
            )
        )

    def _fields(self, cancelled: Callable[[], bool]) -> dict[str, Any]:
        config = self._config
        if config.adapter is not None and not config.adapter.is_file():
            raise MissingFileError(
                f"The adapter file {config.adapter} does not exist.",
                hint="Create one with `agentlab adapters export NAME --format gguf --out NAME.gguf`.",
            )
        if not config.path.is_file():
            raise MissingFileError(
                f"The model file {config.path} does not exist.",
                hint="`agentlab models list` shows the models on this machine; `agentlab models pull smollm2-135m` "
                "downloads the embedded model.",
            )
        self.used = config if self._proofs is None else self._proofs.settle(config, cancelled)
        adapter = None if config.adapter is None else str(config.adapter.absolute())
        fields = asdict(self.used) | {"path": str(config.path.absolute()), "adapter": adapter}
        del fields["load_seconds"]
        return fields

    def _explain_death(self, status: int, log: str) -> tuple[str, str | None]:
        cause, hint = describe(status, worker_errors.CAUSES)
        if self._proofs is None or self.used == plain(self.used) or not (signal := worker_errors.fault(status, log)):
            return cause, hint
        self._proofs.distrust(self.used, f"it died in use ({signal})")
        return cause, f"Try again: the engine used {name_of(self.used)}, and will use plain settings from now on."
