"""Every name that is data: what stands in files, on the wire, on the command line, in plug-ins and in users' programs.

`python -m tests.unit.frozen.names` prints the present state; `names.json` holds the one that is promised. Renaming a
class, a function, a variable or a module changes nothing here, unless its name is itself written or hashed somewhere.
"""

import ast
import inspect
import json
import re
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import fields, is_dataclass
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from starlette.routing import Route
from typer.main import get_command
from typing_extensions import is_protocol

from agentlab.bench.check.result import CheckResult
from agentlab.bench.compare.result import CompareResult
from agentlab.bench.load.records import Record, to_lines
from agentlab.bench.plan import BenchPlan
from agentlab.bench.quality.result import Answer as BenchAnswer
from agentlab.commands import COMMANDS
from agentlab.compress.deploy import Deployed
from agentlab.compress.intensity import Intensity
from agentlab.compress.memory import Experiment as CompressExperiment
from agentlab.compress.memory import Remembered
from agentlab.compress.meter import Spent
from agentlab.compress.objective import Measures
from agentlab.compress.recipe import Recipe
from agentlab.compress.result import Advice, CompressPlan
from agentlab.compress.vocabulary import Fewer
from agentlab.compress.watching import Watched
from agentlab.config.workspace import Workspace
from agentlab.debate.plan import DebatePlan
from agentlab.debate.transcript import Ballot as DebateBallot
from agentlab.debate.transcript import Turn as DebateTurn
from agentlab.doctor.checks import DoctorReport
from agentlab.errors import AgentlabError, AllModelsFailedError, UsageError
from agentlab.evolve.fitness import Terms
from agentlab.evolve.plan import EvolvePlan
from agentlab.evolve.product import Crossed
from agentlab.evolve.product import Exported as EvolveExported
from agentlab.gguf.memory import Buffers
from agentlab.gguf.memory import Shape as EngineShape
from agentlab.integrations.evaluation import Evaluation
from agentlab.integrations.tracking import Logged, Tracked, TrackedTrials
from agentlab.llm.config import LLMConfig
from agentlab.llm.ledger import schema as ledger_schema
from agentlab.llm.ledger.arm import Arm, CachedAnswer, Sample
from agentlab.llm.ledger.statistics import Statistics
from agentlab.llm.manager import ModelTally, Response
from agentlab.llm.providers import FACTORIES, Surroundings
from agentlab.llm.question import Outcome
from agentlab.llm.recorder import outcome_data
from agentlab.llm.roles_layout import Definition, ListedDefinition, Settings
from agentlab.llm.router import Router
from agentlab.llm.serve.app import create_app
from agentlab.llm.serve.chat import ChatReply, ChatRequest, CompletionReply, CompletionRequest
from agentlab.llm.serve.embeddings import EmbeddingRequest
from agentlab.llm.serve.gate import Rules
from agentlab.llm.serve.metrics import Metrics
from agentlab.llm.serve.responses import ResponseRequest
from agentlab.llm.serve.responses_reply import ResponseReply
from agentlab.llm.serve.run import Served
from agentlab.llm.structured import schema_of
from agentlab.llm.types import (
    Attempt,
    ChatModel,
    Completion,
    EmbeddingModel,
    Embeddings,
    Request,
    Timing,
    ToolCall,
    Usage,
)
from agentlab.llm.views import Routing
from agentlab.lora.blend import Recipe as BlendRecipe
from agentlab.lora.card import Card
from agentlab.lora.operators import OPERATORS
from agentlab.lora.products import BlendResult, ExportResult
from agentlab.lora.settings import Settings as AdapterSettings
from agentlab.lora.views import AdapterDiff, AdapterList, AdapterView
from agentlab.machine import Hardware
from agentlab.models.store import ModelList, ModelPath, PulledModel
from agentlab.nas import artefact as nas_artefact
from agentlab.nas import checkpoint as nas_checkpoint
from agentlab.nas.config import TrialConfig
from agentlab.nas.export import ExportAnswer
from agentlab.nas.informer.model import Informer
from agentlab.nas.informer.model import Shape as InformerShape
from agentlab.nas.plan import NasPlan
from agentlab.nas.predict import ForecastAnswer
from agentlab.persona.data import PersonaPlan
from agentlab.persona.ping import Ping
from agentlab.persona.talk import Transcript
from agentlab.pipeline.aggregation import AGGREGATIONS
from agentlab.pipeline.aggregation.base import Aggregation
from agentlab.pipeline.answer import Answer as PipelineAnswer
from agentlab.pipeline.answer import Asked as PipelineAsked
from agentlab.pipeline.branches.diff import DiffView
from agentlab.pipeline.branches.digest import TreeView
from agentlab.pipeline.branches.why import WhyView
from agentlab.pipeline.history import index as history_index
from agentlab.pipeline.history.export import Exported, ShowView
from agentlab.pipeline.history.listing import HistoryList, SearchView
from agentlab.pipeline.plan import PipelinePlan
from agentlab.pipeline.registry import RegistryView
from agentlab.pipeline.store import Freed
from agentlab.pipeline.templates import filters, syntax, template
from agentlab.pipeline.validation import Validated
from agentlab.runs.branch import Branch
from agentlab.runs.compare import Comparison
from agentlab.runs.events import Event
from agentlab.runs.manifest import Manifest
from agentlab.runs.redact import Redactor
from agentlab.runs.run import Run
from agentlab.runs.sqlite import Schema
from agentlab.runs.views import Line, Names, RunList, RunView
from agentlab.scaffold.configs import CheckedConfigs, ConfigSchema, PresetList, ShownConfig
from agentlab.scaffold.init import InitResult
from agentlab.search.arms import ARMS
from agentlab.search.types import Proposal, Proposer, Trial, TrialResult
from agentlab.session import FinishedRun
from agentlab.study import events as study_events
from agentlab.study.executor import OBJECTIVES
from agentlab.study.state import Candidate
from agentlab.tasks.items import Item
from agentlab.tasks.questions import Question
from agentlab.train.checkpoints import Progress
from agentlab.train.data_report import DataReport
from agentlab.train.merge import MergeResult
from agentlab.workers.chat import ChatRequest as WorkerRequest
from agentlab.workers.chat import Chunk
from cli.main import app
from cli.screen import Screen
from tests.unit.frozen import keys, shapes, sources

