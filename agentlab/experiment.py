"""What the experiments do alike: ask language models within a run, fix threads, load a base, read what came before."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from agentlab import machine
from agentlab.llm.config import LLMConfig
from agentlab.llm.recorder import RunRecorder
from agentlab.models.base_model import BaseFile, import_base
from agentlab.runs.context import Context
from agentlab.runs.events import Event, first_event_data
from agentlab.runs.journal import read_events
from agentlab.runs.run import OpenRun

if TYPE_CHECKING:
    from agentlab.llm.router import Router

THREADS = "threads.chosen"


def open_router(
    llm: LLMConfig, context: Context, recorder: RunRecorder | None = None, *, in_callers_loop: bool = False
) -> "Router":
    """The router of a run, to be closed. With a recorder, what earlier sessions of the run spent counts."""
    from agentlab.llm.router import Router  # a second, and not every run asks a language model

    env, workspace, stop = context.env, context.workspace, context.stop
    return Router(llm, env=env, workspace=workspace, recorder=recorder, stop=stop, in_callers_loop=in_callers_loop)


def threads_of(given: int | None, events: Sequence[Event]) -> int:
    """Threads of a run: those that it was begun with, as they decide last bits, unless its config says otherwise."""
    return machine.threads(given or first_event_data(events, THREADS).get("count"))


@contextmanager
def fixed_threads(run: OpenRun, given: int | None) -> Iterator[int]:
    """Let torch compute with the threads of the run inside the `with` block; see `threads_of`."""
    threads = threads_of(given, run.events)
    run.emit_once(THREADS, count=threads)
    with machine.torch_threads(threads):
        yield threads


def ready_base(run: OpenRun, base: BaseFile) -> Path:
    """The checkpoint of the base, imported if it was not, as the screen is told; next it is loaded."""
    if base.source is not None:
        run.stream("base.importing", base.name)
    path = import_base(base)
    run.stream("base.loading", base.name)
    return path


def events_before(context: Context) -> Sequence[Event]:
    """Those of the run that goes on, before it is opened; none of a new one."""
    return () if context.resumed_run is None else read_events(context.resumed_run / "events.jsonl")
