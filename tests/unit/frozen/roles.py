"""What is data is made by these classes: each stands under what a reader of a file knows it as."""

from pydantic import BaseModel

from agentlab.bench.check.result import CheckResult
from agentlab.bench.compare.result import CompareResult
from agentlab.bench.plan import BenchPlan
from agentlab.bench.quality.result import BenchAnswer as BenchAnswer
from agentlab.compress.deploy import Deployed
from agentlab.compress.experiment_memory import MemoryListing
from agentlab.compress.experiment_memory import RememberedExperiment as CompressExperiment
from agentlab.compress.intensity import Intensity
from agentlab.compress.meter import CompressCost
from agentlab.compress.objective import Measures
from agentlab.compress.recipe import Recipe
from agentlab.compress.result import Advice, CompressPlan
from agentlab.compress.run_status import Watched
from agentlab.compress.vocabulary import Fewer
from agentlab.debate.plan import DebatePlan
from agentlab.debate.transcript import Ballot as DebateBallot
from agentlab.debate.transcript import Turn as DebateTurn
from agentlab.doctor.checks import DoctorReport
from agentlab.evolve.adapter_folder import Crossed
from agentlab.evolve.adapter_folder import ExportedChild as EvolveExported
from agentlab.evolve.fitness import Terms
from agentlab.evolve.plan import EvolvePlan
from agentlab.gguf.memory import Buffers
from agentlab.gguf.memory import MemoryShape as EngineShape
from agentlab.integrations.evaluation import Evaluation
from agentlab.integrations.tracking import LoggedRun, Tracked, TrackedTrials
from agentlab.llm.ledger.arm import Arm, AttemptSample, CachedAnswer
from agentlab.llm.ledger.statistics import LedgerStatistics
from agentlab.llm.roles_layout import Definition, ListedDefinition, RolesLayoutSettings
from agentlab.llm.serve.run import Served
from agentlab.llm.types import Attempt, ModelRequest
from agentlab.llm.views import Routing
from agentlab.lora.blend import BlendRecipe as BlendRecipe
from agentlab.lora.card import Card
from agentlab.lora.products import BlendResult, ExportResult
from agentlab.lora.settings import AdapterSettings as AdapterSettings
from agentlab.lora.views import AdapterDiff, AdapterList, AdapterView
from agentlab.machine import Hardware
from agentlab.models.store import ModelList, ModelPath, PulledModel
from agentlab.nas import artefact as nas_artefact
from agentlab.nas import checkpoint as nas_checkpoint
from agentlab.nas.export import ExportAnswer
from agentlab.nas.plan import NasPlan
from agentlab.nas.predict import ForecastAnswer
from agentlab.persona.data import PersonaPlan
from agentlab.persona.ping import Ping
from agentlab.persona.talk import Transcript
from agentlab.pipeline.answer import PipelineAnswer as PipelineAnswer
from agentlab.pipeline.answer import PipelineQuestion as PipelineAsked
from agentlab.pipeline.branches.diff import DiffView
from agentlab.pipeline.branches.digest import TreeView
from agentlab.pipeline.branches.why import WhyView
from agentlab.pipeline.history.export import ExportedRun, ShowView
from agentlab.pipeline.history.listing import HistoryList, SearchView
from agentlab.pipeline.plan import PipelinePlan
from agentlab.pipeline.registry import RegistryView
from agentlab.pipeline.store import Freed
from agentlab.pipeline.validation import Validated
from agentlab.runs.compare import RunComparison
from agentlab.runs.events import Event
from agentlab.runs.manifest import Manifest
from agentlab.runs.views import Names, PathLine, RunList, RunView
from agentlab.scaffold.configs import CheckedConfigs, ConfigSchema, PresetList, ShownConfig
from agentlab.scaffold.init import InitResult
from agentlab.search.types import Proposal, TrialResult
from agentlab.study import events as study_events
from agentlab.study.state import StudyCandidate
from agentlab.tasks.items import TaskItem
from agentlab.tasks.questions import QuizQuestion
from agentlab.train.checkpoints import Progress
from agentlab.train.data_report import DataReport
from agentlab.train.merge import MergeResult
from agentlab.workers.chat import Chunk
from agentlab.workers.chat import EngineRequest as WorkerRequest

