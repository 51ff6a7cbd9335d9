"""What other people's programs know by name: what they import, what they are handed, what plug-ins implement."""

import ast
import inspect
import re
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from importlib import import_module
from typing import Any

from pydantic import BaseModel
from typing_extensions import is_protocol

from agentlab.compress.quantizers import GridQuantizer
from agentlab.compress.recipe import QUANTIZERS
from agentlab.debate.rules import VOTING_RULES, DebateVotes, VotingRule
from agentlab.errors import AllModelsFailedError
from agentlab.llm.manager import ModelTally, Response
from agentlab.llm.providers import FACTORIES, ProviderContext
from agentlab.llm.router import Router
from agentlab.llm.types import ChatModel, Completion, EmbeddingModel, Embeddings
from agentlab.lora.operators import OPERATORS
from agentlab.pipeline.aggregation import AGGREGATIONS
from agentlab.pipeline.aggregation.base import Aggregation
from agentlab.search.arms import ARMS
from agentlab.search.types import Proposal, Proposer, Trial
from agentlab.session import FinishedRun
from agentlab.study.executor import OBJECTIVES
from tests.unit.frozen import sources

# What packages of other people implement or are handed.
PLUGIN_FACES: dict[str, type] = {
    "provider, chat model": ChatModel,
    "provider, embedding model": EmbeddingModel,
    "provider, surroundings": ProviderContext,
    "arm, proposer": Proposer,
    "arm, trial": Trial,
    "arm, proposal": Proposal,
    "aggregation": Aggregation,
    "voting rule": VotingRule,
    "voting rule, votes": DebateVotes,
    "quantizer": GridQuantizer,
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
_UNTOLD_PARAMETERS = {(Router, name) for name in ("recorder", "stop", "models", "ledger", "on_sample", "rng")}
_PUBLIC_IMPORT = re.compile(r"^ {4,}from (agentlab[\w.]*) import ([\w, ]+)$", re.MULTILINE)


def list_plugins() -> list[str]:
    lines: list[str] = []
    for registry in (FACTORIES, QUANTIZERS, VOTING_RULES, OPERATORS, AGGREGATIONS, ARMS, OBJECTIVES):
        lines += [f"{registry.group}: {name}" for name in registry.table]
    for role, face in PLUGIN_FACES.items():
        lines += _list_members(role, face)
    return sorted(lines)


def list_python_face() -> list[str]:
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
