"""Which models of a config can really be used, found out from files and keys alone: nothing is loaded or asked."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from agentlab.config.workspace import Workspace
from agentlab.errors import AgentlabError, MissingError, MissingFileError, ModelFileError, UnknownNameError
from agentlab.gguf.metadata import GgufMetadata, agrees, known_architecture, read
from agentlab.models import store
from agentlab.pipeline.config import ModelEntry, PipelineConfig
from agentlab.pipeline.graph import unroll
from agentlab.pipeline.stage_config import Stage
from agentlab.pipeline.units import units
from agentlab.runs.document import AnswerDocument, Block, Text, table

_INSTRUCT = "Use an instruct model, for example `agentlab models pull smollm2-135m`."


@dataclass(frozen=True, slots=True)
class Availability:
    """One model of a config. `error` is why it cannot be used; `metadata` is there when its file could be read.

    `wanted`: the run cannot start without it; see `wanted`.
    """

    name: str
    provider: str
    wanted: bool
    path: Path | None = None
    metadata: GgufMetadata | None = None
    error: AgentlabError | None = None

    @property
    def problem(self) -> str | None:
        return self.error.message if self.error else None

    @property
    def hint(self) -> str | None:
        return self.error.hint if self.error else None


def available(
    names: Iterable[str], config: PipelineConfig, workspace: Workspace, env: Mapping[str, str]
) -> dict[str, Availability]:
    """Some models of a checked config; reading the header of a file takes a few hundredths of a second."""
    needed, availability = required_models(config), {}
    for name in names:
        entry = config.models[name]
        if entry.provider == "router":
            error = _router_error(entry, config, workspace, env)
            availability[name] = Availability(name, "router", name in needed, error=error)
        else:
            availability[name] = _local(name, entry, config, workspace, required=name in needed)
    return availability


def required_models(config: PipelineConfig) -> set[str]:
    """The models that a run cannot start without: those that its stages ask, and those that it requires.

    Base mode requires every model that is `required_for_base`; manual mode those of them that stand in for others.
    """
    required = {name for name, entry in config.models.items() if entry.required_for_base}
    if config.mode != "base":
        required &= asked_models(config.stages, config)
    return _first_asked(config.stages, config) | required


def require(availability: Mapping[str, Availability]) -> None:
    """See that every model a run needs can be used.

    Raises:
        MissingError: files or keys are not there; the message lists every model that cannot be used.
        ModelFileError: they are there, but a file is damaged or not what the config says.
    """
    lacking = {model.name: model.error for model in availability.values() if model.wanted and model.error}
    if not lacking:
        return
    first = next((error for error in lacking.values() if isinstance(error, MissingError)), next(iter(lacking.values())))
    hints = dict.fromkeys(error.hint for error in lacking.values() if error.hint)
    message = "\n".join(f"models.{name}: {error.message}" for name, error in lacking.items())
    raise type(first)(message, hint=" ".join(hints) or None)


def asked_models(stages: Sequence[Stage], config: PipelineConfig) -> set[str]:
    """The models that stages may ask: their own, those that judge or write, and those that stand in."""
    stand_ins = chain.from_iterable(stage.fallback_models for stage in stages)
    return _first_asked(stages, config).union(stand_ins)


def _first_asked(stages: Sequence[Stage], config: PipelineConfig) -> set[str]:
    """Without those that stand in."""
    return {unit.model for unit in units(unroll(stages), config) if unit.model is not None}


def _local(
    name: str, entry: ModelEntry, config: PipelineConfig, workspace: Workspace, *, required: bool
) -> Availability:
    path = metadata = None
    try:
        path = _find(entry.file or "", config, workspace)
        metadata = read(path)
        _check(path, metadata, entry)
    except AgentlabError as error:
        return Availability(name, "gguf", required, path, metadata, error)
    return Availability(name, "gguf", required, path, metadata)


def _find(file: str, config: PipelineConfig, workspace: Workspace) -> Path:
    """The file that an entry names: a path from the workspace, or a name in `models_directory`.

    Where that is the workspace's own models folder, the user cache and the names of the catalogue count too.
    """
    folder = workspace.resolve(config.models_directory)
    is_path = "/" in file or "\\" in file or file.startswith("~")
    path = workspace.resolve(file) if is_path else folder / file
    try:
        if path.exists():
            return path
    except OSError as error:  # such as a name that is too long
        raise MissingFileError(f"{path} cannot be accessed: {error.strerror}.", hint="Check `file`.") from error
    if path.is_symlink():
        raise MissingFileError(
            f"{path} is a broken symbolic link: {path.readlink()} does not exist.",
            hint="Put the file there, or fix the link.",
        )
    known_files = sorted(p.name for p in path.parent.glob("*.gguf")) if path.parent.is_dir() else []
    hint = UnknownNameError("model file", path.name, known_files).hint
    if folder == workspace.models and not is_path:
        try:
            return store.find(file, workspace)
        except UnknownNameError as error:
            hint = error.hint
    raise MissingFileError(f"The model file {path} does not exist.", hint=hint)


def _check(path: Path, metadata: GgufMetadata, entry: ModelEntry) -> None:
    if not known_architecture(metadata.architecture):
        raise ModelFileError(
            f"{path} has the architecture {metadata.architecture[:40]!r}, which the engine does not support.",
            hint="Upgrade llama-cpp-python; a later version may support it.",
        )
    if not metadata.chat_template:
        raise ModelFileError(f"{path} has no chat template, so it cannot be used for chat.", hint=_INSTRUCT)
    if entry.quantization is not None and not agrees(entry.quantization, metadata):
        header_differs = metadata.file_type not in (None, metadata.quantisation)
        claimed = f", and its header says {metadata.file_type}" if header_differs else ""
        raise ModelFileError(
            f"{path} is configured as {entry.quantization}, but most of its data is {metadata.quantisation}{claimed}.",
            hint="Correct or omit `quantization`, or download the intended file.",
        )


def _router_error(
    entry: ModelEntry, config: PipelineConfig, workspace: Workspace, env: Mapping[str, str]
) -> AgentlabError | None:
    """What a model of `llm` lacks: its key or its file. Nobody is asked."""
    from agentlab.llm import providers  # a pipeline of local models needs no HTTP

    provider = config.llm.models[entry.model or ""].provider
    try:
        provider_context = providers.ProviderContext(env, workspace, config.llm.defaults.timeout)
        providers.build(provider, config.llm.providers[provider], provider_context)
    except UnknownNameError as error:
        return MissingFileError(error.message, hint=error.hint)
    except AgentlabError as error:
        return error
    return None


class PipelineModelLine(AnswerDocument):
    """One model. `quantization` is what the config says, `stored_as` what most of the file's weights are."""

    name: str
    provider: str
    file: str
    wanted: bool
    usable: bool
    quantization: str | None
    stored_as: str | None
    parameters: int | None
    context: int | None
    bytes: int | None
    problem: str | None
    hint: str | None


