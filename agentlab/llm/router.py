"""The router: every command's way to language models. It knows who is asked, in which order, and what it may cost.

All requests are sent from one background loop, whoever calls. What the caller's thread does is look into the run's
record before and write to it afterwards, so that a run folder has one writer.
"""

import asyncio
import logging
import random
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future, wait
from dataclasses import asdict
from typing import Any, Self, overload

from agentlab.config.workspace import Workspace
from agentlab.errors import AllModelsFailedError, LLMCancelledError, MissingError, SchemaError
from agentlab.llm import providers, structured
from agentlab.llm.attempts import AttemptLoop, Candidate, Means, Outcome, Question
from agentlab.llm.budget import Budget
from agentlab.llm.config import LLMConfig
from agentlab.llm.logged import LOG, Logged
from agentlab.llm.loop import LoopThread
from agentlab.llm.recorder import (
    CallRecorder,
    attempt_from,
    error_from,
    key_of,
    outcome_data,
    usage_from,
)
from agentlab.llm.structured import M, Rejected
from agentlab.llm.types import ChatModel, Completion, Message, Tier, Usage
from agentlab.runs.redact import Redactor
from agentlab.runs.stop import StopFlag

_TIERS: tuple[Tier, ...] = ("pick", "edit", "full")  # from the least that can be asked to the most
_POLL_SECONDS = 0.1
_CLOSED = "The router was closed during the call."


