"""The run that a rerun begins with, and what of it is taken over."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agentlab.config.load import load_resolved
from agentlab.errors import RunMismatchError, UnknownNameError
from agentlab.pipeline import graph
from agentlab.pipeline.branches.trace import stage_of
from agentlab.pipeline.config import PipelineConfig
from agentlab.pipeline.stage_config import Stage
from agentlab.runs.events import Event
from agentlab.runs.journal import read_events


@dataclass(frozen=True, slots=True)
class Parent:
    """`inherited` are the parent's events of the stages that do not follow from the first one that runs again."""

    run: str
    path: Path
    inherited: tuple[Event, ...]


def parent_of(config: PipelineConfig, env: Mapping[str, str]) -> Parent:
    """The parent of a config with a `branch`.

    Raises:
        UnknownNameError: there is no such stage.
        RunMismatchError: a stage that is taken over was changed.
        ConfigError, RunUnreadableError: the parent cannot be read.
    """
    assert config.branch is not None
    path = Path(config.branch.run)
    again = following(config.stages, config.branch.stage)
    before = load_resolved(PipelineConfig, path / "config.yaml", (), env=env)
    check_unchanged(before, config, config.branch.stage)
    events = read_events(path / "events.jsonl")
    return Parent(path.name, path, tuple(event for event in events if stage_of(event.id) not in again))


def following(stages: Sequence[Stage], first: str) -> frozenset[str]:
    """The stage and everything that depends on it: through `input_from`, a template, or a loop they share.

    Raises:
        UnknownNameError: there is no such stage.
    """
    names = [stage.id for stage in stages]
    if first not in names:
        raise UnknownNameError("stage", first, names)
    read, looped = graph.sources(stages), graph.blocks(stages)
    found = {first}
    for _ in stages:
        for stage in stages:
            same = {s.id for s in stages if s.id in looped and looped.get(s.id) == looped.get(stage.id)}
            if found & ({*read[stage.id]} | graph.mentioned(stage) | same):
                found.add(stage.id)
    return frozenset(found)


def check_unchanged(parent: PipelineConfig, child: PipelineConfig, first: str) -> None:
    """See that a rerun changes nothing before its first stage.

    Raises:
        RunMismatchError: it does; the stage that was changed is the one to begin with.
    """
    again = following(child.stages, first)
    before = {stage.id: stage for stage in parent.stages}
    for stage in child.stages:
        if stage.id not in again and before.get(stage.id) != stage:
            raise RunMismatchError(
                f"{stage.id} was changed, but the rerun begins with {first}, which comes later.",
                hint=f"Begin with it: --from {stage.id}.",
            )
