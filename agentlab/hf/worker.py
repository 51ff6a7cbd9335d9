"""The process that holds one checkpoint: `python -m agentlab.hf.worker PARENT_PID`; see `workers.chat_server`."""

import sys

from agentlab.workers import child
from agentlab.workers.chat_server import ChatServer, Load


def _prepare() -> Load:
    from agentlab.hf import decoder

    return decoder.HfDecoder


if __name__ == "__main__":
    ChatServer(child.attach(int(sys.argv[1])), _prepare).run()