FROZEN_FILE = Path(__file__).with_name("names.json")
Sections = dict[str, list[str]]

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
    "compress memory list": Remembered,
    "compress memory query": Remembered,
    "compress memory best": Remembered,
    "compress plan": Advice,
    "compress reflect": Advice,
    "compress watch": Watched,
    "compress deploy": Deployed,
    "configs list": PresetList,
    "configs show": ShownConfig,
    "configs validate": CheckedConfigs,
    "configs schema": ConfigSchema,
    "debate eval": Evaluation,
    "debate questions": Line,
    "debate ping": Ping,
    "doctor": DoctorReport,
    "evolve, one child": Crossed,
    "evolve export": EvolveExported,
    "init": InitResult,
    "llm show": Routing,
    "llm stats": Statistics,
    "llm ask": Transcript,
    "llm chat": Transcript,
    "llm trust": Line,
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
    "pipeline history export": Exported,
    "runs list": RunList,
    "runs show": RunView,
    "runs compare": Comparison,
    "runs path": Line,
    "runs rm": Names,
    "runs export": Line,
    "runs mlflow log": Logged,
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
    "llm settings by roles": Settings,
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
    "candidate": Candidate,
    "event generation.finished, terms": Terms,
    "event energy.spent": Spent,
    "event intensity.chosen": Intensity,
    "metrics of a recipe": Measures,
    "vocabulary.json": Fewer,
    "history.json": nas_checkpoint.Epoch,
    "manifest.json, device": Hardware,
    "card.json, blend": BlendRecipe,
    "llm answers": CachedAnswer,
    "llm arms": Arm,
    "llm calls": Sample,
    "llm attempt": Attempt,
    "llm request": Request,
    "pipeline answer": PipelineAnswer,
    "pipeline question": PipelineAsked,
    "dry_runs.json": Buffers,
    "loads.json": EngineShape,
    "worker request": WorkerRequest,
    "worker piece": Chunk,
    "question": Question,
    "item": Item,
}
# What packages of other people implement or are handed.
PLUGIN_FACES: dict[str, type] = {
    "provider, chat model": ChatModel,
    "provider, embedding model": EmbeddingModel,
    "provider, surroundings": Surroundings,
    "arm, proposer": Proposer,
    "arm, trial": Trial,
    "arm, proposal": Proposal,
    "aggregation": Aggregation,
}
# The functions that write events, and which of their arguments is the type; see `sources.list_event_keys`.
EVENT_WRITERS = {
    (Run.emit.__name__, 0),
    (Run.emit_once.__name__, 0),
    (Run.stream.__name__, 0),
    (Branch.emit.__name__, 0),
    (study_events.emit.__name__, 1),
}
# What users' programs are handed by what they import.
FACE_RESULTS: dict[str, type] = {
    "agentlab.llm.router, an answer": Completion,
    "agentlab.llm.router, vectors": Embeddings,
    "agentlab.llm.manager, an answer": Response,
    "agentlab.llm.manager, a model": ModelTally,
    "agentlab.nas, a run": FinishedRun,
    "agentlab.errors": AllModelsFailedError,
}
# Parameters and methods of public classes that this project alone uses, and no page tells of.
_UNTOLD = re.compile(r"Router\.(arm|available|can|tier|usage)\b|a model\.with_sample")
_UNTOLD_PARAMETERS = {(Router, name) for name in ("recorder", "stop", "models", "ledger", "told", "rng")}
_PUBLIC_IMPORT = re.compile(r"^ {4,}from (agentlab[\w.]*) import ([\w, ]+)$", re.MULTILINE)


