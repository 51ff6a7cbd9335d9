"""The router as a chat model of LangChain and LangGraph.

    from agentlab.integrations.langchain import chat_model

    model = chat_model("prod", strategy="fastest")
    model.invoke("Name three rivers.").content
    model.with_structured_output(Rivers).invoke("Name three rivers.")

Retries, fallbacks, limits, budget and cache are the router's: `with_retry` and `with_fallbacks` would only multiply
them. Needs the extra `langchain`.
"""

import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from agentlab.config.overrides import Override
from agentlab.errors import AllModelsFailedError, MissingExtraError, SchemaError
from agentlab.integrations.langchain_messages import PARSED, chunks_of, end_of, result_of, whole_of
from agentlab.integrations.openai_messages import messages_of, tool_choice_of, tools_of
from agentlab.llm.budget import tokens_of
from agentlab.llm.config import LLMConfig
from agentlab.llm.event_loop import Live, LoopThread
from agentlab.llm.load import load_llm
from agentlab.llm.provider_config import Strategy
from agentlab.llm.router import Options, Router
from agentlab.llm.types import Delta, Message
from agentlab.session import surroundings

try:
    from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
    from langchain_core.language_models import BaseChatModel, LanguageModelInput
    from langchain_core.language_models.base import LangSmithParams
    from langchain_core.messages import AIMessage, BaseMessage, convert_to_openai_messages
    from langchain_core.outputs import ChatGenerationChunk, ChatResult
    from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
    from langchain_core.tools import BaseTool
    from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
except ImportError as error:
    raise MissingExtraError(
        "LangChain is not installed.", hint="Install the extra: pip install -e '.[langchain]'"
    ) from error


def chat_model(config: str | Path | LLMConfig = "embedded", task: str = "chat", **options: Any) -> "AgentlabChatModel":
    """A chat model over the models of a config.

    Args:
        config: a preset's name, a YAML file, or a checked config.
        task: whose exceptions in the config hold, and under which name statistics are kept.
        options: other fields of `AgentlabChatModel`, such as `model`, `strategy`, `temperature`, `max_tokens`.

    Raises:
        ConfigError: every problem of the file, one per line.
        UnknownNameError: there is no such preset.
    """
    return AgentlabChatModel(config=config, task=task, **options)


