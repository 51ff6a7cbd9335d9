"""The router as the language model of CrewAI's agents.

    from agentlab.integrations.crewai import create_executor_agent, create_llm_for_crewai

    agent = Agent(role="Developer", goal="Write code", backstory="...", llm=create_llm_for_crewai("prod"))
    agent = create_executor_agent(Path("my_project"), use_parallel=True)

Retries, fallbacks, limits and budget are the router's. CrewAI pins an older pydantic and rich than all else here:
install both into an environment of their own, as .ci/test-crewai does.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from pydantic import BaseModel, PrivateAttr

from agentlab.errors import AgentlabError, AllModelsFailedError, ContextOverflowError, MissingExtraError
from agentlab.integrations.openai_messages import call_arguments, call_document, messages_of, tools_of
from agentlab.integrations.project_files import ProjectFiles
from agentlab.llm.budget import tokens_of
from agentlab.llm.manager import LLMManager, strategy_of
from agentlab.llm.provider_config import Strategy
from agentlab.llm.router import Options
from agentlab.llm.types import Completion, Message

try:
    from crewai import Agent, BaseLLM
    from crewai.events.types.llm_events import LLMCallType
    from crewai.llms.base_llm import llm_call_context
    from crewai.tools import tool
    from crewai.utilities.exceptions.context_window_exceeding_exception import LLMContextLengthExceededError
except ImportError as error:
    raise MissingExtraError(
        "CrewAI is not installed.", hint="It needs its own environment; .ci/test-crewai shows how to create one."
    ) from error

TASK = "crewai"
_WHOLE_WINDOW = 131_072  # tokens, where a config does not say; an overflow is answered by summarising all the same
_USABLE = 0.85  # of a window; the rest is for the answer
_MOST_STOPS = 4  # what OpenAI's protocol allows; CrewAI cuts at the others itself


class NoAnswerError(RuntimeError):
    """No model answered. `cause` is the router's error, with its hint and attempts.

    It is raised without a context, and its message names kinds of errors only: CrewAI looks for throttling in both,
    and would put a question that the router has given up to all models again, twice.
    """

    def __init__(self, cause: AgentlabError) -> None:
        failures = cause.failures if isinstance(cause, AllModelsFailedError) else (f": {cause.kind}: ",)
        causes = [" ".join(line.split(": ")[:2]).strip() for line in failures]
        super().__init__(f"No language model answered ({', '.join(causes)}).")
        self.cause = cause
        self.overflow = bool(causes) and all(line.endswith(ContextOverflowError.__name__) for line in causes)


class AgentlabLLM(BaseLLM):  # type: ignore[misc] # CrewAI is not there where types are checked
    """Asks the models of a config. `model` is the config's name, for CrewAI's events and traces."""

    llm_type: str = "agentlab"
    provider: str = "agentlab"
    strategy: Strategy = "fastest"
    _manager: LLMManager = PrivateAttr()

    @classmethod
    def from_manager(cls, manager: LLMManager, name: str, strategy: Strategy) -> "AgentlabLLM":
        """A model over a manager, which stays the caller's to close."""
        llm = cls(model=name, strategy=strategy)
        llm._manager = manager
        return llm

    @property
    def manager(self) -> LLMManager:
        """Statistics, the fastest model, and `close`."""
        return self._manager

    # -- what CrewAI looks up -----------------------------------------------------------------------------------

    def supports_function_calling(self) -> bool:
        """Whether some model can call tools; without one CrewAI describes its tools in words."""
        config = self._manager.config
        return any("tools" in config.caps(name) for name in config.candidates(TASK))

    def get_context_window_size(self) -> int:
        """Usable tokens of the smallest window: any of the models may have to answer."""
        config = self._manager.config
        windows = [config.models[name].context for name in config.candidates(TASK)]
        return int(_USABLE * min((window for window in windows if window), default=_WHOLE_WINDOW))

    def get_input_tokens_count(self, messages: Any, tools: Any = None, response_model: Any = None) -> int:
        """An estimate: which model will answer, and so which tokenizer counts, is not known before."""
        del response_model
        prompt_messages = messages_of(self._format_messages(messages))
        described = (Message("system", json.dumps(tools, default=str)),) if tools else ()
        return tokens_of((*prompt_messages, *described))

    # -- asking -------------------------------------------------------------------------------------------------

    def call(
        self,
        messages: Any,
        tools: list[dict[str, Any]] | None = None,
        callbacks: list[Any] | None = None,
        available_functions: dict[str, Any] | None = None,
        from_task: Any = None,
        from_agent: Any = None,
        response_model: type[BaseModel] | None = None,
    ) -> Any:
        """As of `BaseLLM`: text, a value of `response_model`, or calls of tools for the executor to run."""
        origin = {"from_task": from_task, "from_agent": from_agent}
        with llm_call_context():
            prompt = self._begin_call(messages, tools, callbacks, available_functions, origin)
            outcome: Completion[Any] | AgentlabError
            try:
                options = self._options(tools)
                outcome = self._manager.router.complete_sync(messages_of(prompt), TASK, response_model, options=options)
            except AgentlabError as error:
                outcome = error
            return self._finish_call(outcome, prompt, available_functions, origin)

    async def acall(
        self,
        messages: Any,
        tools: list[dict[str, Any]] | None = None,
        callbacks: list[Any] | None = None,
        available_functions: dict[str, Any] | None = None,
        from_task: Any = None,
        from_agent: Any = None,
        response_model: type[BaseModel] | None = None,
    ) -> Any:
        origin = {"from_task": from_task, "from_agent": from_agent}
        with llm_call_context():
            prompt = self._begin_call(messages, tools, callbacks, available_functions, origin)
            outcome: Completion[Any] | AgentlabError
            try:
                options = self._options(tools)
                reply = self._manager.router.complete(messages_of(prompt), TASK, response_model, options=options)
                outcome = await reply
            except AgentlabError as error:
                outcome = error
            return self._finish_call(outcome, prompt, available_functions, origin)

    def _begin_call(self, messages: Any, tools: Any, callbacks: Any, functions: Any, origin: Mapping[str, Any]) -> Any:
        """The messages of a call, after CrewAI and its hooks have heard of it."""
        self._emit_call_started_event(
            messages=messages, tools=tools, callbacks=callbacks, available_functions=functions, **origin
        )
        prompt = self._format_messages(messages)
        self._invoke_before_llm_call_hooks(prompt, origin["from_agent"])
        return prompt

    def _options(self, tools: list[dict[str, Any]] | None) -> Options:
        return Options(
            strategy=self.strategy,
            temperature=self.temperature,
            max_tokens=None if self.max_tokens is None else int(self.max_tokens),
            seed=self.seed or 0,
            top_p=self.top_p,
            stop=tuple(self.stop_sequences[:_MOST_STOPS]),
            tools=tools_of(tools or ()),
        )

    def _give_up(self, failure: AgentlabError, origin: Mapping[str, Any]) -> NoReturn:
        error = NoAnswerError(failure)
        self._emit_call_failed_event(error=str(error), **origin)
        if error.overflow:
            raise LLMContextLengthExceededError(str(error))  # CrewAI summarises the conversation and asks again
        raise error

    def _finish_call(
        self, answer: Completion[Any] | AgentlabError, prompt: Any, functions: Any, origin: Mapping[str, Any]
    ) -> Any:
        """What CrewAI makes of an answer, after its events and hooks."""
        if isinstance(answer, AgentlabError):
            self._give_up(answer, origin)
        usage = _usage(answer)
        if usage:
            self._track_token_usage_internal(usage)
        if answer.tool_calls and functions:
            call = answer.tool_calls[0]
            result = self._handle_tool_execution(call.name, call_arguments(call) or {}, dict(functions), **origin)
            if result is not None:
                return result
        calls = [call_document(call) for call in answer.tool_calls]
        response = calls or (
            answer.value if isinstance(answer.value, BaseModel) else self._apply_stop_words(answer.text)
        )
        self._emit_call_completed_event(
            response=response,
            call_type=LLMCallType.TOOL_CALL if calls else LLMCallType.LLM_CALL,
            messages=prompt,
            usage=usage,
            finish_reason=answer.finish,
            **origin,
        )
        if not isinstance(response, str):
            return response
        return self._invoke_after_llm_call_hooks(prompt, response, origin["from_agent"])


