"""`agentlab train-persona`: checks the conversations, trains the adapters, compares them."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agentlab import machine
from agentlab.answers.choices import DECIDES
from agentlab.config.load import load_resolved
from agentlab.errors import Interrupted, RunMismatchError, UsageError
from agentlab.experiment import events_before, fixed_threads, threads_of
from agentlab.gguf import metadata
from agentlab.models.base_model import BaseFile, find_base, import_base
from agentlab.persona import data as conversations
from agentlab.persona.adapter_folder import (
    card_of,
    check_free,
    check_place,
    hold_folders,
    page_of,
    room_for,
    write_product,
)
from agentlab.persona.config import BASE_NAME, PersonaConfig
from agentlab.persona.data import CHECKED, PersonaPlan, PersonaSource, check_unchanged, plan_of, read_sources
from agentlab.persona.measure import (
    HeldOut,
    Measuring,
    Scores,
    base_task,
    forgetting,
    gain,
    held_out_losses,
    samples,
    separability,
)
from agentlab.persona.result import Gain, PersonaResult, PersonasResult, Point, persona_report
from agentlab.runs.context import Context
from agentlab.runs.document import BoundedShare
from agentlab.runs.events import Event, first_event_data
from agentlab.runs.journal import read_events
from agentlab.runs.manifest import Metric
from agentlab.runs.run import OpenRun, RunOutcome
from agentlab.train.config import TrainingJob
from agentlab.train.data_report import Prepared
from agentlab.workers import launched

if TYPE_CHECKING:
    from agentlab.train.base import TrainingBase
    from agentlab.train.sft import Trained

_BEGUN = "training.begun"


@dataclass(frozen=True)
class PersonaExperiment:
    """Checked personas."""

    config: PersonaConfig
    context: Context
    base: BaseFile
    sources: tuple[PersonaSource, ...]

    def plan(self) -> PersonaPlan:
        return plan_of(self.config, self.base, self.sources)

    def folder(self, name: str) -> Path:
        if self.config.out is not None:
            return self.context.workspace.resolve(self.config.out)
        return self.context.workspace.adapters / name

    @property
    def folders(self) -> list[Path]:
        return [self.folder(persona.name) for persona in self.config.personas]

    def run(self, run: OpenRun) -> tuple[PersonasResult, RunOutcome]:
        with hold_folders(self.folders), fixed_threads(run, self.config.threads):
            return self._work(run)

    def _work(self, run: OpenRun) -> tuple[PersonasResult, RunOutcome]:
        from agentlab.train.base import load_base, load_tokenizer
        from agentlab.train.scoring import scorer

        path = self._checkpoint(run)
        launched.call(run.path)
        tokenizer = load_tokenizer(path)
        prepared: dict[str, Prepared] = {}
        for source in self.sources:
            prepared[source.name] = source.prepare_examples(tokenizer, self.config, self.context.stop.check)
            run.emit_once(CHECKED, source.name, **conversations.summary(source, prepared[source.name]))
        self.context.stop.check()
        base = load_base(path, self.config.training.precision, self.config.training.attn_implementation)
        measuring = Measuring(partial(_tell_measured, run), self.context.stop)
        with scorer(base, {}, measuring.done, self.config.report.dtype) as alone:
            nobody = dict.fromkeys(prepared)
            before = measuring.part("losses of the base", alone, lambda by: self._held_out(by, prepared, nobody))
        self.context.stop.check()
        run.emit_once(_BEGUN, processes=launched.rank_and_size(self.context.env)[1])
        launched.begin()
        try:
            trained = self._train(run, base, prepared)
        except Interrupted:
            self.context.stop.check()  # says by which signal
            raise
        adapters = {name: training.adapter for name, training in trained.items()}
        with scorer(base, adapters, measuring.done, self.config.report.dtype) as scores:
            result = self._result(base, prepared, trained, before, scores, measuring)
        self.context.stop.check()
        self._write(run, base, trained, result)
        reports = [persona_data.report for persona_data in prepared.values()]
        run.report = persona_report(run, result, reports, self.config.report.dtype)
        return result, self._outcome(result)

    # -- before training ----------------------------------------------------------------------------------------

    def _checkpoint(self, run: OpenRun) -> Path:
        began = time.monotonic()
        path = import_base(self.base)
        if self.base.source is not None:
            run.emit_once("base.imported", self.base.name, seconds=round(time.monotonic() - began, 1))
        return path

    # -- training -----------------------------------------------------------------------------------------------

    def _train(self, run: OpenRun, base: "TrainingBase", prepared: Mapping[str, Prepared]) -> "dict[str, Trained]":
        from agentlab.train.joint import train_adapters
        from agentlab.train.sft import train_adapter

        names, is_stopped = list(prepared), lambda: self.context.stop.is_requested
        config, folder = self.config, run.folder.folder("personas")
        job = partial(TrainingJob, config.lora, config.training, seed=config.seed, stopped=is_stopped)
        if config.together and len(prepared) > 1:
            together = job(folder=folder.path, tell=partial(_tell_progress, run, names))
            trainings = train_adapters(base, [persona_data.split for persona_data in prepared.values()], together)
            return dict(zip(names, trainings, strict=True))
        trained = {}
        for name, persona_data in prepared.items():
            alone = job(folder=folder.folder(name).path, tell=partial(_tell_progress, run, [name]))
            trained[name] = train_adapter(base, persona_data.split, alone)
        return trained

    # -- afterwards ---------------------------------------------------------------------------------------------

    def _held_out(
        self, scores: Scores, prepared: Mapping[str, Prepared], adapters: Mapping[str, str | None]
    ) -> dict[str, HeldOut | None]:
        held_out = conversations.held_out(prepared)
        return {name: held_out_losses(scores, adapters[name], examples) for name, examples in held_out.items()}

    def _result(
        self,
        base: "TrainingBase",
        prepared: Mapping[str, Prepared],
        trained: "Mapping[str, Trained]",
        before: Mapping[str, HeldOut | None],
        scores: Scores,
        measuring: Measuring,
    ) -> PersonasResult:
        config, names, held_out = self.config.report, list(trained), conversations.held_out(prepared)
        own_adapters, systems = {name: name for name in names}, {source.name: source.system for source in self.sources}
        part, questions = measuring.part, base_task(config.forgetting)
        after = part("held-out losses", scores, lambda by: self._held_out(by, prepared, own_adapters))
        separation = part("separability", scores, lambda by: separability(by, held_out, config.separability))
        retention = part("the base task", scores, lambda by: forgetting(by, names, questions))
        sample_rows = part("answers", scores, lambda by: samples(by, systems, config.samples, config.sample_tokens))
        return PersonasResult(
            base=base.path.name,
            precision=base.precision,
            personas=[
                self._persona(name, persona_data, trained[name], before[name], after[name])
                for name, persona_data in prepared.items()
            ],
            separability=BoundedShare.of(separation.share, count=separation.count) if separation else None,
            chance=separation.chance if separation else None,
            matrix={name: dict(logprobs) for name, logprobs in separation.matrix.items()} if separation else {},
            base_task=retention.right[BASE_NAME][DECIDES] if retention else None,
            after={name: retention.right[name][DECIDES] for name in names if retention},
            labelled=retention,
            samples=sample_rows,
        )

    def _persona(
        self, name: str, persona_data: Prepared, trained: "Trained", before: HeldOut | None, after: HeldOut | None
    ) -> PersonaResult:
        improved = gain(before, after, np.random.default_rng(self.config.seed)) if before and after else None
        return PersonaResult(
            name=name,
            adapter=str(self.folder(name)),
            conversations=len(persona_data.split.train),
            held_out=len(persona_data.split.held_out),
            supervised_tokens=sum(example.learnt for example in persona_data.split.train),
            steps=trained.losses[-1][0] if trained.losses else 0,
            best_step=trained.best_step,
            train_loss=[Point(step=step, loss=loss) for step, loss in trained.losses],
            eval_losses=[Point(step=step, loss=loss) for step, loss in trained.eval_losses],
            before=before.loss if before else None,
            eval_loss=after.loss if after else None,
            gain=Gain.of(improved) if improved else None,
            tokens_per_second=trained.tokens / trained.seconds if trained.seconds else None,
            seconds=trained.seconds,
            peak_bytes=trained.peak_bytes or None,
        )

    def _write(
        self, run: OpenRun, base: "TrainingBase", trained: "Mapping[str, Trained]", result: PersonasResult
    ) -> None:
        for source, row in zip(self.sources, result.personas, strict=True):
            card = card_of(self.config, source, row, base, run)
            folder = self.folder(row.name)
            write_product(trained[row.name].adapter, folder, card, page_of(folder, self.context.workspace, card))
            run.emit_once("persona.trained", row.name, adapter=str(folder))

    def _outcome(self, result: PersonasResult) -> RunOutcome:
        metrics = {
            f"eval_loss.{row.name}": Metric(value=row.eval_loss, unit="nats/token", direction="lower")
            for row in result.personas
            if row.eval_loss is not None
        }
        if result.separability is not None:
            metrics["separability"] = Metric(value=result.separability.value, direction="higher")
        return RunOutcome(metrics)


def _tell_progress(run: OpenRun, names: Sequence[str], type_: str, data: Mapping[str, Any]) -> None:
    """Steps are passing details, scorings are events. `adapter` is an index of names; a lone one has none."""
    details = {key: value for key, value in data.items() if key != "adapter"}
    tell = run.stream if type_ == "train.step" else run.emit
    name = names[data["adapter"]] if len(names) > 1 else names[0]
    tell(type_, name, **details)


def _tell_measured(run: OpenRun, part: str, done: int, total: int) -> None:
    run.stream("persona.measured", part, done=done, total=total)


def _check_processes(config: PersonaConfig, context: Context, events: Sequence[Event]) -> None:
    """See that this training can be done by so many processes: they decide its steps.

    Raises:
        UsageError: adapters are trained together by one.
        RunMismatchError: the run was begun by more or fewer.
    """
    size = launched.rank_and_size(context.env)[1]
    if size > 1 and config.together and len(config.personas) > 1:
        raise UsageError(
            f"Training personas together needs one process, but {size} were launched.",
            hint="Use --set together=false, or start the run without a launcher.",
        )
    earlier_size = first_event_data(events, _BEGUN).get("processes", size)
    if earlier_size != size:
        plural = "es" if earlier_size > 1 else ""
        hint = f"Launch the run with --num_processes {earlier_size}." if plural else "Start the run without a launcher."
        message = f"The training started with {earlier_size} process{plural}; it cannot continue with {size}."
        raise RunMismatchError(message, hint=hint)


def prepare(config: PersonaConfig, context: Context) -> PersonaExperiment:
    """The way in: everything that can be wrong with the input is found here, before a run folder exists."""
    experiment = foresee(config, context)
    with hold_folders(experiment.folders):  # for a moment, to see that it can be; `run` takes them for good
        return experiment


def foresee(config: PersonaConfig, context: Context) -> PersonaExperiment:
    """The same for a plan: another process may be writing to the adapters' folders."""
    experiment = read_input(config, context)
    needed = len(config.personas) * room_for(config, experiment.base)
    resumed = None if context.resumed_run is None else context.resumed_run.name
    for folder in experiment.folders:
        check_place(folder, resumed, needed)
        check_free(folder)
    return experiment


