"""How a provider of language models is reached, one class for each `kind`; which key may go there; who is asked first.

A key travels over TLS, or never leaves the machine.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    JsonValue,
    SerializeAsAny,
    Tag,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from agentlab.config.base import EnvPath, EnvText, SecretRef, StrictModel
from agentlab.config.trust import is_trusted
from agentlab.errors import UntrustedHostError
from agentlab.llm.provider_kinds import FACTORIES

# Where well-known keys belong: these hosts and those below them.
_HOSTS_BY_KEY: Mapping[str, tuple[str, ...]] = {
    "ANTHROPIC_API_KEY": ("api.anthropic.com",),
    "AZURE_OPENAI_API_KEY": ("openai.azure.com", "services.ai.azure.com", "cognitiveservices.azure.com"),
    "CEREBRAS_API_KEY": ("api.cerebras.ai",),
    "COHERE_API_KEY": ("api.cohere.com", "api.cohere.ai"),
    "DASHSCOPE_API_KEY": ("dashscope.aliyuncs.com", "dashscope-intl.aliyuncs.com"),
    "DEEPSEEK_API_KEY": ("api.deepseek.com",),
    "ELECTRICITYMAPS_TOKEN": ("api.electricitymaps.com",),
    "FIREWORKS_API_KEY": ("api.fireworks.ai",),
    "GEMINI_API_KEY": ("generativelanguage.googleapis.com",),
    "GOOGLE_API_KEY": ("generativelanguage.googleapis.com",),
    "GROQ_API_KEY": ("api.groq.com",),
    "HF_TOKEN": ("huggingface.co",),  # not its endpoints: whoever rents one decides what runs there
    "MISTRAL_API_KEY": ("api.mistral.ai",),
    "MOONSHOT_API_KEY": ("api.moonshot.ai", "api.moonshot.cn"),
    "NVIDIA_API_KEY": ("api.nvidia.com",),
    "OPENAI_API_KEY": ("api.openai.com",),
    "OPENROUTER_API_KEY": ("openrouter.ai",),
    "PERPLEXITY_API_KEY": ("api.perplexity.ai",),
    "TOGETHER_API_KEY": ("api.together.xyz", "api.together.ai"),
    "XAI_API_KEY": ("api.x.ai",),
}
_KEY_NAME = "_API_KEY"
_NETLOC = re.compile(r"(?:[a-z0-9_-]+(?:\.[a-z0-9_-]+)*\.?|\[[0-9a-f:.]+\])(?::\d*)?", re.ASCII | re.IGNORECASE)


def host_of(url: str) -> str:
    """The host name of a URL, in lower case; empty when it has none."""
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""


def is_loopback(url: str) -> bool:
    """Whether the URL names this machine."""
    host = host_of(url)
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_base_url(url: str) -> str:
    """The URL without its last slash. Raises ValueError if it is none, or would send prompts and keys in the clear."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for a port that is no number
    except ValueError as error:
        raise ValueError(f"{url!r} is not a URL: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is not an HTTP URL; expected one such as https://openrouter.ai/api/v1")
    if not (url.isascii() and url.isprintable()) or " " in url:
        raise ValueError(f"{url!r} contains characters that are not allowed in a URL")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("a base URL must have no user, query or fragment; a key belongs in `api_key`")
    if not _NETLOC.fullmatch(parts.netloc):  # `[::1].example.org` is no name, and is read in more than one way
        raise ValueError(f"{parts.netloc!r} is not a host name or address")
    if parts.scheme == "http" and not is_loopback(url):
        raise ValueError(f"{url} would send prompts and keys unencrypted; use https, or a tunnel to 127.0.0.1")
    return url.rstrip("/")


def require_trust(variable: str, url: str, env: Mapping[str, str]) -> None:
    """Refuse to send the value of an environment variable to a host that it does not belong to.

    A well-known key goes to its own provider, and a variable that is named a key to this machine. The user confirms
    every other pair once, so that no config can send a key, or GITHUB_TOKEN, to whoever wrote it.

    Raises:
        UntrustedHostError: the pair is unknown; its hint is the command that confirms it.
    """
    name, host = variable.upper(), host_of(url)  # some systems do not tell the cases apart
    homes = _HOSTS_BY_KEY.get(name, ())
    if any(host == home or host.endswith(f".{home}") for home in homes):
        return
    if is_loopback(url) and (homes or name.endswith(_KEY_NAME)):
        return
    if not is_trusted(variable, host, env):
        raise UntrustedHostError(variable, host, homes)


