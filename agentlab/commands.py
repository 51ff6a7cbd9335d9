"""The commands that run experiments: a table of import strings, so that naming them costs nothing."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from agentlab.errors import UnknownNameError
from agentlab.plugins import imported

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pydantic import BaseModel

    from agentlab.runs.comparability import Basis
    from agentlab.runs.context import Context
    from agentlab.runs.document import AnswerDocument
    from agentlab.runs.events import Event, Narration
    from agentlab.runs.run import OpenRun, RunOutcome


class Experiment(Protocol):
    """A checked experiment, ready to start or to be gone on with. Preparing it reads but writes nothing."""

    def plan(self) -> "AnswerDocument": ...

    def run(self, run: "OpenRun") -> tuple["AnswerDocument", "RunOutcome"]: ...


class Reviewable(Protocol):
    """An experiment that shows a person each proposal before it costs anything; see `study.steps.Reviewer`."""

    reviewer: Any


class Prepare(Protocol):
    """Checks data, keys, model files, all that can be checked before anything is written, and raises what is wrong."""

    def __call__(self, config: Any, context: "Context") -> Experiment: ...


class TakePart(Protocol):
    """What the processes that a launcher started beside a run's owner do once `begin` returns. They write nothing."""

    def __call__(self, run: "Path", begin: "Callable[[], object]", context: "Context") -> None: ...


class Narrate(Protocol):
    """Turns an event into what the screen shows, None if nobody needs to see it. Pure."""

    def __call__(self, event: "Event") -> "Narration | None": ...


def wait(run: "Path", begin: "Callable[[], object]", context: "Context") -> None:
    """Take no part: the owner of the run works alone."""


@dataclass(frozen=True, slots=True)
class Command:
    """One capability. Each part is `module:name` and imported when asked for."""

    name: str
    config: str
    result: str
    prepare: str
    narrate: str
    settle: str | None = None  # a config of which a model or a person had to be asked something, answered; see `begin`
    foresee: str | None = None  # as `prepare`, for a dry run: without what takes long or holds anything
    take_part: str = "agentlab.commands:wait"
    reviewed: str | None = None  # of a run's events: whether its latest session asked a person before each trial
    details: str | None = None  # makes what tells with --debug what an event changes; it hears all of them

    def config_model(self) -> "type[BaseModel]":
        return imported(self.config)  # type: ignore[no-any-return] # what a string names is known at run time

    def result_model(self) -> "type[AnswerDocument]":
        return imported(self.result)  # type: ignore[no-any-return] # as above

    def prepare_function(self, *, planning: bool = False) -> Prepare:
        """What checks an experiment before it begins; with `planning` it will only be told."""
        return imported(self.foresee if planning and self.foresee else self.prepare)  # type: ignore[no-any-return] # as above

    def settled(self, config: Any, context: "Context") -> Any:
        return imported(self.settle)(config, context) if self.settle else config

    def narrate_function(self) -> Narrate:
        return imported(self.narrate)  # type: ignore[no-any-return] # as above

    def was_reviewed(self, events: "Sequence[Event]") -> bool:
        return bool(self.reviewed and imported(self.reviewed)(events))

    def details_function(self) -> "Callable[[Event], str | None]":
        """What the log of --debug says of an event; it remembers those before. None: nothing."""
        return imported(self.details)() if self.details else lambda _: None

    def take_part_function(self) -> TakePart:
        return imported(self.take_part)  # type: ignore[no-any-return] # as above

    def basis(self) -> "Basis":
        """What two of its runs must share for their figures to be compared: MEASURED, beside its config."""
        return imported(f"{self.config.partition(':')[0]}:MEASURED")  # type: ignore[no-any-return] # as above


COMMANDS: dict[str, Command] = {
    command.name: command
    for command in (
        Command(
            name="nas",
            config="agentlab.nas.config:NasConfig",
            result="agentlab.nas.result:NasResult",
            prepare="agentlab.nas.run:prepare",
            narrate="agentlab.nas.study:narrate",
            reviewed="agentlab.study.narrate:is_reviewed",
            details="agentlab.study.narrate:Proposals",
        ),
        Command(
            name="pipeline",
            config="agentlab.pipeline.config:PipelineConfig",
            result="agentlab.pipeline.result:PipelineResult",
            prepare="agentlab.pipeline.run:prepare",
            foresee="agentlab.pipeline.run:foresee",
            narrate="agentlab.pipeline.result:narrate",
        ),
        Command(
            name="train-persona",
            config="agentlab.persona.config:PersonaConfig",
            result="agentlab.persona.result:PersonasResult",
            prepare="agentlab.persona.run:prepare",
            foresee="agentlab.persona.run:foresee",
            narrate="agentlab.persona.result:narrate",
            take_part="agentlab.persona.run:take_part",
        ),
        Command(
            name="debate",
            config="agentlab.debate.config:DebateConfig",
            result="agentlab.debate.result:DebateResult",
            prepare="agentlab.debate.run:prepare",
            foresee="agentlab.debate.run:foresee",
            narrate="agentlab.debate.result:narrate",
        ),
        Command(
            name="evolve",
            config="agentlab.evolve.config:EvolveConfig",
            result="agentlab.evolve.result:EvolveResult",
            prepare="agentlab.evolve.run:prepare",
            narrate="agentlab.evolve.result:narrate",
            details="agentlab.study.narrate:Proposals",
        ),
        Command(
            name="compress",
            config="agentlab.compress.config:CompressConfig",
            result="agentlab.compress.result:CompressResult",
            prepare="agentlab.compress.run:prepare",
            settle="agentlab.compress.goal_reader:settle",
            narrate="agentlab.compress.result:narrate",
            details="agentlab.study.narrate:Proposals",
        ),
        Command(
            name="llm-bench",
            config="agentlab.bench.config:BenchConfig",
            result="agentlab.bench.result:BenchResult",
            prepare="agentlab.bench.run:prepare",
            narrate="agentlab.bench.result:narrate",
        ),
    )
}


def command(name: str) -> Command:
    """The command of that name.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in COMMANDS:
        raise UnknownNameError("command", name, list(COMMANDS))
    return COMMANDS[name]
