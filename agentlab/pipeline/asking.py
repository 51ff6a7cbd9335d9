"""How a question is answered: by what is known, or by a model and those behind it. Every answer is kept and told."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from agentlab.errors import AgentlabError, LLMCancelledError, MissingFileError, SchemaError
from agentlab.gguf.fingerprint import engine_build
from agentlab.llm.structured import Rejected, fits
from agentlab.pipeline.answer import PipelineAnswer, PipelineQuestion, canonical, key_of, sha_of
from agentlab.pipeline.config import PipelineConfig
from agentlab.pipeline.known_answers import ANSWERED, Known, KnownAnswers
from agentlab.pipeline.loaded_models import LoadedModels, PipelineLocalModel
from agentlab.pipeline.models import ask_local, ask_remote
from agentlab.pipeline.settings import Engine, Rung, RungFailure, next_rung
from agentlab.pipeline.step_questions import FAILURES, PipelineCall, derive_seed
from agentlab.pipeline.store import Store
from agentlab.pipeline.text_store import RunTexts
from agentlab.runs.run import OpenRun
from agentlab.runs.stop import StopFlag

if TYPE_CHECKING:
    from agentlab.llm.router import Router


@dataclass(frozen=True)
class Asking:
    """Answers calls. `answer` may be called from several threads for models of the router, from one for local ones.

    `mask` hides the secrets of a text: an answer may repeat what it was shown, and it is kept for long.
    """

    config: PipelineConfig
    models: Mapping[str, PipelineLocalModel]
    loaded_models: LoadedModels
    router: "Router | None"
    store: Store
    texts: RunTexts
    known_answers: KnownAnswers
    run: OpenRun
    stop: StopFlag
    mask: Callable[[str], str]
    engines: dict[str, Engine] = field(default_factory=dict)  # settings that a failure has changed

    def answer(self, call: PipelineCall, upcoming: Sequence[str] = ()) -> PipelineAnswer:
        """The answer. `upcoming` are the models that are needed after this call, for what has to be unloaded.

        Raises:
            AgentlabError: every model failed; the error is the first model's.
            Interrupted: a stop was requested.
        """
        usable = [n for n in call.models if n in self.models or self.config.models[n].provider == "router"]
        keys = {key_of(self._first(call, name)) for name in usable}
        known_answer = self.known_answers.find_answer(call.id, keys)
        if known_answer is not None:  # whoever of them it was that answered
            return known_answer.answer
        failed: AgentlabError | None = None
        for model in call.models:
            self.stop.check()
            try:
                if self.config.models[model].provider == "router":
                    return self._remote(call, model)
                return self._local(call, model, upcoming)
            except LLMCancelledError:
                self.stop.check()
                raise
            except FAILURES as error:
                failed = failed or error
        assert failed is not None
        raise failed

    def _tell(self, call: PipelineCall) -> Callable[[str], None]:
        return lambda text: self.run.stream("call.text", call.id, text=text)

    # -- models -------------------------------------------------------------------------------------------------

    def _remote(self, call: PipelineCall, model: str) -> PipelineAnswer:
        question = self._first(call, model)
        known_answer = self._recall(call, question, question)
        if known_answer is not None:
            return known_answer
        assert self.router is not None  # there is one where a model of it is asked
        try:
            answer = ask_remote(self.router, self.config, call, model, stop=self.stop, tell=self._tell(call))
        except LLMCancelledError:
            raise
        except FAILURES as error:
            self._note_failure(call, model, error, None)
            raise
        return self._keep_answer(call, question, question, answer, "")

    def _local(self, call: PipelineCall, model: str, upcoming: Sequence[str]) -> PipelineAnswer:
        """Down the ladder, until an answer is good or the last rung has failed."""
        if model not in self.models:
            raise MissingFileError(f"The model {model} cannot be used.", hint="See `agentlab pipeline models CONFIG`.")
        settings = self.engines.get(model) or self.models[model].usable
        original, rung = self._first(call, model), Rung(settings, call.drawings[model].max_tokens)
        while True:
            question = self._build_question(call, model, rung)
            known_answer = self._recall(call, original, question)
            if known_answer is not None:
                return known_answer
            cut = False
            try:
                answer = ask_local(
                    self.loaded_models,
                    call,
                    model,
                    rung,
                    seed=_seed(call, rung),
                    upcoming=upcoming,
                    stopped=lambda: self.stop.is_requested,
                    tell=self._tell(call),
                )
                cut = answer.finish == "length"
                _check(answer.text, call.schema)
            except LLMCancelledError:
                raise
            except FAILURES as error:
                rung = self._further(call, model, rung, error, cut=cut)
                continue
            self.engines[model] = rung.engine
            return self._keep_answer(call, original, question, answer, rung.change)

    def _further(self, call: PipelineCall, model: str, rung: Rung, error: AgentlabError, *, cut: bool) -> Rung:
        """The next rung, or the error when there is none."""
        failure = RungFailure(
            error,
            cut=cut,
            greedy=call.drawings[model].temperature == 0,
            others=bool(set(self.loaded_models.names) - {model}),
            trained=self.models[model].metadata.context_length,
        )
        following = next_rung(rung, failure, call.stage)
        self._note_failure(call, model, error, following)
        if following is None:
            raise error
        if following.alone and not rung.alone:
            self.loaded_models.only(model)
        return following

    # -- questions ----------------------------------------------------------------------------------------------

    def _first(self, call: PipelineCall, model: str) -> PipelineQuestion:
        """The question as the config puts it, whatever failures have changed since."""
        local = self.config.models[model].provider == "gguf"
        rung = Rung(self.models[model].engine, call.drawings[model].max_tokens) if local else None
        return self._build_question(call, model, rung)

    def _build_question(self, call: PipelineCall, model: str, rung: Rung | None) -> PipelineQuestion:
        """Everything that decides the answer. n_ctx and threads do not: they change no bit of it."""
        drawing = call.drawings[model]
        if rung is None:
            fingerprint, numerics = self._remote_fingerprint(model), dict[str, Any]()
        else:
            fingerprint = self.models[model].fingerprint
            numerics = {
                "batch": rung.engine.batch,
                "flash": rung.engine.flash,
                "repack": rung.engine.repack,
                "kv_type": rung.engine.kv_type,
                "gpu_layers": rung.engine.gpu_layers,
                "engine": engine_build(),
            }
        greedy = rung is not None and drawing.temperature == 0  # the engine's likeliest answer has no seed
        return PipelineQuestion(
            messages=call.prompt(1.0 if rung is None else rung.keep),
            model=model,
            fingerprint=fingerprint,
            numerics=numerics,
            temperature=drawing.temperature,
            top_p=drawing.top_p,
            max_tokens=drawing.max_tokens if rung is None else rung.max_tokens,
            seed=None if greedy else call.seed if rung is None else _seed(call, rung),
            stop=call.stop,
            schema=call.schema,
            logprob=call.logprob,
        )

    def _remote_fingerprint(self, model: str) -> str:
        """Which endpoint and model it is: two servers under one name are two."""
        remote_model = self.config.llm.models[self.config.models[model].model or ""]
        provider = self.config.llm.providers[remote_model.provider].model_dump(mode="json")
        return f"router:{remote_model.provider}:{remote_model.id}:{sha_of(canonical(provider))[:16]}"

    # -- what is known ------------------------------------------------------------------------------------------

    def _recall(
        self, call: PipelineCall, original: PipelineQuestion, question: PipelineQuestion
    ) -> PipelineAnswer | None:
        """An answer that needs no model: of the run's parent, or of the store."""
        key = key_of(original)
        known_answer = self.known_answers.find_inherited(call.id, key)
        if known_answer is None and self.config.cache == "use":
            stored_answer = self.store.recall(key_of(question))
            if stored_answer is None and question == original:
                ruled = _as_ruled(call, original)
                stored_answer = self.store.recall(key_of(ruled)) or self.store.recall(key_of(self._as_pressed(ruled)))
            known_answer = None if stored_answer is None else Known(stored_answer, "cache")
        if known_answer is None:
            return None
        answer = replace(known_answer.answer, model=question.model)
        return self._note_answer(call, key, question, answer, known_answer.source, "")

    def _keep_answer(
        self,
        call: PipelineCall,
        original: PipelineQuestion,
        question: PipelineQuestion,
        answer: PipelineAnswer,
        change: str,
    ) -> PipelineAnswer:
        answer = replace(answer, text=self.mask(answer.text))
        if self.config.cache != "off":
            self.store.remember(key_of(question), question, answer)
            if question != original:  # an identical run asks nothing, whatever has led to the change
                changed = question.numerics != original.numerics
                ruled = _as_ruled(call, original)
                self.store.remember(key_of(self._as_pressed(ruled) if changed else ruled), original, answer)
        return self._note_answer(call, key_of(original), question, answer, "model", change)

    def _as_pressed(self, question: PipelineQuestion) -> PipelineQuestion:
        """The question with the memory that models may take: with more of it the answer may need no change."""
        budget = self.loaded_models.budget
        return replace(question, numerics={**question.numerics, "ram": budget.ram, "vram": budget.vram})

    def _note_answer(
        self, call: PipelineCall, key: str, question: PipelineQuestion, answer: PipelineAnswer, source: str, change: str
    ) -> PipelineAnswer:
        """The answer as it is kept: masked once more, since the store may be older than a secret."""
        answer = replace(answer, text=self.mask(answer.text))
        data = {"key": key, "sha": self.texts.put(answer.text), "from": source, "asked": question.summary()}
        self.run.emit(ANSWERED, call.id, **data, answer=answer.figures(), rung=change)
        return answer

    def _note_failure(self, call: PipelineCall, model: str, error: AgentlabError, following: Rung | None) -> None:
        next_change = "none" if following is None else following.change
        self.run.emit("call.failed", call.id, kind=error.kind, message=error.message, model=model, rung=next_change)


def _as_ruled(call: PipelineCall, question: PipelineQuestion) -> PipelineQuestion:
    """The question with the stage's rule for prompts that are too long: what became of it goes by that rule alone."""
    return replace(question, numerics={**question.numerics, "overflow": call.stage.overflow})


def _seed(call: PipelineCall, rung: Rung) -> int:
    """The call's own seed, and at every further try another one that no other sample has."""
    return call.seed if rung.tries == 0 else derive_seed(call.id, call.seed, rung.tries)


def _check(text: str, schema: Mapping[str, Any] | None) -> None:
    if schema is not None and isinstance(fitted_value := fits(text, schema), Rejected):
        raise SchemaError(f"The answer does not match the response schema: {'; '.join(fitted_value.problems)}")