class RegistryView(AnswerDocument):
    """The answer of `pipeline models`."""

    models: list[PipelineModelLine]

    @classmethod
    def of(cls, config: PipelineConfig, availability: Mapping[str, Availability]) -> "RegistryView":
        return cls(models=[_line(config.models[name], model) for name, model in availability.items()])

    def blocks(self) -> list[Block]:
        models = table(
            self.models,
            {
                "model": lambda m: m.name,
                "needed": lambda m: "yes" if m.wanted else "no",
                "file": lambda m: m.file,
                "weights": _weights,
                "parameters": lambda m: None if m.parameters is None else f"{m.parameters / 1e6:.0f}M",
                "context": lambda m: m.context,
                "size": lambda m: None if m.bytes is None else f"{m.bytes / 1e6:.0f} MB",
                "usable": lambda m: "yes" if m.usable else "no",
            },
        )
        wrong = [Text(f"{m.name}: {m.problem}{f' {m.hint}' if m.hint else ''}") for m in self.models if m.problem]
        return [models, *wrong]


def _weights(model: PipelineModelLine) -> str:
    stored = model.stored_as or "–"
    return stored if model.quantization in (None, model.stored_as) else f"{model.quantization} ({stored})"


def _line(entry: ModelEntry, model: Availability) -> PipelineModelLine:
    read = model.metadata
    return PipelineModelLine(
        name=model.name,
        provider=model.provider,
        file=str(model.path or entry.file or entry.model),
        wanted=model.wanted,
        usable=model.error is None,
        quantization=entry.quantization,
        stored_as=read.quantisation if read else None,
        parameters=read.parameters if read else None,
        context=read.context_length if read else None,
        bytes=read.file_bytes if read else None,
        problem=model.problem,
        hint=model.hint,
    )