def describe_unknown_name(noun: str, name: str, known_names: Iterable[str]) -> str:
    """What is said of a name that leads nowhere: the nearest one, or those that there are."""
    known_names = tuple(known_names)
    near = get_close_matches(name, known_names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known_names) or 'none'}"
    return f"there is no {noun} named {name!r} ({hint})"


BaseUrl = Annotated[EnvText, AfterValidator(check_base_url)]
Name = Annotated[EnvText, Field(min_length=1, max_length=200)]
Place = Annotated[EnvPath, Field(min_length=1, max_length=4096)]  # a name or a path


Cap = Literal["tools", "schema", "json", "embeddings"]


class ProviderLimits(StrictModel):
    """A provider's limits. Further calls wait their turn; null means unknown."""

    rpm: int | None = Field(None, ge=1, description="Requests per minute.")
    tpm: int | None = Field(None, ge=1, description="Tokens per minute, for prompts and answers together.")
    concurrency: int = Field(
        64, ge=1, le=1024, description="Concurrent calls; reduced when the provider reports overload."
    )


class ProviderConfig(StrictModel):
    """An entry of `providers`. What a kind can do, and where it runs, stands with its class."""

    kind: str
    caps: ClassVar[tuple[Cap, ...]] = ("tools", "schema", "json", "embeddings")
    is_local: ClassVar[bool] = False


class EndpointConfig(ProviderConfig):
    """One that is reached by HTTP. Its key goes to its own host, and its limits hold, whoever brings the kind."""

    base_url: BaseUrl = Field(description="The URL without /chat/completions; https, or http on this machine.")
    api_key: SecretRef | None = Field(None, description="The variable that holds the key, e.g. ${OPENROUTER_API_KEY}.")
    limits: ProviderLimits = Field(default_factory=ProviderLimits, description="The provider's limits.")

    @property
    def key_name(self) -> str | None:
        """The variable that holds the key."""
        return None if self.api_key is None else self.api_key[2:-1]


class OpenAICompatProvider(EndpointConfig):
    """Any endpoint that speaks OpenAI's chat completions: OpenRouter, OpenAI, vLLM, llama.cpp, Ollama, LM Studio."""

    kind: Literal["openai_compat"]
    lora: int | None = Field(
        None, ge=0, description="For a llama.cpp server: the adapter to use, by its number in /lora-adapters."
    )


class AnthropicProvider(EndpointConfig):
    """Anthropic's own Messages API: its OpenAI-compatible layer ignores response formats."""

    kind: Literal["anthropic"]
    caps = ("tools", "schema")
    base_url: BaseUrl = Field("https://api.anthropic.com", description="The URL without /v1/messages.")
    api_key: SecretRef = Field("${ANTHROPIC_API_KEY}", description="The variable that holds the key.")


class GgufProvider(ProviderConfig):
    """A GGUF file that runs here, in a process of its own."""

    kind: Literal["gguf"]
    caps = ("schema", "json")
    is_local = True
    model_path: Place = Field(description="A catalogue name such as smollm2-135m, or the path of a GGUF file.")
    adapter: Place | None = Field(
        None, description="A GGUF adapter for the model, in `adapters/` or given by its path."
    )
    context: int = Field(2048, ge=128, le=1_048_576, description="Context window: prompt and answer tokens together.")
    total: float = Field(
        300,
        gt=0,
        le=86_400,
        description="Timeout for one answer in seconds, as a safety net; max_tokens limits the answer's length.",
    )


class HfProvider(ProviderConfig):
    """A checkpoint of transformers that runs here, with a LoRA adapter if one is named.

    Providers of one checkpoint share a process, whatever their adapters.
    """

    kind: Literal["hf"]
    caps = ()
    is_local = True
    model_path: Place = Field(
        description="A folder with config.json and safetensors, in `models/` or given by its path."
    )
    adapter: Place | None = Field(None, description="A PEFT adapter, in `adapters/` or given by its path.")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="The dtype to compute in; auto means the stored dtype. bfloat16 changes some answers."
    )
    total: float = Field(600, gt=0, le=86_400, description="Timeout for one answer in seconds, as a safety net.")


