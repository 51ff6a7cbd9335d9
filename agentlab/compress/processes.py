"""Several bases side by side, each in a process of its own: `python -m agentlab.compress.processes PARENT_PID`.

The parent writes the events of all, and knows what all have spent. Both speak JSON lines:

    {"config": {...}, "name": "...", "base": "...", "folder": "...", "file": null, "run": "...", "root": "...",
     "cache": "...", "keys": {...}, "threads": 1, "grams": 400.0, "others": {...}}           first, once
    {"seconds": 0.0, "joules": 0.0, "grams": 0.0}                                         answers spent: by others

    {"event": "emit", "type": "trial.finished", "id": "name/run_0000", "data": {...}}     any number
    {"event": "stream", "type": "stage.began", "id": "recover", "data": {}}               any number
    {"event": "spent", "stage": "recover", "cost": {...}}                                 every two seconds of work
    {"event": "done"}                                                                     ends the process
    {"event": "error", "kind": "ModelFileError", "message": "...", "hint": null}          ends the process
"""

import json
import queue
import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

from agentlab import machine
from agentlab.compress.agent import open_agent_router
from agentlab.compress.base_compression import CompressPart, open_workshop
from agentlab.compress.config import CompressConfig
from agentlab.compress.experiment_memory import known_rate, memory_of
from agentlab.compress.meter import CompressCost, Meter, best_source
from agentlab.compress.result import SPENT, charges
from agentlab.config.secrets import key_names
from agentlab.config.trust import TRUST
from agentlab.config.workspace import Workspace
from agentlab.errors import AgentlabError, WorkerDiedError
from agentlab.llm.recorder import CALLED, RunRecorder
from agentlab.models.base_model import BaseFile
from agentlab.runs.context import Context
from agentlab.runs.events import Event
from agentlab.runs.journal import read_events
from agentlab.runs.run import OpenRun, RunEnvironment
from agentlab.workers import child, exit_status, faults
from agentlab.workers.channel import Channel, wait_for_any

_POLL_SECONDS, _SEND_SECONDS = 0.1, 20.0


def search_side_by_side(
    parts: list[CompressPart], config: CompressConfig, context: Context, grams: float, *, together: int, threads: int
) -> None:
    """Search all bases, so many at a time, with so many threads each.

    `context`: of the run; a signal ends all processes. `grams`: of CO2 a kWh.

    Raises:
        Interrupted: a signal asked to stop.
        BudgetExceededError: the budget is spent; nobody works any more.
        WorkerDiedError: a process died, or could not be started.
        AgentlabError: what the work on a base raised, under its own class.
    """
    run, workspace, shared = parts[0].run, context.workspace, config.model_dump(mode="json")
    shared["llm"]["budget"]["per_run_usd"] /= len(parts)  # each process has its own way to the models
    common = {"config": shared, "keys": _keys(config, context.env), "threads": threads, "grams": grams}
    common |= {"run": str(run.path), "root": str(workspace.root), "cache": str(workspace.cache)}
    waiting, working = deque(parts), dict[str, Channel]()
    try:
        while waiting or working:
            context.stop.check()
            while waiting and len(working) < together:
                part = waiting.popleft()
                working[part.name] = _start_worker(threads)
                _send(part.name, {**common, **_about(part), "others": _other_costs(run, part.name)}, working)
            for name in list(working):
                _listen(run, name, working)
            wait_for_any(working.values(), _POLL_SECONDS)
    finally:
        for channel in working.values():
            channel.kill()
        for channel in working.values():
            channel.dispose()


def _keys(config: CompressConfig, env: Mapping[str, str]) -> dict[str, str]:
    """What the config names of the environment: a worker is told on its pipe, for its own environment can be read."""
    names = [*key_names(config.llm.model_dump(mode="json")), TRUST]
    return {name: env[name] for name in names if name in env}


def _about(part: CompressPart) -> dict[str, str | None]:
    base = part.base
    file = None if base.file is None else str(base.file)
    return {"name": part.name, "base": base.name, "folder": str(base.path), "file": file}


def _start_worker(threads: int) -> Channel:
    try:
        return Channel(__name__, machine.worker_environment(threads))
    except OSError as error:
        raise WorkerDiedError(f"Cannot start a process: {error.strerror or error}.") from error


