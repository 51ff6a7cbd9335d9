"""The process that holds one GGUF model: `python -m agentlab.gguf.worker PARENT_PID`; see `workers.chat_server`."""

import sys
from typing import Any

from agentlab.workers import child
from agentlab.workers.chat_server import ChatServer, Decoder


def _load(**fields: Any) -> Decoder:
    from agentlab.gguf import decoder

    return decoder.Decoder(**fields)


if __name__ == "__main__":
    ChatServer(child.attach(int(sys.argv[1])), _load).run()
