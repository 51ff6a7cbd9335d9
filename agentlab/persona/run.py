"""`agentlab train-persona`: checks the conversations, trains the adapters, compares them."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentlab.errors import Interrupted
from agentlab.persona import data as conversations
from agentlab.persona.base_model import BaseFile, find_base, imported
from agentlab.persona.card import card_of
from agentlab.persona.config import PersonaConfig
from agentlab.persona.data import Source, read_sources
from agentlab.persona.measure import forgetting, separability
from agentlab.persona.plan import PersonaPlan, plan_of
from agentlab.persona.product import check_free, page_of, write_product
from agentlab.persona.report import write_persona_report
from agentlab.persona.result import PersonaResult, PersonasResult, Point, Sample, Share
from agentlab.runs.context import Context
from agentlab.runs.manifest import Metric
from agentlab.runs.run import Outcome, Run
from agentlab.train.prepare import Prepared

if TYPE_CHECKING:
    from agentlab.train.base import Base
    from agentlab.train.scoring import Scorer
    from agentlab.train.sft import Trained


@dataclass(frozen=True)
class PersonaExperiment:
    """Checked personas."""

    config: PersonaConfig
    context: Context
    base: BaseFile
    sources: tuple[Source, ...]

    def plan(self) -> PersonaPlan:
        """What would be trained on what; also the answer of `--check`."""
        return plan_of(self.config, self.base, self.sources)

    def folder(self, name: str) -> Path:
        """Where a persona's adapter goes."""
        if self.config.out is not None:
            return self.context.workspace.resolve(self.config.out)
        return self.context.workspace.adapters / name

    def run(self, run: Run) -> tuple[PersonasResult, Outcome]:
        """Train and compare, or go on with it."""
        from agentlab.train.base import load_base, load_tokenizer
        from agentlab.train.scoring import Scorer

        path = self._checkpoint(run)
        tokenizer = load_tokenizer(path)
        prepared = {source.name: source.prepared(tokenizer, self.config) for source in self.sources}
        for source in self.sources:
            self._note(run, "data.checked", source.name, **conversations.summary(source, prepared[source.name]))
        base = load_base(path, self.config.training.precision, self.config.training.attention)
        before = self._losses(Scorer(base, {}), prepared, dict.fromkeys(prepared))
        try:
            trained = self._train(run, base, prepared)
        except Interrupted:
            self.context.stop.check()  # says by which signal
            raise
        run.stream("persona.measured")
        scorer = Scorer(base, {name: each.adapter for name, each in trained.items()})
        try:
            result = self._result(base, prepared, trained, before, scorer)
        finally:
            scorer.close()
        self._write(run, base, trained, result)
        write_persona_report(run, result, [each.report for each in prepared.values()])
        return result, self._outcome(result)

    # -- before training ----------------------------------------------------------------------------------------

    def _checkpoint(self, run: Run) -> Path:
        began = time.monotonic()
        path = imported(self.base)
        if self.base.source is not None:
            self._note(run, "base.imported", self.base.name, seconds=round(time.monotonic() - began, 1))
        return path

    def _note(self, run: Run, type_: str, id_: str, **data: Any) -> None:
        """An event that a resume does not repeat."""
        if not any(event.type == type_ and event.id == id_ for event in run.events):
            run.emit(type_, id_, **data)

    # -- training -----------------------------------------------------------------------------------------------

    def _train(self, run: Run, base: "Base", prepared: Mapping[str, Prepared]) -> "dict[str, Trained]":
        """The adapters, trained together or one after another on the same base."""
        names = list(prepared)
        if self.config.together and len(prepared) > 1:
            from agentlab.train.joint import train_adapters

            found = train_adapters(
                base,
                [each.split for each in prepared.values()],
                self.config.lora,
                self.config.training,
                folder=run.folder.folder("personas").path,
                seed=self.config.seed,
                tell=lambda type_, data: _told(run, names[data["adapter"]], type_, data),
                stopped=self._stopped,
            )
            return dict(zip(names, found, strict=True))
        return {name: self._one(run, base, name, each) for name, each in prepared.items()}

    def _one(self, run: Run, base: "Base", name: str, each: Prepared) -> "Trained":
        from agentlab.train.sft import train_adapter

        return train_adapter(
            base,
            each.split,
            self.config.lora,
            self.config.training,
            folder=run.folder.folder(f"personas/{name}").path,
            seed=self.config.seed,
            tell=lambda type_, data: _told(run, name, type_, data),
            stopped=self._stopped,
        )

    def _stopped(self) -> bool:
        return self.context.stop.requested

    # -- afterwards ---------------------------------------------------------------------------------------------

    def _losses(
        self, scorer: "Scorer", prepared: Mapping[str, Prepared], adapters: Mapping[str, str | None]
    ) -> dict[str, float | None]:
        """Loss per supervised token on each persona's held-out conversations, under the adapter named for it."""
        found: dict[str, float | None] = {}
        for name, examples in conversations.held_out(prepared).items():
            means = scorer.logprobs(adapters[name], examples) if examples else []
            counts = [one.learnt for one in examples]
            whole = sum(counts)
            found[name] = -sum(m * c for m, c in zip(means, counts, strict=True)) / whole if whole else None
        return found

    def _result(
        self,
        base: "Base",
        prepared: Mapping[str, Prepared],
        trained: "Mapping[str, Trained]",
        before: Mapping[str, float | None],
        scorer: "Scorer",
    ) -> PersonasResult:
        config, names = self.config.report, list(trained)
        after = self._losses(scorer, prepared, {name: name for name in names})
        apart = separability(scorer, conversations.held_out(prepared), config.separability)
        kept = forgetting(scorer, names, config.forgetting)
        return PersonasResult(
            base=base.path.name,
            precision=base.precision,
            personas=[self._persona(name, each, trained[name], before, after) for name, each in prepared.items()],
            separability=None if apart is None else Share.of(apart.share, apart.count),
            chance=None if apart is None else apart.chance,
            matrix={} if apart is None else {own: dict(under) for own, under in apart.matrix.items()},
            base_task=Share.of(kept[None], config.forgetting) if kept else None,
            after={name: Share.of(kept[name], config.forgetting) for name in names if kept},
            samples=[
                Sample(
                    question=question,
                    base=scorer.answer(None, question, config.sample_tokens),
                    personas={name: scorer.answer(name, question, config.sample_tokens) for name in names},
                )
                for question in config.samples
            ],
        )

    def _persona(
        self,
        name: str,
        each: Prepared,
        trained: "Trained",
        before: Mapping[str, float | None],
        after: Mapping[str, float | None],
    ) -> PersonaResult:
        return PersonaResult(
            name=name,
            adapter=str(self.folder(name)),
            conversations=len(each.split.train),
            held_out=len(each.split.held_out),
            supervised_tokens=sum(one.learnt for one in each.split.train),
            steps=trained.losses[-1][0] if trained.losses else 0,
            best_step=trained.best_step,
            train_loss=[Point(step=step, loss=loss) for step, loss in trained.losses],
            eval_losses=[Point(step=step, loss=loss) for step, loss in trained.eval_losses],
            before=before[name],
            eval_loss=after[name],
            tokens_per_second=trained.tokens / trained.seconds if trained.seconds else None,
            seconds=trained.seconds,
            peak_bytes=trained.peak_bytes or None,
        )

    def _write(
        self,
        run: Run,
        base: "Base",
        trained: "Mapping[str, Trained]",
        result: PersonasResult,
    ) -> None:
        for source, row in zip(self.sources, result.personas, strict=True):
            card = card_of(self.config, source, row, base, run)
            folder = self.folder(row.name)
            write_product(trained[row.name].adapter, folder, card, page_of(row.name, card))
            self._note(run, "persona.trained", row.name, adapter=str(folder))

    def _outcome(self, result: PersonasResult) -> Outcome:
        metrics = {
            f"eval_loss.{row.name}": Metric(value=row.eval_loss, unit="nats/token", direction="lower")
            for row in result.personas
            if row.eval_loss is not None
        }
        if result.separability is not None:
            metrics["separability"] = Metric(value=result.separability.value, direction="higher")
        return Outcome(metrics)


def _told(run: Run, name: str, type_: str, data: Mapping[str, Any]) -> None:
    """Steps are passing details, scorings are events."""
    rest = {key: value for key, value in data.items() if key != "adapter"}
    if type_ == "train.step":
        run.stream(type_, name, **rest)
    else:
        run.emit(type_, name, **rest)


def prepare(config: PersonaConfig, context: Context) -> PersonaExperiment:
    """The way in: everything that can be wrong with the input is found here, before a run folder exists."""
    experiment = PersonaExperiment(
        config, context, find_base(config.base, context.workspace), read_sources(config, context.workspace)
    )
    resumed = None if context.resumes is None else context.resumes.name
    for persona in config.personas if not context.planning else ():
        check_free(experiment.folder(persona.name), resumed)
    return experiment
