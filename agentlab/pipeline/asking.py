"""One question of the pipeline: from what is known, from the workspace's store, or from a model and those behind it."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from agentlab.errors import (
    AgentlabError,
    ConfigError,
    GateError,
    LLMCancelledError,
    MissingFileError,
    ModelFileError,
    RemoteError,
    SchemaError,
)
from agentlab.gguf.fingerprint import engine_build
from agentlab.llm.structured import Rejected
from agentlab.pipeline.aggregation.fit import fits
from agentlab.pipeline.answer import Answer, Asked, key_of
from agentlab.pipeline.config import PipelineConfig
from agentlab.pipeline.ladder import Failure, Rung, next_rung
from agentlab.pipeline.memo import ANSWERED, Known, Memo
from agentlab.pipeline.residents import Residents
from agentlab.pipeline.settings import Drawing, Engine, engine_of
from agentlab.pipeline.sizing import LocalModel
from agentlab.pipeline.stage_config import Stage
from agentlab.pipeline.store import Store
from agentlab.runs.run import Run
from agentlab.runs.stop import StopFlag
from agentlab.workers.chat import ChatRequest, Chunk

if TYPE_CHECKING:
    from agentlab.llm.router import Router

TASK = "pipeline"
_TELL_SECONDS = 0.05  # how often tokens are passed on
# After these another model may be asked, and `on_error` decides when none is left. ConfigError: a template meets an
# answer that lacks what it uses.
FAILURES = (RemoteError, ModelFileError, MissingFileError, GateError, ConfigError)

Messages = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Call:
    """One question.

    Attributes:
        id: within the run; see `units` for how ids are made.
        models: who is asked, and who stands in, in that order.
        prompt: the messages, of the share of the input that they show.
        drawings: how the answer is drawn from each of the models.
        stop: texts that end the answer.
    """

    id: str
    stage: Stage
    models: tuple[str, ...]
    prompt: Callable[[float], Messages]
    drawings: Mapping[str, Drawing]
    seed: int
    schema: Mapping[str, Any] | None = None
    logprob: bool = False
    stop: tuple[str, ...] = ()


class Asking:
    """Answers calls. `answer` may be called from several threads for models of the router, from one for local ones."""

    def __init__(
        self,
        config: PipelineConfig,
        *,
        models: Mapping[str, LocalModel],
        residents: Residents,
        router: "Router | None",
        store: Store,
        memo: Memo,
        run: Run,
        stop: StopFlag,
        scrub: Callable[[str], str],
    ) -> None:
        """`scrub` masks the secrets of a text: an answer may repeat what it was shown, and it is kept for long."""
        self._config, self._models, self._residents, self._router = config, models, residents, router
        self._store, self._memo, self._run, self._stop, self._scrub = store, memo, run, stop, scrub
        self._engines: dict[str, Engine] = {}  # settings that a want of memory has changed

    def answer(self, call: Call, upcoming: Sequence[str] = ()) -> Answer:
        """The answer. `upcoming` are the models that are needed after this call, for what has to be unloaded.

        Raises:
            AgentlabError: every model failed; the error is the first model's.
            Interrupted: a stop was requested.
        """
        failed: AgentlabError | None = None
        for model in call.models:
            self._stop.check()
            try:
                if self._config.models[model].provider == "router":
                    return self._remote(call, model)
                return self._local(call, model, upcoming)
            except LLMCancelledError:
                self._stop.check()
                raise
            except FAILURES as error:
                failed = failed or error
        assert failed is not None
        raise failed

    # -- local models -------------------------------------------------------------------------------------------

    def _local(self, call: Call, model: str, upcoming: Sequence[str]) -> Answer:
        if model not in self._models:
            raise MissingFileError(f"The model {model} cannot be used.", hint="See `agentlab pipeline models`.")
        settings = self._engines.get(model) or engine_of(self._config, model)
        rung = Rung(settings, call.drawings[model].max_tokens)
        wanted = key_of(self._asked(call, model, rung))
        while True:
            asked = self._asked(call, model, rung)
            known = self._known(call, wanted, key_of(asked), asked, rung)
            if known is not None:
                return known
            last: list[Chunk] = []
            try:
                answer = self._generated(call, model, rung, upcoming, last)
            except FAILURES as error:
                if isinstance(error, LLMCancelledError):
                    raise
                others = len(set(self._residents.names) - {model}) > 0
                cut = bool(last) and last[-1].finish == "length"
                trained = self._models[model].metadata.context_length
                greedy = call.drawings[model].temperature == 0
                following = next_rung(rung, Failure(error, cut, greedy, others, trained), call.stage)
                self._failed(call, model, error, "" if following is None else following.change)
                if following is None:
                    raise
                if following.alone and not rung.alone:
                    self._residents.only(model)
                rung = following
                continue
            if rung.engine != settings and call.stage.overflow != "grow":
                self._engines[model] = rung.engine
            return self._answered(call, wanted, asked, answer, rung)

    def _generated(self, call: Call, model: str, rung: Rung, upcoming: Sequence[str], last: list[Chunk]) -> Answer:
        """Ask the engine, and pass on what it says while it says it."""
        drawing = call.drawings[model]
        stopped = self._requested
        engine = self._residents.engine(model, rung.engine, upcoming=upcoming, cancelled=stopped)
        question = ChatRequest(
            messages=[{"role": role, "content": content} for role, content in call.prompt(rung.keep)],
            schema=call.schema,
            max_tokens=rung.max_tokens,
            temperature=drawing.temperature,
            seed=(call.seed + rung.tries) % 2**32,
            seconds=drawing.seconds,
            stop=call.stop,
            top_p=drawing.top_p,
            logprob=call.logprob,
        )
        said: list[str] = []
        told, then = 0, time.monotonic()
        for chunk in engine.chat(question, cancelled=stopped):
            said.append(chunk.text)
            last[:] = [chunk]
            if (now := time.monotonic()) - then > _TELL_SECONDS or chunk.finish is not None:
                self._run.stream("call.text", call.id, text="".join(said[told:]))
                told, then = len(said), now
        text, end = "".join(said), last[-1]
        _checked(text, call.schema)
        return Answer(
            text=text,
            finish=end.finish or "stop",
            model=model,
            prompt_tokens=end.prompt_tokens,
            completion_tokens=end.completion_tokens,
            reused_tokens=end.reused_tokens,
            prefill_seconds=end.prefill_seconds,
            decode_seconds=end.decode_seconds,
            logprob=end.logprob,
            cost_usd=None,
        )

    def _requested(self) -> bool:
        return self._stop.requested

    # -- remote models ------------------------------------------------------------------------------------------

    def _remote(self, call: Call, model: str) -> Answer:
        from agentlab.llm.options import Options
        from agentlab.llm.types import Message

        drawing = call.drawings[model]
        asked = self._asked(call, model, None)
        key = key_of(asked)
        known = self._known(call, key, key, asked, None)
        if known is not None:
            return known
        options = Options(
            model=self._config.models[model].model,
            temperature=drawing.temperature,
            max_tokens=drawing.max_tokens,
            seed=call.seed,
            top_p=drawing.top_p,
            stop=call.stop,
            json_schema=call.schema,
        )
        messages = [Message(role, content) for role, content in call.prompt(1.0)]  # type: ignore[arg-type] # system, user
        assert self._router is not None  # there is one where a model of it is asked
        try:
            said = self._router.complete_sync(messages, TASK, call_id=call.id, options=options)
        except FAILURES as error:
            self._failed(call, model, error, "")
            raise
        answer = Answer(
            text=said.text,
            finish=said.finish,
            model=model,
            prompt_tokens=said.usage.input_tokens,
            completion_tokens=said.usage.output_tokens,
            reused_tokens=None,
            prefill_seconds=said.timing.first if said.timing else None,
            decode_seconds=said.timing.total - (said.timing.first or 0.0) if said.timing else None,
            logprob=None,
            cost_usd=said.usage.cost_usd,
        )
        return self._answered(call, key, asked, answer, None)

    # -- what is known ------------------------------------------------------------------------------------------

    def _asked(self, call: Call, model: str, rung: Rung | None) -> Asked:
        """Everything that decides the answer. n_ctx and threads do not: they change no bit of it."""
        drawing = call.drawings[model]
        entry = self._config.models[model]
        if rung is None:
            there = self._config.llm.models[entry.model or ""]
            fingerprint, numerics = f"router:{there.provider}:{there.id}", dict[str, Any]()
        else:
            fingerprint = self._models[model].fingerprint
            numerics = {
                "batch": rung.engine.batch,
                "flash": rung.engine.flash,
                "kv_type": rung.engine.kv_type,
                "gpu_layers": rung.engine.gpu_layers,
                "engine": engine_build(),
            }
        return Asked(
            messages=call.prompt(1.0 if rung is None else rung.keep),
            model=model,
            fingerprint=fingerprint,
            numerics=numerics,
            temperature=drawing.temperature,
            top_p=drawing.top_p,
            max_tokens=drawing.max_tokens if rung is None else rung.max_tokens,
            seed=_seed(call, rung, drawing),
            stop=call.stop,
            schema=call.schema,
            logprob=call.logprob,
        )

    def _known(self, call: Call, wanted: str, key: str, asked: Asked, rung: Rung | None) -> Answer | None:
        """An answer that needs no model: of this run, of its parent, or of the store."""
        own = self._memo.known(call.id, wanted)
        if own is not None:
            return own.answer
        known = self._memo.inherited(call.id, wanted)
        if known is None and self._config.cache == "use":
            found = self._store.recall(key)
            known = None if found is None else Known(found[0], found[1], "cache")
        if known is None:
            return None
        answer = replace(known.answer, model=asked.model)
        self._tell(call, wanted, asked, answer, known.sha, known.source, rung)
        return answer

    def _answered(self, call: Call, wanted: str, asked: Asked, answer: Answer, rung: Rung | None) -> Answer:
        answer = replace(answer, text=self._scrub(answer.text))
        if self._config.cache == "off":
            sha = self._store.put(answer.text)
        else:
            sha = self._store.remember(key_of(asked), asked, answer)
        self._tell(call, wanted, asked, answer, sha, "model", rung)
        return answer

    def _tell(
        self, call: Call, wanted: str, asked: Asked, answer: Answer, sha: str, source: str, rung: Rung | None
    ) -> None:
        data = {"key": wanted, "sha": sha, "from": source, "asked": asked.summary(), "answer": answer.figures()}
        self._run.emit(ANSWERED, call.id, **data, rung="" if rung is None else rung.change)

    def _failed(self, call: Call, model: str, error: AgentlabError, following: str) -> None:
        self._run.emit(
            "call.failed", call.id, kind=error.kind, message=error.message, model=model, rung=following or "none"
        )


def _seed(call: Call, rung: Rung | None, drawing: Drawing) -> int | None:
    """The seed as far as it decides the answer: the engine's likeliest one has none."""
    if rung is None:
        return call.seed
    return None if drawing.temperature == 0 else (call.seed + rung.tries) % 2**32


def _checked(text: str, schema: Mapping[str, Any] | None) -> None:
    """Raises SchemaError when an answer does not fit."""
    if schema is not None and isinstance(found := fits(text, schema), Rejected):
        raise SchemaError(f"The answer does not fit its schema: {'; '.join(found.problems)}")