class ScriptedProvider(ProviderConfig):
    """A fake for demonstrations and tests; no model is called."""

    kind: Literal["scripted"]
    caps = ("tools", "schema", "json")
    mode: Literal["replies", "first", "random", "adversarial", "garbage", "stuck", "refuse"] = Field(
        "first",
        description="replies: the listed replies in turn; first, random, adversarial: the first, a random or the last "
        "choice in the schema; garbage: not JSON; stuck: never answers; refuse: connection refused.",
    )
    replies: tuple[str, ...] = Field(
        (),
        description="The answers for mode `replies`, in a repeating cycle. Where tools are offered, a reply "
        '{"tool": name, "arguments": {...}} calls that tool.',
    )
    seed: int = Field(0, ge=0, description="Seed for mode `random`.")

    @model_validator(mode="after")
    def _replies_and_mode(self) -> "ScriptedProvider":
        if (self.mode == "replies") != bool(self.replies):
            raise ValueError("`replies` and `mode: replies` must be used together")
        return self


class PluginProvider(ProviderConfig):
    """A provider from an installed package whose factory has no `config` of its own."""

    kind: str = Field(min_length=1)
    options: dict[str, JsonValue] = Field(default_factory=dict, description="Settings that only the plug-in reads.")

    @classmethod
    def model_for(cls, data: Mapping[str, object]) -> type[StrictModel]:
        """The config of the factory that the table, or a package, has for the kind."""
        kind = data.get("kind")
        if not isinstance(kind, str) or kind in _SHIPPED or kind not in FACTORIES.names:
            return cls
        model = getattr(FACTORIES.load(kind), "config", cls)
        if not (isinstance(model, type) and issubclass(model, ProviderConfig)):
            raise FACTORIES.unusable(kind, "its config is not a ProviderConfig")
        return model

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_kind(cls, tree: object) -> object:
        if isinstance(tree, dict) and set(tree) - {"kind", "options"}:
            raise ValueError(
                f"there is no provider kind {tree.get('kind')!r}; known: {', '.join(FACTORIES.names)}; "
                "a plug-in provider takes only `kind` and `options`"
            )
        return tree


def _validate_by_kind(tree: Any, validate: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    if isinstance(tree, ProviderConfig):
        return tree
    model = PluginProvider.model_for(tree) if isinstance(tree, dict) else PluginProvider
    return validate(tree) if model is PluginProvider else model.model_validate(tree, context=info.context)


# Those whose keys are in the documentation, and which need nothing imported to be checked.
_SHIPPED = ("openai_compat", "anthropic", "gguf", "hf", "scripted")


def _kind_of(provider: object) -> str:
    kind = provider.get("kind") if isinstance(provider, dict) else getattr(provider, "kind", None)
    return kind if isinstance(kind, str) and kind in _SHIPPED else "plugin"


Provider = Annotated[
    Annotated[OpenAICompatProvider, Tag("openai_compat")]
    | Annotated[AnthropicProvider, Tag("anthropic")]
    | Annotated[GgufProvider, Tag("gguf")]
    | Annotated[HfProvider, Tag("hf")]
    | Annotated[ScriptedProvider, Tag("scripted")]
    | Annotated[SerializeAsAny[PluginProvider], WrapValidator(_validate_by_kind), Tag("plugin")],
    Discriminator(_kind_of),
]

RoleName = Literal["primary", "duplicate", "reserve", "fallback"]
ROLES: tuple[RoleName, ...] = ("primary", "duplicate", "reserve", "fallback")

Strategy = Literal["single", "fallback", "fastest", "best_of_two", "best_of_n", "adaptive"]


class Price(StrictModel):
    """USD per million tokens; used where the provider does not report what a call cost."""

    input: float = Field(ge=0, description="USD per million prompt tokens.")
    output: float = Field(ge=0, description="USD per million answer tokens.")


class RolesConfig(StrictModel):
    """The models to use, by name in `models`, in order from the first `primary` to the last `fallback`."""

    primary: tuple[str, ...] = Field((), description="Used first.")
    duplicate: tuple[str, ...] = Field((), description="Equivalent to the primary, from another provider.")
    reserve: tuple[str, ...] = Field((), description="Used when the primary and duplicate models fail.")
    fallback: tuple[str, ...] = Field((), description="Last resort, such as a local model.")
