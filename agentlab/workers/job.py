"""One piece of work in a process of its own: asked once, answered once, and gone."""

import queue
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from agentlab import machine
from agentlab.errors import AgentlabError, WorkerDiedError
from agentlab.workers import child, exit_status, faults
from agentlab.workers.channel import Channel

_POLL_SECONDS = 0.1
_SEND_SECONDS = 20.0


def run_job(
    module: str,
    request: Mapping[str, Any],
    action: str,
    *,
    check: Callable[[], None],
    threads: int,
    causes: exit_status.Causes | None = None,
) -> dict[str, Any]:
    """Ask a worker, and wait for its answer; however this ends, the process is gone.

    `module` calls `serve_job` where it is run; `action`: what it did, for the error of one that dies: `quantized X`;
    `check` is called ten times a second, and what it raises ends the work; `causes`: what signals mean there.

    Raises:
        WorkerDiedError: the process died, or could not be started.
        AgentlabError: what the work raised, under its own class.
    """
    try:
        channel = Channel(module, machine.worker_environment(threads))
    except OSError as error:
        raise WorkerDiedError(f"Cannot start a process: {error.strerror or error}.") from error
    answer: dict[str, Any] | None = None
    try:
        if channel.send(request, _SEND_SECONDS):
            while answer is None:
                check()
                answer = channel.receive(_POLL_SECONDS)
    except (EOFError, ValueError):
        answer = None
    finally:
        status, log = channel.dispose()
    if answer is None:
        cause, hint = exit_status.describe(status) if causes is None else exit_status.describe(status, causes)
        message = f"The process that {action} died: {cause}.\n{exit_status.last_words(log)}"
        raise WorkerDiedError(message.strip(), hint=hint)
    if "kind" in answer:
        raise faults.from_message(answer)
    return answer


def serve_job(work: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
    """The worker's side: `work` gets the request and returns the answer. Called on the main thread of a process."""
    requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    pipes = child.attach(int(sys.argv[1]))

    def once() -> None:
        try:
            answer = dict(work(requests.get()))
        except AgentlabError as error:
            answer = faults.as_message(error)
        pipes.reply(answer)
        time.sleep(_POLL_SECONDS)  # the parent reads it before the process is gone

    pipes.serve(requests.put, once)