def read_input(config: PersonaConfig, context: Context) -> PersonaExperiment:
    """What is trained on what, in any process that takes part; where the adapters go is not looked at."""
    events = events_before(context)
    _check_processes(config, context, events)
    base, sources = find_base(config.base, context.workspace), read_sources(config, context.workspace)
    check_unchanged(sources, events)
    if base.source is not None:
        metadata.read(base.source)  # a damaged file is told now, by a dry run too, and not by the import
    return PersonaExperiment(config, context, base, sources)


def take_part(run: Path, begin: Callable[[], object], context: Context) -> None:
    """Take part in the training of a run, from its config and its checkpoints. Nothing is written.

    `run`: the folder of the run; its base has been imported. `begin`: called when everything is loaded; returns when
    the run's owner begins to train.

    Raises:
        Interrupted: this process or another one was stopped.
        AgentlabError: see `train_adapter`.
    """
    from agentlab.train.base import load_base
    from agentlab.train.sft import train_adapter

    config = load_resolved(PersonaConfig, run / "config.yaml", (), env=context.env)
    experiment = read_input(config, context)
    base = load_base(experiment.base.path, config.training.precision, config.training.attn_implementation)
    prepared = [source.prepare_examples(base.tokenizer, config, context.stop.check) for source in experiment.sources]
    begin()
    events = read_events(run / "events.jsonl")
    check_unchanged(experiment.sources, events)  # with what the owner has read
    with machine.torch_threads(threads_of(config.threads, events)):
        stop = context.stop
        job = partial(TrainingJob, config.lora, config.training, seed=config.seed, stopped=lambda: stop.is_requested)
        for source, persona_data in zip(experiment.sources, prepared, strict=True):
            train_adapter(base, persona_data.split, job(folder=run / "personas" / source.name))