def read_names() -> Sections:
    """The present state, section by section, each a sorted list of lines."""
    files = sources.parse_sources()
    with tempfile.TemporaryDirectory() as folder:
        computed = keys.compute_keys(Path(folder))
    return {
        "config keys": _list_config_keys(),
        "result.json and --json": _list_results(),
        "--json of a dry run": _list_models(PLANS),
        "--json of other commands": _list_models(ANSWERS),
        "files": _list_model_files(),
        "records": _list_records(),
        "events": sources.list_event_keys(files, EVENT_WRITERS),
        "words with dots": sources.list_dotted_strings(files),
        "environment variables": sources.list_environment_variables(files),
        "errors": _list_errors(),
        "tables": _list_tables(),
        "commands and flags": _list_commands(),
        "plug-ins": _list_plugins(),
        "Python face": _list_python_face(),
        "templates": _list_template_names(),
        "HTTP": _list_http_names(),
        "shown to language models": _list_model_schemas(),
        "weights": _list_weights(),
        "computed keys": [f"{name}: {value}" for name, value in computed.items()],
    }


def _list_models(models: dict[str, type[BaseModel]]) -> list[str]:
    lines: list[str] = []
    for role, model in models.items():
        lines += shapes.list_written_paths(role, model)
    return lines


def _list_config_keys() -> list[str]:
    lines = shapes.list_read_paths("llm", LLMConfig)
    for name, command in COMMANDS.items():
        model = command.config_model()
        lines += shapes.list_read_paths(name, model)
        lines += [f"{name} (includes {key})" for key in getattr(model, "includes", ())]
    return lines


def _list_results() -> list[str]:
    results: dict[str, type[BaseModel]] = {name: command.result_model() for name, command in COMMANDS.items()}
    return _list_models(results) + _list_envelopes()


def _list_envelopes() -> list[str]:
    """What stands around every answer, and what a command prints that failed."""
    lines: list[str] = []
    with redirect_stdout(StringIO()) as printed, redirect_stderr(StringIO()):
        screen = Screen(json_mode=True)
        screen.answer("runs path", Line(path="runs"))
        screen.error(UsageError("It cannot be."), command="runs path")
    for document, role in zip(printed.getvalue().splitlines(), ("an answer", "a failure"), strict=True):
        lines += shapes.list_key_paths(role, json.loads(document))
    return lines


def _list_model_files() -> list[str]:
    lines = [path for role, model in MODEL_FILES.items() for path in shapes.list_read_paths(role, model)]
    record = Record(index=0, scheduled=0.0, sent=0.0)
    return lines + shapes.list_key_paths("llm-bench stage", json.loads(to_lines([record])))