def _other_costs(run: OpenRun, name: str) -> dict[str, float]:
    """What all but one of the bases have cost, and what was before them."""
    return asdict(sum((cost for base, _, cost in charges(run.events) if base != name), CompressCost()))


def _send(name: str, message: Mapping[str, Any], working: dict[str, Channel]) -> None:
    """Write to a worker. One that is gone, or does not read, is found dead when it is listened to."""
    try:
        if not working[name].send(message, _SEND_SECONDS):
            working[name].kill()
    except EOFError:
        working[name].kill()


def _listen(run: OpenRun, name: str, working: dict[str, Channel]) -> None:
    try:
        while message := working[name].receive(0):
            kind = message["event"]
            if kind == "done":
                working.pop(name).dispose()
                return
            if kind == "error":
                raise faults.from_message(message)
            if kind == "spent":
                run.emit(SPENT, message["stage"], base=name, **message["cost"])
                _send(name, _other_costs(run, name), working)
            else:
                tell = run.emit if kind == "emit" else run.stream
                tell(message["type"], message["id"], **message["data"])
    except EOFError:
        status, log = working.pop(name).dispose()
        cause, hint = exit_status.describe(status)
        description = f"The process compressing {name} died: {cause}.\n{exit_status.last_words(log)}"
        raise WorkerDiedError(description.strip(), hint=hint) from None


class _RunOfParent(OpenRun):
    """The run as a worker sees it: events go to the process that holds the folder."""

    def __init__(self, path: Path, name: str, pipes: child.Pipes) -> None:  # no super: the folder is open already
        self.path, self._edge, self._pipes = path, RunEnvironment(), pipes
        recorded = read_events(path / "events.jsonl")  # what others asked models is not paid from this one's share
        self._known_events = [event for event in recorded if event.type != CALLED or event.id.startswith(f"{name}/")]

    @property
    def events(self) -> list[Event]:
        return self._known_events

    def emit(self, type: str, id: str = "", **data: Any) -> Event:  # noqa: A002 - the field's name in the file
        self._pipes.reply({"event": "emit", "type": type, "id": id, "data": data})
        self._known_events.append(Event(len(self._known_events), time.time(), type, id, data))
        return self._known_events[-1]

    def stream(self, type: str, id: str = "", **data: Any) -> None:  # noqa: A002 - the field's name in the file
        self._pipes.reply({"event": "stream", "type": type, "id": id, "data": data})


def _serve(pipes: child.Pipes) -> None:
    """The worker's side: the search runs on a thread, behind the one that listens."""
    messages: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def work() -> None:
        try:
            _search(messages.get(), pipes, messages)
        except AgentlabError as error:
            pipes.reply({"event": "error", **faults.as_message(error)})
        else:
            pipes.reply({"event": "done"})

    pipes.serve(messages.put, work)


def _search(request: Mapping[str, Any], pipes: child.Pipes, messages: "queue.SimpleQueue[dict[str, Any]]") -> None:
    config = CompressConfig.model_validate_json(json.dumps(request["config"]))
    name, threads = request["name"], request["threads"]
    run = _RunOfParent(Path(request["run"]), name, pipes)
    context = Context(Workspace(Path(request["root"]), Path(request["cache"])), request["keys"])
    base = BaseFile(request["base"], Path(request["folder"]), file=request["file"] and Path(request["file"]))
    part = CompressPart(run, base, name, config, memory_of(config, context.workspace))

    def record(stage: str, cost: CompressCost) -> None:
        pipes.reply({"event": "spent", "stage": stage, "cost": asdict(cost)})
        meter.others = CompressCost(**messages.get())

    before = [(stage, cost) for owner, stage, cost in charges(run.events) if owner == name]
    usual, joules = known_rate(config, base, context.workspace), best_source(config.energy.watts).joules
    meter = Meter(joules, request["grams"], config.budget.limits, before, record, usual=usual)
    meter.others = CompressCost(**request["others"])
    with machine.torch_threads(threads), open_agent_router(config, context, RunRecorder(run)) as router:
        workshop = cache(partial(open_workshop, part, config, context, threads, meter))
        part.open_search(workshop, meter, context.stop.check, router).run()


if __name__ == "__main__":
    _serve(child.attach(int(sys.argv[1])))
