"""The process that holds one checkpoint: `python -m agentlab.hf.worker PARENT_PID`; see `workers.chat_server`."""

import sys
from pathlib import Path
from typing import Any

from agentlab.workers import child
from agentlab.workers.chat_server import ChatServer, Decoder, Load


def _prepare() -> Load:
    from agentlab.hf import decoder

    def load(path: str, **fields: Any) -> Decoder:
        config = Path(path) / "config.json"
        if config.is_file() and b"quantization_config" not in config.read_bytes():
            # PEFT imports it although nothing is quantised, and torch's compiler with it: two seconds of an answer
            sys.modules["bitsandbytes"] = None  # type: ignore[assignment] # which says that it is not there
        return decoder.Decoder(path, **fields)

    return load


if __name__ == "__main__":
    ChatServer(child.attach(int(sys.argv[1])), _prepare).run()
