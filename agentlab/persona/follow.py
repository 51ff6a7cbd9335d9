"""What a process does that a launcher has started beside the one which owns the run: it trains along."""

from collections.abc import Callable
from pathlib import Path

from agentlab import machine
from agentlab.config.load import load_resolved
from agentlab.persona.config import PersonaConfig
from agentlab.persona.data import check_unchanged
from agentlab.persona.run import read_input, threads_of
from agentlab.runs.context import Context
from agentlab.runs.journal import read_events
from agentlab.train.config import TrainingJob


def take_part(run: Path, begin: Callable[[], object], context: Context) -> None:
    """Take part in the training of a run, from its config and its checkpoints. Nothing is written.

    Args:
        run: the folder of the run; its base has been imported.
        begin: called when everything is loaded; returns when the run's owner begins to train.
        context: of this process.

    Raises:
        Interrupted: this process or another one was stopped.
        AgentlabError: see `train_adapter`.
    """
    from agentlab.train.base import load_base
    from agentlab.train.sft import train_adapter

    def stopped() -> bool:
        return context.stop.requested

    config = load_resolved(PersonaConfig, run / "config.yaml", (), env=context.env)
    experiment = read_input(config, context)
    base = load_base(experiment.base.path, config.training.precision, config.training.attn_implementation)
    prepared = [
        (source.name, source.prepared(base.tokenizer, config, context.stop.check)) for source in experiment.sources
    ]
    begin()
    events = read_events(run / "events.jsonl")
    check_unchanged(experiment.sources, events)  # with what the owner has read
    with machine.torch_threads(threads_of(config, events)):
        for name, each in prepared:
            job = TrainingJob(config.lora, config.training, run / "personas" / name, config.seed, stopped=stopped)
            train_adapter(base, each.split, job)
