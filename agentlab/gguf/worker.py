"""The process that holds one GGUF model: `python -m agentlab.gguf.worker PARENT_PID`; see `workers.chat_server`."""

import contextlib
import importlib
import sys
from pathlib import Path
from typing import Any

from agentlab.gguf.engine import EngineConfig
from agentlab.workers import child
from agentlab.workers.chat_server import ChatDecoder, ChatServer, Load


def _prepare() -> Load:
    from agentlab.gguf import decoder

    with contextlib.suppress(ImportError, OSError, RuntimeError):  # the first load says what is wrong with the library
        importlib.import_module("agentlab.gguf.native")

    def load(path: str, adapter: str | None = None, **fields: Any) -> ChatDecoder:
        return decoder.GgufDecoder(EngineConfig(Path(path), adapter=Path(adapter) if adapter else None, **fields))

    return load


if __name__ == "__main__":
    ChatServer(child.attach(int(sys.argv[1])), _prepare).run()
