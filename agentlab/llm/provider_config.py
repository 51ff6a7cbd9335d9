"""How a provider of language models is reached, one class for each kind; `kind` says which. And who is asked first."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Discriminator, Field, JsonValue, Tag, model_validator

from agentlab.config.base import EnvText, SecretRef, StrictModel
from agentlab.llm.endpoint import check_base_url, check_key

BaseUrl = Annotated[EnvText, AfterValidator(check_base_url)]
Name = Annotated[EnvText, Field(min_length=1, max_length=200)]
Place = Annotated[EnvText, Field(min_length=1, max_length=4096)]  # a name or a path


class Limits(StrictModel):
    """What a provider allows. Calls beyond wait their turn; null is unknown."""

    rpm: int | None = Field(None, ge=1, description="Requests per minute.")
    tpm: int | None = Field(None, ge=1, description="Tokens per minute, prompts and answers together.")
    concurrency: int = Field(
        64, ge=1, le=1024, description="Calls at a time; fewer after the provider said that it is too much."
    )


class OpenAICompatProvider(StrictModel):
    """Any endpoint that speaks OpenAI's chat completions: OpenRouter, OpenAI, vLLM, llama.cpp, Ollama, LM Studio."""

    kind: Literal["openai_compat"]
    base_url: BaseUrl = Field(description="Up to and without /chat/completions; https, or http on this machine.")
    api_key: SecretRef | None = Field(None, description="The variable that holds the key: ${OPENROUTER_API_KEY}.")
    limits: Limits = Field(default_factory=Limits, description="What the provider allows.")

    @property
    def key_name(self) -> str | None:
        """The variable that holds the key."""
        return None if self.api_key is None else self.api_key[2:-1]

    @model_validator(mode="after")
    def _key_belongs_there(self) -> "OpenAICompatProvider":
        if self.key_name is not None:
            check_key(self.key_name, self.base_url)
        return self


class AnthropicProvider(StrictModel):
    """Anthropic's own Messages API: its OpenAI-compatible layer ignores response formats."""

    kind: Literal["anthropic"]
    base_url: BaseUrl = Field("https://api.anthropic.com", description="Up to and without /v1/messages.")
    api_key: SecretRef = Field("${ANTHROPIC_API_KEY}", description="The variable that holds the key.")
    limits: Limits = Field(default_factory=Limits, description="What the provider allows.")

    @property
    def key_name(self) -> str:
        """The variable that holds the key."""
        return self.api_key[2:-1]

    @model_validator(mode="after")
    def _key_belongs_there(self) -> "AnthropicProvider":
        check_key(self.key_name, self.base_url)
        return self


class GgufProvider(StrictModel):
    """A GGUF file that runs here, in a process of its own."""

    kind: Literal["gguf"]
    model_path: Place = Field(description="A catalogue name such as smollm2-135m, or the path of a GGUF file.")
    adapter: Place | None = Field(None, description="A GGUF adapter for it, in `adapters/` or by its path.")
    context: int = Field(2048, ge=128, le=1_048_576, description="Tokens of prompt and answer together.")
    total: float = Field(
        300, gt=0, le=86_400, description="Seconds for one answer. A safety net: the limit of an answer is its tokens."
    )


class HfProvider(StrictModel):
    """A checkpoint of transformers that runs here, with a LoRA adapter if one is named."""

    kind: Literal["hf"]
    model_path: Place = Field(description="A folder with config.json and safetensors, in `models/` or by its path.")
    adapter: Place | None = Field(None, description="A PEFT adapter, in `adapters/` or by its path.")
    total: float = Field(600, gt=0, le=86_400, description="Seconds for one answer: a safety net.")


class ScriptedProvider(StrictModel):
    """A fake for demonstrations and tests; no model is asked."""

    kind: Literal["scripted"]
    mode: Literal["replies", "first", "random", "adversarial", "garbage", "stuck", "refuse"] = Field(
        "first",
        description="replies: those listed, in turn; first, random, adversarial: the schema's first, any or last "
        "choice; garbage: no JSON; stuck: never answers; refuse: connection refused.",
    )
    replies: tuple[str, ...] = Field((), description="The answers of mode `replies`, starting over at the end.")
    seed: int = Field(0, ge=0, description="Seed of mode `random`.")

    @model_validator(mode="after")
    def _replies_and_mode(self) -> "ScriptedProvider":
        if (self.mode == "replies") != bool(self.replies):
            raise ValueError("`replies` and `mode: replies` belong together")
        return self


class PluginProvider(StrictModel):
    """A provider that an installed package brings, through the entry-point group `agentlab.providers`."""

    kind: str = Field(min_length=1)
    options: dict[str, JsonValue] = Field(default_factory=dict, description="Read by the plug-in, and only there.")

    @model_validator(mode="before")
    @classmethod
    def _is_no_slip(cls, given: object) -> object:
        if isinstance(given, dict) and set(given) - {"kind", "options"}:
            raise ValueError(
                f"there is no provider kind {given.get('kind')!r}; known are {', '.join(SHIPPED_KINDS)}; "
                "one from a plug-in has `options` and nothing else"
            )
        return given


SHIPPED_KINDS = ("openai_compat", "anthropic", "gguf", "hf", "scripted")


def _kind_of(given: object) -> str:
    kind = given.get("kind") if isinstance(given, dict) else getattr(given, "kind", None)
    return kind if isinstance(kind, str) and kind in SHIPPED_KINDS else "plugin"


Provider = Annotated[
    Annotated[OpenAICompatProvider, Tag("openai_compat")]
    | Annotated[AnthropicProvider, Tag("anthropic")]
    | Annotated[GgufProvider, Tag("gguf")]
    | Annotated[HfProvider, Tag("hf")]
    | Annotated[ScriptedProvider, Tag("scripted")]
    | Annotated[PluginProvider, Tag("plugin")],
    Discriminator(_kind_of),
]

RoleName = Literal["primary", "duplicate", "reserve", "fallback"]
ROLES: tuple[RoleName, ...] = ("primary", "duplicate", "reserve", "fallback")

Cap = Literal["tools", "schema", "json", "embeddings"]
Strategy = Literal["single", "fallback", "fastest", "best_of_two", "best_of_n", "adaptive"]


class Price(StrictModel):
    """USD per million tokens; used where the provider does not report what a call cost."""

    input: float = Field(ge=0, description="USD per million tokens of the prompt.")
    output: float = Field(ge=0, description="USD per million tokens of the answer.")


class RolesConfig(StrictModel):
    """Who is asked, by name in `models`; the first of `primary` first, the last of `fallback` last."""

    primary: tuple[str, ...] = Field((), description="Asked first.")
    duplicate: tuple[str, ...] = Field((), description="As good as the primary, at another provider.")
    reserve: tuple[str, ...] = Field((), description="Asked when those fail.")
    fallback: tuple[str, ...] = Field((), description="The last resort, such as a local model.")