class AgentlabChatModel(BaseChatModel):
    """Asks the models of a config. What is left out is said by the config. Errors are those of `agentlab.errors`."""

    model_config = ConfigDict(populate_by_name=True)

    config: str | Path | LLMConfig = "embedded"
    task: str = "chat"
    strategy: Strategy | None = None
    model_name: str | None = Field(None, alias="model", description="Use only this model from the config.")
    temperature: float | None = None
    max_tokens: int | None = None
    top_p: float | None = None
    seed: int = 0
    stop: list[str] | None = None
    timeout: float | None = Field(None, description="Timeout per call in seconds, including fallbacks.")
    max_retries: int | None = Field(None, description="Retries per model.")
    streaming: bool = False
    _router: Router = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        surrounding = surroundings(os.environ, Path.cwd())
        config = self.config
        if not isinstance(config, LLMConfig):
            defaults = {"defaults.timeout.total": self.timeout, "defaults.retries": self.max_retries}
            changes = [Override(key, value, "chat_model") for key, value in defaults.items() if value is not None]
            config = load_llm(str(config), changes, surrounding)
        self._router = Router(config, env=surrounding.env, workspace=surrounding.workspace)

    def close(self) -> None:
        self._router.close()

    async def aclose(self) -> None:
        """`close`, without holding up the loop."""
        await self._router.aclose()

    # -- what LangChain asks ------------------------------------------------------------------------------------

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        del run_manager  # it hears of pieces, and this answer comes whole
        prompt_messages, options, schema = self._read_call(messages, stop, kwargs)
        return result_of(self._router.complete_sync(prompt_messages, self.task, schema, options=options))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        del run_manager
        prompt_messages, options, schema = self._read_call(messages, stop, kwargs)
        return result_of(await self._router.complete(prompt_messages, self.task, schema, options=options))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        prompt_messages, options, schema = self._read_call(messages, stop, kwargs)
        if schema is not None or options.json_schema is not None:  # an answer that may be rejected is not read out
            yield whole_of(self._router.complete_sync(prompt_messages, self.task, schema, options=options))
            return
        live = self._router.stream(prompt_messages, self.task, options=options)
        for delta in pieces(live):
            for chunk in chunks_of(delta):
                if run_manager:
                    run_manager.on_llm_new_token(delta.text, chunk=chunk)
                yield chunk
        yield end_of(live.completion)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        prompt_messages, options, schema = self._read_call(messages, stop, kwargs)
        if schema is not None or options.json_schema is not None:
            yield whole_of(await self._router.complete(prompt_messages, self.task, schema, options=options))
            return
        live = self._router.stream(prompt_messages, self.task, options=options)
        async for delta in live:
            for chunk in chunks_of(delta):
                if run_manager:
                    await run_manager.on_llm_new_token(delta.text, chunk=chunk)
                yield chunk
        yield end_of(live.completion)

    def _read_call(
        self, messages: list[BaseMessage], stop: list[str] | None, bound_kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Message, ...], Options, type[BaseModel] | None]:
        """Messages, options and the answer's type of a call. `bound_kwargs` of `bind` goes before our fields."""

        def choose_setting(name: str, ours: Any) -> Any:
            return ours if bound_kwargs.get(name) is None else bound_kwargs[name]

        schema = bound_kwargs.get("answer_schema")
        typed = schema if isinstance(schema, type) else None
        options = Options(
            strategy=choose_setting("strategy", self.strategy),
            model=choose_setting("model", self.model_name),
            temperature=choose_setting("temperature", self.temperature),
            max_tokens=choose_setting("max_tokens", self.max_tokens),
            seed=choose_setting("seed", self.seed),
            top_p=choose_setting("top_p", self.top_p),
            stop=tuple(self.stop or () if stop is None else stop),
            tools=tools_of(bound_kwargs.get("tools") or ()),
            tool_choice=tool_choice_of(bound_kwargs.get("tool_choice")),
            json_schema=schema if typed is None else None,
        )
        return messages_of(convert_to_openai_messages(messages)), options, typed

    # -- what is made of it -------------------------------------------------------------------------------------

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | bool | dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """This model, which may call the tools. `tool_choice`: auto, none, any, or the name of a tool."""
        documents = [convert_to_openai_tool(tool) for tool in tools]
        return self.bind(tools=documents, tool_choice=tool_choice_of(tool_choice), **kwargs)

    def with_structured_output(
        self, schema: dict[str, Any] | type, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, Any]:
        """This model, whose answers are values of `schema`: a pydantic model, a TypedDict or a JSON schema.

        How a model is brought to follow it (a native schema, a grammar, a tool, plain JSON) is the router's choice,
        so `method` and `strict` are accepted and say nothing. Every answer is checked. With `include_raw` an answer
        that no model got right is `parsing_error`, without a message.
        """
        typed = isinstance(schema, type) and issubclass(schema, BaseModel)
        asking = self.bind(
            answer_schema=schema if typed else convert_to_json_schema(schema),
            ls_structured_output_format={"kwargs": {"method": kwargs.get("method", "json_schema")}, "schema": schema},
        )
        if not include_raw:
            return asking | RunnableLambda(_parsed_value)
        return _with_raw(asking)

    def get_num_tokens(self, text: str) -> int:
        """An estimate: which model will answer, and so which tokenizer counts, is not known before."""
        return tokens_of((Message("user", text),))

    @property
    def _llm_type(self) -> str:
        return "agentlab"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        field_names = {"task", "strategy", "model_name", "temperature", "max_tokens", "top_p", "seed", "stop"}
        name = "LLMConfig" if isinstance(self.config, LLMConfig) else str(self.config)
        return {"config": name, **self.model_dump(include=field_names)}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        first = self.model_name or next(iter(self._router.config.candidates(self.task)), "none")
        return LangSmithParams(**{"ls_model_name": first, **params, "ls_provider": "agentlab"})


def _parsed_value(message: AIMessage) -> Any:
    return message.additional_kwargs[PARSED]


def _with_raw(asking: Runnable[LanguageModelInput, AIMessage]) -> Runnable[LanguageModelInput, dict[str, Any]]:
    def wrap_message(message: AIMessage) -> dict[str, Any]:
        return {"raw": message, "parsed": _parsed_value(message), "parsing_error": None}

    def wrap_error(error: Exception) -> dict[str, Any]:
        return {"raw": None, "parsed": None, "parsing_error": error}

    def ask(model_input: LanguageModelInput, config: RunnableConfig) -> dict[str, Any]:
        try:
            return wrap_message(asking.invoke(model_input, config))
        except (SchemaError, AllModelsFailedError) as error:
            return wrap_error(error)

    async def aask(model_input: LanguageModelInput, config: RunnableConfig) -> dict[str, Any]:
        try:
            return wrap_message(await asking.ainvoke(model_input, config))
        except (SchemaError, AllModelsFailedError) as error:
            return wrap_error(error)

    return RunnableLambda(ask, aask)


def pieces(live: Live) -> Iterator[Delta]:
    """Read a live answer in a loop of its own, for callers without a loop or in somebody else's.

    Leaving early gives the call up. Raises as `Live` does.
    """
    loop = LoopThread()
    stream = aiter(live)

    async def following() -> Delta | None:
        return await anext(stream, None)

    try:
        while (delta := loop.submit(following()).result()) is not None:
            yield delta
    finally:
        loop.close(stream.aclose)