def _list_records() -> list[str]:
    lines: list[str] = []
    for role, dataclass in DATACLASSES.items():
        lines += shapes.list_field_paths(role, dataclass)
    error = AllModelsFailedError("It failed.", failures=())
    outcome = Outcome((Attempt("one", None),), tool_calls=(ToolCall("c", "f", "{}"),), error=error)
    lines += shapes.list_key_paths("event llm.called", outcome_data("task", outcome))
    return lines


def _list_errors() -> list[str]:
    """The names under which errors are written, and their exit codes: replayed, counted, mapped to HTTP."""
    lines: set[str] = set()
    waiting: list[type[AgentlabError]] = [AgentlabError]
    while waiting:
        error_class = waiting.pop()
        waiting += error_class.__subclasses__()
        if error_class.__module__ == AgentlabError.__module__:
            lines.add(f"{error_class.__name__} {error_class.exit_code}")
    return sorted(lines)


def _list_tables() -> list[str]:
    databases: dict[str, Schema] = {"llm.sqlite": ledger_schema.SCHEMA, "history.sqlite": history_index._SCHEMA}
    lines: list[str] = []
    for name, schema in databases.items():
        database = schema.open(None, 1.0)
        try:
            lines += [f"{name} {line}" for line in _list_columns(database)]
        finally:
            database.close()
    return lines


def _list_columns(database: sqlite3.Connection) -> Iterator[str]:
    rows = database.execute("SELECT type, name FROM sqlite_master WHERE name NOT GLOB 'sqlite_*' ORDER BY name")
    for kind, name in rows.fetchall():
        if name.startswith("words_"):  # SQLite's own, behind the table `words`
            continue
        if kind == "index":
            columns = [row[2] for row in database.execute(f"PRAGMA index_info('{name}')")]
        else:
            columns = [row[1] for row in database.execute(f"PRAGMA table_info('{name}')")]
        yield f"{kind} {name} ({', '.join(map(str, columns))})"


def _list_commands() -> list[str]:
    lines: set[str] = set()
    _walk_command("agentlab", get_command(app), lines)
    return sorted(lines)


def _walk_command(path: str, command: Any, lines: set[str]) -> None:
    lines.add(path)
    for parameter in command.params:
        names = " ".join(sorted([*parameter.opts, *parameter.secondary_opts]))
        is_flag = names.startswith("-")
        label = names if is_flag else parameter.metavar or parameter.human_readable_name
        lines.add(f"{path} {label}")
    for name, member in getattr(command, "commands", {}).items():
        _walk_command(f"{path} {name}", member, lines)


def _list_plugins() -> list[str]:
    lines: list[str] = []
    for registry in (FACTORIES, OPERATORS, AGGREGATIONS, ARMS, OBJECTIVES):
        lines += [f"{registry.group}: {name}" for name in registry.table]
    for role, face in PLUGIN_FACES.items():
        lines += _list_members(role, face)
    return sorted(lines)


def _list_python_face() -> list[str]:
    """What the pages of the documentation import, and what modules export, with parameters and members."""
    lines: set[str] = set()
    for page in [sources.REPOSITORY / "README.md", *sorted((sources.REPOSITORY / "docs").glob("*.md"))]:
        for module, names in _PUBLIC_IMPORT.findall(page.read_text(encoding="utf-8")):
            for name in names.split(","):
                lines.update(_describe_import(module, name.strip()))
    for module in ("agentlab.nas", "agentlab.compress", "agentlab.integrations.deep_agent", "agentlab.llm.router"):
        for name in import_module(module).__all__:
            lines.update(_describe_import(module, name))
    for role, face in FACE_RESULTS.items():
        lines.update(_list_members(role, face))
    return sorted(line for line in lines if not _UNTOLD.search(line))


def _describe_import(module: str, name: str) -> list[str]:
    role = f"{module} {name}"
    if module == "agentlab.integrations.crewai":  # lives in an environment of its own; see `make test-crewai`
        return [_describe_unloaded_function(module, name)]
    value = getattr(import_module(module), name)
    if inspect.isclass(value):
        return [role, *_list_members(role, value)]
    return [_describe_function(role, value)] if callable(value) else [role]


def _describe_unloaded_function(module: str, name: str) -> str:
    path = sources.REPOSITORY / f"{module.replace('.', '/')}.py"
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.FunctionDef) and node.name == name:
            parameters = [argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)]
            return f"{module} {name}({', '.join(parameters)})"
    raise LookupError(f"{path} defines no {name}")