def _usage(answer: Completion[Any]) -> dict[str, int] | None:
    prompt_tokens, answer_tokens = answer.usage.input_tokens, answer.usage.output_tokens
    if prompt_tokens is None or answer_tokens is None:
        return None  # unknown; CrewAI would count it as none
    total = prompt_tokens + answer_tokens
    return {"prompt_tokens": prompt_tokens, "completion_tokens": answer_tokens, "total_tokens": total}


def create_llm_for_crewai(
    config_path: str | Path | None = None, use_fastest: bool = True, use_parallel: bool = False
) -> AgentlabLLM:
    """A language model for CrewAI's agents over the models of a config.

    Args:
        config_path: a YAML file or the name of a preset in `configs/llm/`; the embedded model without either.
        use_fastest: start with the primary model that is expected to answer soonest, else with the first one.
        use_parallel: ask two primary models at the same time and take the better answer.

    Raises:
        ConfigError: every problem of the file, one per line.
        UnknownNameError: there is no such preset.
    """
    name = "agentlab" if config_path is None else f"agentlab/{Path(config_path).stem}"
    return AgentlabLLM.from_manager(LLMManager(config_path), name, strategy_of(use_fastest, use_parallel))


def create_executor_agent(
    project_dir: str | Path,
    use_llm_manager: bool = True,
    use_parallel: bool = False,
    config_path: str | Path | None = None,
) -> Agent:
    """An agent that carries out tasks in a project folder: it lists, reads and writes text files there, nowhere else.

    Hidden files in the folder are out of its reach. `config_path` and `use_parallel`: see `create_llm_for_crewai`;
    without `use_llm_manager` the choice of the model is CrewAI's.

    Raises:
        MissingFileError: the folder is not there.
    """
    files = ProjectFiles(Path(project_dir))
    return Agent(
        role="Executor",
        goal="Carry out the task in the project folder, completely and with as few changes as possible.",
        backstory=f"You work in the folder {files.root.name!r}. You look at files before you change them.",
        llm=create_llm_for_crewai(config_path, use_parallel=use_parallel) if use_llm_manager else None,
        tools=_tools(files),
        allow_delegation=False,
    )


def _tools(files: ProjectFiles) -> list[Any]:
    """Three tools; the docstrings are what the model reads."""

    def list_files() -> str:
        """List the files of the project, one path per line."""
        return "\n".join(files.listing()) or "The project has no files yet."

    def read_file(path: str) -> str:
        """Read a text file of the project, named by its path from the project folder."""
        try:
            return files.read(path)
        except AgentlabError as error:
            return f"Refused: {error.message}"

    def write_file(path: str, text: str) -> str:
        """Write a text file of the project, named by its path from the project folder; it is replaced as a whole."""
        try:
            files.write(path, text)
        except AgentlabError as error:
            return f"Refused: {error.message}"
        return f"Wrote {path}."

    return [tool(function.__name__)(function) for function in (list_files, read_file, write_file)]
