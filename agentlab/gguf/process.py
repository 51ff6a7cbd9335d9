"""The engine that runs a GGUF model in a worker process.

llama.cpp is not thread-safe, cannot be stopped while it reads a prompt, and some of its faults end the process: here
they end the worker.
"""

from dataclasses import asdict

from agentlab import machine
from agentlab.errors import MissingFileError
from agentlab.gguf import deaths
from agentlab.gguf.engine import EngineConfig
from agentlab.workers.chat_process import ChatProcess, ChatWorker


class WorkerEngine(ChatProcess):
    """A `ChatEngine` for one GGUF file."""

    def __init__(self, config: EngineConfig) -> None:
        """Nothing is started or read before the first call."""

        def check() -> None:
            if config.adapter is not None and not config.adapter.is_file():
                raise MissingFileError(
                    f"There is no adapter file {config.adapter}.",
                    hint="`agentlab adapters export NAME --format gguf` makes one.",
                )
            if not config.path.is_file():
                raise MissingFileError(
                    f"There is no model file {config.path}.",
                    hint="`agentlab models list` shows what is there; `agentlab models pull smollm2-135m` brings the "
                    "embedded model.",
                )

        adapter = None if config.adapter is None else str(config.adapter.absolute())
        fields = asdict(config) | {"path": str(config.path.absolute()), "adapter": adapter}
        del fields["load_seconds"]
        super().__init__(
            ChatWorker(
                name=config.path.name,
                module="agentlab.gguf.worker",
                variables={**machine.worker_environment(config.threads), "GGML_NO_BACKTRACE": "1"},
                load=fields,
                load_seconds=config.load_seconds,
                check=check,
                death=deaths.describe,
            )
        )