def _list_members(role: str, face: type) -> list[str]:
    """The public fields, attributes and methods that a class of ours declares, with the methods' parameters."""
    lines: set[str] = set()
    declaring = [base for base in face.__mro__ if base.__module__.startswith("agentlab.")]
    if is_dataclass(face):
        lines.update(f"{role}.{field.name}" for field in fields(face))
    elif issubclass(face, BaseModel):
        declaring = [face]  # bases are our own affair
        lines.update(f"{role}.{name}" for name in face.model_fields)
    elif not is_protocol(face):
        lines.add(_describe_function(role, face))
    for base in declaring:
        for name, member in vars(base).items():
            if isinstance(member, classmethod | staticmethod):
                member = member.__func__
            if name.startswith("_"):
                continue
            if inspect.isfunction(member):
                lines.add(_describe_function(f"{role}.{name}", member))
            elif isinstance(member, property):
                lines.add(f"{role}.{name}")
    return sorted(lines)


def _describe_function(role: str, function: Callable[..., Any]) -> str:
    parameters: list[str] = []
    for name in inspect.signature(function).parameters:
        if name != "self" and (function, name) not in _UNTOLD_PARAMETERS:
            parameters.append(name)
    return f"{role}({', '.join(parameters)})"


def _list_template_names() -> list[str]:
    tables = {
        "variable": syntax.NAMES,
        "field of a stage": syntax.STAGE_FIELDS,
        "field of a loop": template._LOOP_FIELDS,
        "filter": tuple(filters.FILTERS),
        "test": tuple(filters.TESTS),
    }
    lines: list[str] = []
    for role, names in tables.items():
        lines += [f"{role} {name}" for name in names]
    return sorted(lines)


def _list_http_names() -> list[str]:
    """Routes, keys of requests and of whole answers, headers of metrics."""
    requests = {
        "POST /v1/chat/completions": ChatRequest,
        "POST /v1/completions": CompletionRequest,
        "POST /v1/responses": ResponseRequest,
        "POST /v1/embeddings": EmbeddingRequest,
    }
    lines: list[str] = []
    for role, model in requests.items():
        lines += shapes.list_read_paths(role, model)
    answer = Completion(
        value="Po",
        text="Po",
        model="one",
        usage=Usage(1, 2, 0.5),
        attempts=(),
        tool_calls=(ToolCall("c", "f", "{}"),),
        timing=Timing(0.1, 0.2),
    )
    for reply in (ChatReply("id", 0, "one", True), CompletionReply("id", 0, "one", True)):
        lines += shapes.list_key_paths(f"answer {reply.object}", reply.whole(answer))
    response = ResponseReply("id", 0, {"model": "one"})
    lines += shapes.list_key_paths("answer response", response.whole(answer))
    config = keys.make_llm_config()
    here = Path("workspace")  # which nothing is written into
    router = Router(config, env={}, workspace=Workspace(here, here))
    application = create_app(config, router, Rules(None, True, 1), Redactor())
    for route in application.routes:
        assert isinstance(route, Route)
        lines.append(f"route {route.path} {' '.join(sorted(route.methods or ()))}")
    metrics = Metrics()
    metrics.count("chat", "one", "ok", 0.1, Usage(1, 2, 0.5))
    for line in metrics.text({"one": "closed"}).splitlines():
        if not line.startswith("#"):
            lines.append("metric " + re.sub(r'="[^"]*"', "", line.rpartition(" ")[0]))
    return sorted(set(lines))


def _list_model_schemas() -> list[str]:
    """Schemas and tools as language models see them: descriptions and titles count, for all is hashed."""
    lines = [f"{role}: {json.dumps(schema_of(model))}" for role, model in keys.ANSWER_MODELS.items()]
    for action in keys.list_compress_actions():
        lines.append(f"{action.name}: {keys.describe_tool(action.tool)}")
    return lines


def _list_weights() -> list[str]:
    """The tensors of a trained Informer: attributes of its layers are keys of `best_model.safetensors`."""
    model = Informer(TrialConfig(), InformerShape(3, 4, (0,)))
    return sorted(model.state_dict())


def write_names(names: Sections) -> str:
    """As text that is easy to compare: one name a line."""
    return json.dumps(names, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(write_names(read_names()))