PLANS: dict[str, type[BaseModel]] = {
    "nas": NasPlan,
    "pipeline": PipelinePlan,
    "train-persona": PersonaPlan,
    "debate": DebatePlan,
    "evolve": EvolvePlan,
    "compress": CompressPlan,
    "llm-bench": BenchPlan,
}
# What a command prints with --json, by the command. Those of `COMMANDS` print their result, `debate replay` too.
ANSWERS: dict[str, type[BaseModel]] = {
    "adapters list": AdapterList,
    "adapters show": AdapterView,
    "adapters diff": AdapterDiff,
    "adapters blend": BlendResult,
    "adapters merge": MergeResult,
    "adapters export": ExportResult,
    "compress eval": Evaluation,
    "compress memory list": MemoryListing,
    "compress memory query": MemoryListing,
    "compress memory best": MemoryListing,
    "compress plan": Advice,
    "compress reflect": Advice,
    "compress watch": Watched,
    "compress deploy": Deployed,
    "configs list": PresetList,
    "configs show": ShownConfig,
    "configs validate": CheckedConfigs,
    "configs schema": ConfigSchema,
    "debate eval": Evaluation,
    "debate questions": PathLine,
    "debate ping": Ping,
    "doctor": DoctorReport,
    "evolve, one child": Crossed,
    "evolve export": EvolveExported,
    "init": InitResult,
    "llm show": Routing,
    "llm stats": LedgerStatistics,
    "llm ask": Transcript,
    "llm chat": Transcript,
    "llm trust": PathLine,
    "llm-bench compare": CompareResult,
    "models list": ModelList,
    "models pull": PulledModel,
    "models import": ModelPath,
    "models path": ModelPath,
    "models rm": ModelPath,
    "nas predict": ForecastAnswer,
    "nas export": ExportAnswer,
    "pipeline validate": Validated,
    "pipeline models": RegistryView,
    "pipeline tree": TreeView,
    "pipeline diff": DiffView,
    "pipeline why": WhyView,
    "pipeline gc": Freed,
    "pipeline history list": HistoryList,
    "pipeline history search": SearchView,
    "pipeline history show": ShowView,
    "pipeline history export": ExportedRun,
    "runs list": RunList,
    "runs show": RunView,
    "runs compare": RunComparison,
    "runs path": PathLine,
    "runs report": PathLine,
    "runs rm": Names,
    "runs export": PathLine,
    "runs mlflow log": LoggedRun,
    "runs mlflow query": TrackedTrials,
    "runs mlflow best": Tracked,
    "serve": Served,
}
# Files that are read and written through a model, by their names.
MODEL_FILES: dict[str, type[BaseModel]] = {
    "manifest.json": Manifest,
    "card.json": Card,
    "adapter_config.json": AdapterSettings,
    "compress memory": CompressExperiment,
    "compress recipe": Recipe,
    "checkpoint of an adapter": Progress,
    "checkpoint of a trial": nas_checkpoint._State,
    "scaler.json": nas_artefact._Scaling,
    "debate transcript.jsonl, turn": DebateTurn,
    "debate transcript.jsonl, ballot": DebateBallot,
    "llm-bench answers.jsonl": BenchAnswer,
    "llm-bench check": CheckResult,
    "train-persona data": DataReport,
    "llm settings by roles": RolesLayoutSettings,
    "llm settings by roles, model": Definition,
    "llm settings by roles, listed model": ListedDefinition,
}
# What `asdict` makes of these is written, hashed, or sent between processes. Those of `HASHED` come as instances.
DATACLASSES: dict[str, type] = {
    "event": Event,
    "event trial.proposed": study_events.Proposed,
    "event study.branched": study_events.Branched,
    "event proposal.refused": Proposal,
    "event decision.made": study_events.Decision,
    "event repeat.wanted": study_events.Repeat,
    "event with a reason": study_events.Reason,
    "event batch.closed": study_events.Closed,
    "result of a trial": TrialResult,
    "candidate": StudyCandidate,
    "event generation.finished, terms": Terms,
    "event energy.spent": CompressCost,
    "event intensity.chosen": Intensity,
    "metrics of a recipe": Measures,
    "vocabulary.json": Fewer,
    "history.json": nas_checkpoint.Epoch,
    "manifest.json, device": Hardware,
    "card.json, blend": BlendRecipe,
    "llm answers": CachedAnswer,
    "llm arms": Arm,
    "llm calls": AttemptSample,
    "llm attempt": Attempt,
    "llm request": ModelRequest,
    "pipeline answer": PipelineAnswer,
    "pipeline question": PipelineAsked,
    "dry_runs.json": Buffers,
    "loads.json": EngineShape,
    "worker request": WorkerRequest,
    "worker piece": Chunk,
    "question": QuizQuestion,
    "item": TaskItem,
}
