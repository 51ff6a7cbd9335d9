"""What every config model is built from.

A config describes an experiment. It never asks the hardware, the network or the disk while it is validated, and
it never holds a secret: a key is a `SecretRef`, the name of an environment variable.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    PlainSerializer,
    ValidationInfo,
)
from pydantic_core import CoreSchema

from agentlab.config.keys import Key, join
from agentlab.config.secrets import holds_secret
from agentlab.config.trust import EXPAND

Role = Literal["budget", "machine"]

SENT = ("_MODEL", "_BASE_URL", "_HOST", "_PORT", "_REGION")  # how variables end whose values a server may see
LOCAL = (*SENT, "_DIR", "_PATH", "_FILE", "HOME")  # and those that a path may hold

_VARIABLE = re.compile(r"\$\$|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")
_SECRET = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")


class StrictModel(BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        validate_default=True,
        protected_namespaces=(),
        defer_build=True,  # until a config is read: importing a command must not pay for all of them
    )

    # Top-level keys that are no fields: each names a file that is laid under the one that holds the key (config.load).
    includes: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """As it is declared, but YAML has typed the numbers and truth values: `true` is no 1, and "3" is text."""
        schema = handler(source)
        _make_strict(schema)
        return schema

    @classmethod
    def model_for(cls, data: Mapping[str, Any]) -> "type[StrictModel]":  # noqa: ARG003 - for those that look
        """What a mapping is checked by, where that depends on what the mapping says."""
        return cls

    def problems(self) -> Iterator[tuple[Key, str]]:
        """What is wrong between the parts of a whole config, each with its place; asked when it is loaded."""
        yield from ()


def _make_strict(schema: Any) -> None:
    """Let no number or truth value in a core schema be made of another kind; a whole number is a decimal one, too."""
    if isinstance(schema, dict):
        if schema.get("type") in ("int", "float", "bool"):
            schema["strict"] = True
        for key, part in schema.items():
            if key not in ("default", "metadata"):
                _make_strict(part)
    elif isinstance(schema, list | tuple):
        for part in schema:
            _make_strict(part)


def budget_field(default: Any = ..., **kwargs: Any) -> Any:
    """A field that may be raised on resume: iterations, seconds, cost. Not part of the config hash."""
    return Field(default, json_schema_extra={"role": "budget"}, **kwargs)


def machine_field(default: Any = ..., **kwargs: Any) -> Any:
    """A field that says where the work runs, not what it is. Not part of the config hash."""
    default_arguments = {} if default is ... else {"default": default}
    return Field(json_schema_extra={"role": "machine"}, **default_arguments, **kwargs)


def preset_field(folder: str, default: Any = ..., **kwargs: Any) -> Any:
    """A field whose value may be the name of a file in `configs/FOLDER/` instead of the mapping itself."""
    return Field(default, json_schema_extra={"presets": folder}, **kwargs)


def expand(text: str, env: Mapping[str, str], endings: tuple[str, ...] = SENT) -> str:
    """Replace `${NAME}`, `${NAME:-default}` and `$$` in a value that was already parsed, so a value cannot add YAML.

    Only variables with one of these endings, and those that the user lists in AGENTLAB_EXPAND: a config that
    somebody else wrote could send any other to any server.

    Raises:
        ValueError: a variable may not stand here, holds a secret all the same, or is not set and has no default.
    """
    listed = {name.strip() for name in env.get(EXPAND, "").split(",")}

    def value(match: re.Match[str]) -> str:
        name = match["name"]
        if name is None:
            return "$"
        if not name.endswith(endings) and name not in listed:
            raise ValueError(
                f"${{{name}}} is not expanded: only variables whose names end in {', '.join(endings)} are; "
                f"to allow it, export {EXPAND}={name}"
            )
        if holds_secret(env.get(name, ""), env):
            raise ValueError(f"${{{name}}} is a secret, which is allowed only in `api_key`")
        content = env.get(name) or match["default"]
        if content is None:
            raise ValueError(f"the environment variable {name} is not set")
        return content

    return _VARIABLE.sub(value, text)


def escape(text: str) -> str:
    """The text that `expand` turns into `text`, whatever it holds."""
    return text.replace("$", "$$")


def _expand(value: Any, info: ValidationInfo, endings: tuple[str, ...]) -> Any:
    return expand(value, (info.context or {}).get("env", {}), endings) if isinstance(value, str) else value


def _only_reference(value: str) -> str:
    if not _SECRET.fullmatch(value):
        raise ValueError("name the variable that holds the key, as in ${OPENROUTER_API_KEY}; never the key itself")
    return value


# A machine value that a server may see, such as an address or a model's name, and one that stays on this machine, such
# as a path; variables are resolved once, into the run's config.yaml.
EnvText = Annotated[str, BeforeValidator(lambda text, info: _expand(text, info, SENT)), PlainSerializer(escape)]
EnvPath = Annotated[str, BeforeValidator(lambda text, info: _expand(text, info, LOCAL)), PlainSerializer(escape)]
# A key by name. It stays a name in every file; agentlab.llm reads the variable when it sends the request.
SecretRef = Annotated[str, AfterValidator(_only_reference)]


def roles(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Role]]:
    """Dotted names of the fields marked `budget` or `machine`, nested models included."""
    for name, field in model.model_fields.items():
        extra = field.json_schema_extra
        role = extra.get("role") if isinstance(extra, dict) else None
        if role in ("budget", "machine"):
            yield prefix + name, role  # type: ignore[misc] # narrowed by the test above
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from roles(field.annotation, f"{prefix}{name}.")


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}, with the keys of `keys.join`; lists and empty mappings are values."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = prefix + join([key])
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = value
    return flat


def config_hash(config: BaseModel) -> str:
    """SHA-256 of what defines the experiment: the resolved config less its `budget` and `machine` fields."""
    left_out = tuple(name for name, _ in roles(type(config)))
    flat = flatten(config.model_dump(mode="json"))
    below = tuple(f"{name}." for name in left_out)
    defining_values = {k: v for k, v in flat.items() if k not in left_out and not k.startswith(below)}
    return hashlib.sha256(json.dumps(defining_values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class KeyDifference:
    """A dotted key whose values differ; None where a config does not have it."""

    key: str
    old: Any
    new: Any
    role: Role | None


def differences(old: BaseModel, new: BaseModel) -> list[KeyDifference]:
    """Every key whose resolved values differ, in the order of the config."""
    before, after = flatten(old.model_dump(mode="json")), flatten(new.model_dump(mode="json"))
    marked = dict(roles(type(new)))
    return [
        KeyDifference(key, before.get(key), after.get(key), _role(key, marked))
        for key in dict.fromkeys([*before, *after])
        if before.get(key) != after.get(key)
    ]


def larger_budget(changed: Sequence[KeyDifference]) -> bool:
    """Whether one of the changes leaves more to do: a higher limit, or none where there was one."""
    return any(d.role == "budget" and d.old is not None and (d.new is None or d.new > d.old) for d in changed)


def _role(key: str, marked: dict[str, Role]) -> Role | None:
    return next((role for name, role in marked.items() if key == name or key.startswith(f"{name}.")), None)
