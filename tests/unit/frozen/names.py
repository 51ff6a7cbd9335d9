"""Every name that is data: what stands in files, on the wire, on the command line, in plug-ins and in users' programs.

`python -m tests.unit.frozen.names` prints the present state; `names.json` holds the one that is promised. Renaming a
class, a function, a variable or a module changes nothing here, unless its name is itself written or hashed somewhere.
"""

import json
import re
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from starlette.routing import Route
from typer.main import get_command

from agentlab.bench.load.records import Record, to_lines
from agentlab.commands import COMMANDS
from agentlab.config.workspace import Workspace
from agentlab.errors import AgentlabError, AllModelsFailedError, UsageError
from agentlab.llm.config import LLMConfig
from agentlab.llm.ledger import schema as ledger_schema
from agentlab.llm.question import RouterOutcome
from agentlab.llm.recorder import outcome_data
from agentlab.llm.router import Router
from agentlab.llm.serve.app import create_app
from agentlab.llm.serve.chat import ChatCompletionsRequest, ChatReply, CompletionReply, CompletionRequest
from agentlab.llm.serve.embeddings import EmbeddingRequest
from agentlab.llm.serve.gate import GatewayRules
from agentlab.llm.serve.metrics import GatewayMetrics
from agentlab.llm.serve.responses import ResponseRequest
from agentlab.llm.serve.responses_reply import ResponseReply
from agentlab.llm.structured import schema_of
from agentlab.llm.types import Attempt, Completion, Timing, ToolCall, Usage
from agentlab.nas.config import TrialConfig
from agentlab.nas.informer.model import Informer
from agentlab.nas.informer.model import InformerShape as InformerShape
from agentlab.pipeline.history import index as history_index
from agentlab.pipeline.templates import filters, syntax, template
from agentlab.runs.branch import RunBranch
from agentlab.runs.redact import Redactor
from agentlab.runs.run import OpenRun
from agentlab.runs.sqlite import Schema
from agentlab.runs.views import PathLine
from agentlab.study import events as study_events
from cli.main import build_app
from cli.screen import Screen
from tests.unit.frozen import face, keys, roles, shapes, shown, sources

FROZEN_FILE = Path(__file__).with_name("names.json")
Sections = dict[str, list[str]]

# The functions that write events, and which of their arguments is the type; see `sources.list_event_keys`.
EVENT_WRITERS = {
    (OpenRun.emit.__name__, 0),
    (OpenRun.emit_once.__name__, 0),
    (OpenRun.stream.__name__, 0),
    (RunBranch.emit.__name__, 0),
    (study_events.emit.__name__, 1),
}


def read_names() -> Sections:
    """The present state, section by section, each a sorted list of lines."""
    files = sources.parse_sources()
    with tempfile.TemporaryDirectory() as folder:
        computed = keys.compute_keys(Path(folder))
    return {
        "config keys": _list_config_keys(),
        "result.json and --json": _list_results(),
        "--json of a dry run": _list_models(roles.PLANS),
        "--json of other commands": _list_models(roles.ANSWERS),
        "files": _list_model_files(),
        "records": _list_records(),
        "events": sources.list_event_keys(files, EVENT_WRITERS),
        "words with dots": sources.list_dotted_strings(files),
        "environment variables": sources.list_environment_variables(files),
        "errors": _list_errors(),
        "tables": _list_tables(),
        "commands and flags": _list_commands(),
        "plug-ins": face.list_plugins(),
        "Python face": face.list_python_face(),
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
        screen.answer("runs path", PathLine(path="runs"))
        screen.error(UsageError("It cannot be."), command="runs path")
    for document, role in zip(printed.getvalue().splitlines(), ("an answer", "a failure"), strict=True):
        lines += shapes.list_key_paths(role, json.loads(document))
    return lines


def _list_model_files() -> list[str]:
    lines = [path for role, model in roles.MODEL_FILES.items() for path in shapes.list_read_paths(role, model)]
    record = Record(index=0, scheduled=0.0, sent=0.0)
    return lines + shapes.list_key_paths("llm-bench stage", json.loads(to_lines([record])))


def _list_records() -> list[str]:
    lines: list[str] = []
    for role, dataclass in roles.DATACLASSES.items():
        lines += shapes.list_field_paths(role, dataclass)
    error = AllModelsFailedError("It failed.", failures=())
    outcome = RouterOutcome((Attempt("one", None),), tool_calls=(ToolCall("c", "f", "{}"),), error=error)
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
    _walk_command("agentlab", get_command(build_app()), lines)
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
        "POST /v1/chat/completions": ChatCompletionsRequest,
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
        lines += shapes.list_key_paths(f"answer {reply.object}", reply.whole_document(answer))
    response = ResponseReply("id", 0, {"model": "one"})
    lines += shapes.list_key_paths("answer response", response.whole_document(answer))
    config = keys.make_llm_config()
    folder = Path("workspace")  # which nothing is written into
    router = Router(config, env={}, workspace=Workspace(folder, folder))
    application = create_app(config, router, GatewayRules(None, True, 1), Redactor())
    for route in application.routes:
        assert isinstance(route, Route)
        lines.append(f"route {route.path} {' '.join(sorted(route.methods or ()))}")
    metrics = GatewayMetrics()
    metrics.count("chat", "one", "ok", 0.1, Usage(1, 2, 0.5))
    for line in metrics.text({"one": "closed"}).splitlines():
        if not line.startswith("#"):
            lines.append("metric " + re.sub(r'="[^"]*"', "", line.rpartition(" ")[0]))
    return sorted(set(lines))


def _list_model_schemas() -> list[str]:
    """Schemas and tools as language models see them: descriptions and titles count, for all is hashed."""
    lines = [f"{role}: {json.dumps(schema_of(model))}" for role, model in shown.ANSWER_MODELS.items()]
    for action in shown.list_compress_actions():
        lines.append(f"{action.name}: {shown.describe_tool(action.tool)}")
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