class Router:
    """Answers through the models of a config. Use as a context manager, or call `close`."""

    def __init__(
        self,
        config: LLMConfig,
        *,
        env: Mapping[str, str],
        workspace: Workspace,
        recorder: CallRecorder | None = None,
        stop: StopFlag | None = None,
        models: Mapping[str, ChatModel] | None = None,
    ) -> None:
        """Open nothing yet.

        Args:
            config: providers, models, roles.
            env: the environment, with the workspace's `.env`; keys are read from here.
            workspace: where model files lie.
            recorder: remembers calls, and answers those that it knows.
            stop: asked while `complete_sync` waits, so that a stop need not wait for a language model.
            models: stand-ins by name in `config.models`, for tests.
        """
        self._config = config
        self._surroundings = providers.Surroundings(env, workspace, config.defaults.timeout)
        self._recorder = recorder
        self._stop = stop
        self._stand_ins = dict(models or {})
        self._built: dict[str, ChatModel] = {}
        self._building = threading.Lock()
        self._loop = LoopThread()
        self._means = Means(
            connect=self._connect,
            budget=Budget(config.budget.per_run_usd, recorder.spent() if recorder else Usage()),
            redactor=Redactor.of(env),
            retries=config.defaults.retries,
            random=random.Random(),  # noqa: S311 - waiting times only
        )

    # -- what is there ------------------------------------------------------------------------------------------

    def available(self, task: str) -> bool:
        """Whether some model is configured for a task."""
        return bool(self._config.candidates(task))

    def tier(self, task: str) -> Tier | None:
        """How much can be asked of every model that may answer the task; None when there is none."""
        names = self._config.candidates(task)
        return min((self._config.models[name].tier for name in names), key=_TIERS.index, default=None)

    def check(self) -> None:
        """See that everything a call needs is there, before work starts.

        Raises:
            MissingKeyError: a key is not set.
            MissingFileError: a model file is not there.
            UnknownNameError: no such model file or kind of provider.
        """
        for name in self._config.used():
            try:
                self._connect(name)
            except MissingError as error:
                error.hint = f"{error.hint or ''} Or work without a language model: --set llm=none.".lstrip()
                raise

    @property
    def usage(self) -> Usage:
        """What all calls consumed so far, those of earlier sessions of the run included."""
        return self._means.budget.usage

    # -- asking -------------------------------------------------------------------------------------------------

    @overload
    async def complete(
        self, messages: Sequence[Message], task: str, schema: None = None, *, call_id: str = ""
    ) -> Completion[str]: ...

    @overload
    async def complete(
        self, messages: Sequence[Message], task: str, schema: type[M], *, call_id: str = ""
    ) -> Completion[M]: ...

    async def complete(
        self, messages: Sequence[Message], task: str, schema: type[M] | None = None, *, call_id: str = ""
    ) -> Completion[M] | Completion[str]:
        """Ask for an answer, as text or as a checked value of `schema`.

        `call_id` names the call within the run: the same question under another id is asked again. A call that the
        recorder knows is answered from there, failures included.

        Raises:
            AllModelsFailedError: no candidate answered usefully; `failures` has one line per attempt.
            BadRequestError, ContentFilterError: the request itself was refused.
            BudgetExceededError: the next attempt would cost too much.
            LLMCancelledError: the router was closed.
        """
        question = self._question(messages, task, schema)
        key = _key(question, call_id)
        known = self._replayed(question, key)
        if known is not None:
            return known
        try:
            outcome = await asyncio.wrap_future(self._loop.submit(self._answer(question)))
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if caller is not None and caller.cancelling():
                raise
            raise LLMCancelledError(_CLOSED) from None
        return self._settled(question, key, call_id, outcome)

    @overload
    def complete_sync(
        self, messages: Sequence[Message], task: str, schema: None = None, *, call_id: str = ""
    ) -> Completion[str]: ...

    @overload
    def complete_sync(
        self, messages: Sequence[Message], task: str, schema: type[M], *, call_id: str = ""
    ) -> Completion[M]: ...

    def complete_sync(
        self, messages: Sequence[Message], task: str, schema: type[M] | None = None, *, call_id: str = ""
    ) -> Completion[M] | Completion[str]:
        """`complete` for synchronous callers. A signal gets through while it waits.

        Raises:
            Interrupted: a stop was requested; the call is given up and will be asked again on resume.
        """
        question = self._question(messages, task, schema)
        key = _key(question, call_id)
        known = self._replayed(question, key)
        if known is not None:
            return known
        return self._settled(question, key, call_id, self._wait(self._loop.submit(self._answer(question))))

    async def _answer(self, question: Question[M]) -> Outcome:
        return await AttemptLoop(question, self._means).run()

    def _wait(self, future: Future[Outcome]) -> Outcome:
        """Wait in slices, so that a signal handler of this thread runs and its request to stop is seen."""
        try:
            while not wait([future], timeout=_POLL_SECONDS).done:
                if self._stop is not None:
                    self._stop.check()
            return future.result()
        except CancelledError:
            raise LLMCancelledError(_CLOSED) from None
        finally:
            future.cancel()  # does nothing when it is done

    def _question(self, messages: Sequence[Message], task: str, schema: type[M] | None) -> Question[M]:
        names = self._config.candidates(task)
        if not names:
            raise AllModelsFailedError(
                f"No language model is configured for {task}.", hint="Choose one, for example with --set llm=embedded."
            )
        temperature, max_tokens = self._config.sampling(task)
        return Question(
            task=task,
            messages=tuple(messages),
            model=schema,
            schema=None if schema is None else structured.schema_of(schema),
            temperature=temperature,
            max_tokens=max_tokens,
            candidates=tuple(self._candidate(name) for name in names),
        )

    def _candidate(self, name: str) -> Candidate:
        model = self._config.models[name]
        return Candidate(name, model.id, model.context, model.price, self._config.total(name))

    def _connect(self, name: str) -> ChatModel:
        model = self._model(name)
        return Logged(name, model, self._means.redactor) if LOG.isEnabledFor(logging.DEBUG) else model

    def _model(self, name: str) -> ChatModel:
        if name in self._stand_ins:
            return self._stand_ins[name]
        provider = self._config.models[name].provider
        with self._building:
            if provider not in self._built:
                self._built[provider] = providers.build(provider, self._config.providers[provider], self._surroundings)
            return self._built[provider]

    # -- the record ---------------------------------------------------------------------------------------------

    def _replayed(self, question: Question[M], key: str) -> Completion[Any] | None:
        data = self._recorder.replay(key) if self._recorder else None
        if data is None:
            return None
        if data["error"]:
            raise error_from(data["error"])
        value: Any = data["text"]
        if question.model is not None:
            value = structured.parse(value, question.model)
            if isinstance(value, Rejected):
                raise SchemaError(f"The recorded answer to {question.task} no longer fits: {value.problems[0]}.")
        attempts = tuple(attempt_from(attempt) for attempt in data["attempts"])
        return Completion(value, data["text"], data["model"], usage_from(data["usage"]), attempts, cached=True)

    def _settled(self, question: Question[M], key: str, call_id: str, outcome: Outcome) -> Completion[Any]:
        if self._recorder and outcome.attempts:
            self._recorder.record(key, call_id or question.task, outcome_data(question.task, outcome))
        if outcome.error is not None:
            raise outcome.error
        return Completion(outcome.value, outcome.text, outcome.model, outcome.usage, outcome.attempts)

    # -- the end ------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Cancel calls in flight and free connections and processes, within seconds. Safe to call twice."""
        self._loop.close(self._release)

    async def _release(self) -> None:
        await asyncio.gather(*(model.close() for model in (*self._built.values(), *self._stand_ins.values())))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _key(question: Question[M], call_id: str) -> str:
    return key_of(
        {
            "task": question.task,
            "call": call_id,
            "candidates": [[candidate.name, candidate.id] for candidate in question.candidates],
            "messages": [asdict(message) for message in question.messages],
            "schema": question.schema,
            "sampling": {"temperature": question.temperature, "max_tokens": question.max_tokens},
        }
    )
