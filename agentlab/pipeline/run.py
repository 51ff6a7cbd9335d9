"""`agentlab pipeline`: checks, plans and carries out."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from agentlab import machine
from agentlab.answers.quote import join_under_headings
from agentlab.errors import AgentlabError, ConfigError
from agentlab.experiment import open_router
from agentlab.gguf.engine import EngineConfig
from agentlab.gguf.process import WorkerEngine
from agentlab.gguf.trusted_settings import Proofs
from agentlab.pipeline import items as inputs_of
from agentlab.pipeline.asking import Asking
from agentlab.pipeline.config import PipelineConfig
from agentlab.pipeline.executor import Executor
from agentlab.pipeline.graph import PipelineStep, unroll
from agentlab.pipeline.items import PipelineInput, read_inputs
from agentlab.pipeline.known_answers import Ends, KnownAnswers
from agentlab.pipeline.loaded_models import LoadedModels, PipelineLocalModel, Sizes, budget_of, load_seconds, settle
from agentlab.pipeline.parent_run import Parent, parent_of
from agentlab.pipeline.plan import PipelinePlan, PlannedModel, plan_of
from agentlab.pipeline.registry import asked_models, available, require, required_models
from agentlab.pipeline.result import (
    ItemResult,
    PipelineResult,
    model_results,
    pipeline_report,
    silent,
    stage_results,
)
from agentlab.pipeline.schedule.plan import schedule
from agentlab.pipeline.schedule.types import Room, Schedule
from agentlab.pipeline.settings import engine_of
from agentlab.pipeline.state import PipelineItem
from agentlab.pipeline.store import Store
from agentlab.pipeline.text_store import RunTexts
from agentlab.pipeline.units import Unit, units
from agentlab.pipeline.validation import context_remarks, remarks
from agentlab.runs.context import Context
from agentlab.runs.events import first_event_data
from agentlab.runs.journal import read_events
from agentlab.runs.manifest import Metric, RunTokens
from agentlab.runs.run import OpenRun, RunOutcome
from agentlab.session import runs_dir_flag

if TYPE_CHECKING:
    from agentlab.llm.router import Router


@dataclass(frozen=True)
class PipelineExperiment:
    """A checked pipeline."""

    config: PipelineConfig
    context: Context
    inputs: tuple[PipelineInput, ...]
    models: dict[str, PipelineLocalModel]
    sizes: Sizes
    parent: Parent | None
    proofs: Proofs

    @cached_property
    def steps(self) -> tuple[PipelineStep, ...]:
        return unroll(self.config.stages)

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        return units(self.steps, self.config)

    @cached_property
    def schedule(self) -> Schedule:
        return self._build_schedule(self.units)

    def _build_schedule(self, units: Sequence[Unit]) -> Schedule:
        """The cheapest order that keeps within the budget.

        Raises:
            NoRoomError: a model alone does not fit.
        """
        sizes = {name: self.sizes(name, model.usable) for name, model in self.models.items()}
        seconds = {name: load_seconds(model) for name, model in self.models.items()}
        return schedule([unit.job() for unit in units], Room(sizes, seconds, self.sizes.budget.ram))

    def plan(self) -> PipelinePlan:
        taken_stages = self.parent.taken if self.parent is not None else frozenset()
        trained = {name: model.metadata.context_length for name, model in self.models.items()}
        return plan_of(
            self._build_schedule([unit for unit in self.units if unit.step.stage.id not in taken_stages]),
            self.units,
            [self._plan_model(model) for model in self.models.values()],
            self.sizes.budget,
            [*remarks(self.config, self.config.stages), *context_remarks(self.config, trained)],
            len(self.inputs),
            taken_stages,
        )

    def _plan_model(self, model: PipelineLocalModel) -> PlannedModel:
        engine = model.usable
        memory = self.sizes.estimate(model.name, engine)
        return PlannedModel(
            model=model.name,
            file=model.path.name,
            context=engine.context,
            planned_bytes=self.sizes(model.name, engine),
            weights=memory.weights,
            cache=memory.cache,
            compute=memory.compute + memory.work + memory.repacked,
            process=memory.process,
            gpu=memory.vram,
            source="measured" if self.sizes.learned_bytes(model.name, engine) > memory.resident else memory.source,
        )

    def run(self, run: OpenRun) -> tuple[PipelineResult, RunOutcome]:
        """Answer every input, or go on with it.

        Raises:
            AgentlabError: inputs failed; what was answered is kept, and a resume asks for the rest.
        """
        self._begin(run)
        items = [PipelineItem(source.name, source.text, source.fields, self.config.params) for source in self.inputs]
        failure: AgentlabError | None = None
        try:
            self._work(run, items)
        except AgentlabError as error:
            if not any(item.failed is error for item in items):
                raise
            failure = error
        result, outcome = self._result(run, items)
        self._write(run, items, result)
        run.record_figures(outcome)
        failed = [item for item in items if item.failed is not None]
        resume = f"agentlab pipeline --resume {run.id}{runs_dir_flag(run, self.context)}"
        if failure is not None:
            if not isinstance(failure, ConfigError):
                retry_hint = f"Retry with {resume}; finished answers are kept."
                failure.hint = f"{failure.hint} {retry_hint}" if failure.hint else retry_hint
            raise failure
        if failed:
            raise AgentlabError(
                f"{len(failed)} of {len(items)} inputs failed; the first was {failed[0].name}: {failed[0].failed}",
                hint=f"Retry them with {resume}; the others are in outputs.jsonl.",
            )
        return result, outcome

    def _begin(self, run: OpenRun) -> None:
        if not run.has("inputs.taken"):
            run.write_text(inputs_of.COPY, inputs_of.copy_of(self.inputs))
            run.emit("inputs.taken", count=len(self.inputs))
        for model in self.models.values():
            chosen, wished = model.engine, engine_of(self.config, model.name).flash
            settled = {"flash": chosen.flash, "repack": chosen.repack, "wished": wished, "why": model.why}
            run.emit_once("engine.settled", model.name, **settled)
        if self.parent is not None:
            run.derive(self.parent.run)
            if self.parent.gone:
                run.emit("parent.gone", self.parent.run)

    def _work(self, run: OpenRun, items: list[PipelineItem]) -> None:
        store, parent = Store(self.context.workspace.state / "pipeline"), self.parent
        texts = RunTexts(run.path, store)
        known_answers = KnownAnswers(
            texts, run.events, RunTexts(parent.path, store) if parent else None, parent.inherited if parent else ()
        )
        loaded_models = LoadedModels(
            self.models,
            sizes=self.sizes,
            threads=machine.threads(self.config.resources.threads),
            make=lambda config: WorkerEngine(config, self.proofs),
            told=run.emit,
        )
        router = self._router(run)
        try:
            asking = Asking(
                self.config,
                models=self.models,
                loaded_models=loaded_models,
                router=router,
                store=store,
                texts=texts,
                known_answers=known_answers,
                run=run,
                stop=self.context.stop,
                mask=run.mask,
            )
            Executor(self.config, items, self.units, self.schedule, asking, Ends(run, texts)).work()
        finally:
            loaded_models.close()
            if router is not None:
                router.close()
        texts.sync()

    def _router(self, run: OpenRun) -> "Router | None":
        if all(entry.provider == "gguf" for entry in self.config.models.values()):
            return None
        from agentlab.pipeline.models import Spending

        return open_router(self.config.llm, self.context, Spending(run))

    def _result(self, run: OpenRun, items: Sequence[PipelineItem]) -> tuple[PipelineResult, RunOutcome]:
        stages = stage_results([stage.id for stage in self.config.stages], run.events)
        models = model_results(run.events)
        result = PipelineResult(
            items=[
                ItemResult(
                    name=item.name,
                    answer="" if item.failed is not None else item.final(self.steps),
                    error=None if item.failed is None else str(item.failed),
                )
                for item in items
            ],
            stages=stages,
            models=models,
            loads=sum(model.loads for model in models),
            reused=sum(stage.answers - stage.asked for stage in stages),
            silent=silent(run.events),
        )
        for sentence in result.silent:
            run.stream("model.silent", said=sentence)
        answered = sum(item.failed is None for item in items)
        costs = [stage.cost_usd for stage in stages if stage.cost_usd is not None]
        metrics = {
            "answered": Metric(value=answered, unit=f"of {len(items)}", direction="higher"),
            "model_loads": Metric(value=result.loads, direction="lower"),
        }
        tokens = RunTokens(
            input=sum(stage.prompt_tokens or 0 for stage in stages),
            output=sum(stage.completion_tokens or 0 for stage in stages),
        )
        return result, RunOutcome(metrics, tokens=tokens, cost_usd=sum(costs) if costs else None)

    def _write(self, run: OpenRun, items: Sequence[PipelineItem], result: PipelineResult) -> None:
        if any(item.name for item in items):
            lines = (
                source.output_line(source.name, row.answer, row.error)
                for source, row in zip(self.inputs, result.items, strict=True)
            )
            run.write_text("outputs.jsonl", "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines))
            run.write_text("final.txt", join_under_headings([(row.name, row.answer) for row in result.items]) + "\n")
        else:
            run.write_text("final.txt", result.items[0].answer)
        run.report = pipeline_report(run, items, self.steps, result)


def foresee(config: PipelineConfig, context: Context) -> PipelineExperiment:
    """The same for a plan: no engine is tried, and there may be no input yet."""
    return prepare(config, context, planning=True)


def prepare(config: PipelineConfig, context: Context, *, planning: bool = False) -> PipelineExperiment:
    """The way in: everything that can be wrong with the input is found here, before a run folder exists."""
    needed = asked_models(config.stages, config)
    available_models = available(sorted(required_models(config) | needed), config, context.workspace, context.env)
    require(available_models)
    parent = (
        parent_of(config, context.env, resumed=context.resumed_run is not None) if config.branch is not None else None
    )
    inputs_folder = context.resumed_run or (parent.inputs if parent is not None else None)
    before = context.resumed_run or (parent.path if parent is not None else None)
    events = read_events(before / "events.jsonl") if before is not None else ()
    budget, threads = budget_of(config.resources), machine.threads(config.resources.threads)

    def settle_config(wished: EngineConfig) -> EngineConfig:
        return proofs.known_settings(wished) if planning else proofs.settle(wished, context.stop.poll)

    proofs = Proofs.of(context.workspace)
    models = {
        name: settle(
            model,
            engine_of(config, name).config(model.path, threads=threads, memory_bytes=budget.ram),
            proofs,
            first_event_data(events, "engine.settled", name),
            settle_config,
        )
        for name, model in available_models.items()
        if name in needed and model.path is not None and model.metadata is not None and model.error is None
    }
    inputs = read_inputs(config, context.workspace, inputs_folder, needed=not planning)
    sizes = Sizes(models, config.resources, budget, context.workspace.state / "gguf")
    experiment = PipelineExperiment(config, context, inputs, models, sizes, parent, proofs)
    _ = experiment.schedule  # a model that does not fit is refused here
    return experiment
