"""How a question is answered: by what is known, or by a model and those behind it. Every answer is kept and told."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from agentlab.errors import AgentlabError, LLMCancelledError, MissingFileError, SchemaError
from agentlab.gguf.fingerprint import engine_build
from agentlab.llm.structured import Rejected, fits
from agentlab.pipeline.answer import Answer, Asked, canonical, key_of, sha_of
from agentlab.pipeline.config import PipelineConfig
from agentlab.pipeline.memo import ANSWERED, Known, Memo
from agentlab.pipeline.models import ask_local, ask_remote
from agentlab.pipeline.residents import LocalModel, Residents
from agentlab.pipeline.settings import Engine, Failure, Rung, next_rung
from agentlab.pipeline.store import Store
from agentlab.pipeline.texts import Texts
from agentlab.pipeline.work import FAILURES, Call
from agentlab.runs.run import Run
from agentlab.runs.stop import StopFlag

if TYPE_CHECKING:
    from agentlab.llm.router import Router


@dataclass(frozen=True)
class Asking:
    """Answers calls. `answer` may be called from several threads for models of the router, from one for local ones.

    `mask` hides the secrets of a text: an answer may repeat what it was shown, and it is kept for long.
    """

    config: PipelineConfig
    models: Mapping[str, LocalModel]
    residents: Residents
    router: "Router | None"
    store: Store
    texts: Texts
    memo: Memo
    run: Run
    stop: StopFlag
    mask: Callable[[str], str]
    engines: dict[str, Engine] = field(default_factory=dict)  # settings that a failure has changed

    def answer(self, call: Call, upcoming: Sequence[str] = ()) -> Answer:
        """The answer. `upcoming` are the models that are needed after this call, for what has to be unloaded.

        Raises:
            AgentlabError: every model failed; the error is the first model's.
            Interrupted: a stop was requested.
        """
        known = self.memo.known(call.id, {key_of(self._first(call, name)) for name in self._there(call)})
        if known is not None:  # whoever of them it was that answered
            return known.answer
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

    def _there(self, call: Call) -> list[str]:
        return [n for n in call.models if n in self.models or self.config.models[n].provider == "router"]

    def _tell(self, call: Call) -> Callable[[str], None]:
        return lambda text: self.run.stream("call.text", call.id, text=text)

    # -- models -------------------------------------------------------------------------------------------------

    def _remote(self, call: Call, model: str) -> Answer:
        asked = self._first(call, model)
        known = self._recalled(call, asked, asked)
        if known is not None:
            return known
        assert self.router is not None  # there is one where a model of it is asked
        try:
            said = ask_remote(self.router, self.config, call, model, stop=self.stop, tell=self._tell(call))
        except LLMCancelledError:
            raise
        except FAILURES as error:
            self._failed(call, model, error, None)
            raise
        return self._answered(call, asked, asked, said, "")

    def _local(self, call: Call, model: str, upcoming: Sequence[str]) -> Answer:
        """Down the ladder, until an answer is good or the last rung has failed."""
        if model not in self.models:
            raise MissingFileError(f"The model {model} cannot be used.", hint="See `agentlab pipeline models`.")
        settings = self.engines.get(model) or self.models[model].usable
        wanted, rung = self._first(call, model), Rung(settings, call.drawings[model].max_tokens)
        while True:
            asked = self._asked(call, model, rung)
            known = self._recalled(call, wanted, asked)
            if known is not None:
                return known
            cut = False
            try:
                said = ask_local(
                    self.residents,
                    call,
                    model,
                    rung,
                    seed=_seed(call, rung),
                    upcoming=upcoming,
                    stopped=lambda: self.stop.requested,
                    tell=self._tell(call),
                )
                cut = said.finish == "length"
                _check(said.text, call.schema)
            except LLMCancelledError:
                raise
            except FAILURES as error:
                rung = self._further(call, model, rung, error, cut=cut)
                continue
            self.engines[model] = rung.engine
            return self._answered(call, wanted, asked, said, rung.change)

    def _further(self, call: Call, model: str, rung: Rung, error: AgentlabError, *, cut: bool) -> Rung:
        """The next rung, or the error when there is none."""
        failure = Failure(
            error,
            cut=cut,
            greedy=call.drawings[model].temperature == 0,
            others=bool(set(self.residents.names) - {model}),
            trained=self.models[model].metadata.context_length,
        )
        following = next_rung(rung, failure, call.stage)
        self._failed(call, model, error, following)
        if following is None:
            raise error
        if following.alone and not rung.alone:
            self.residents.only(model)
        return following

    # -- questions ----------------------------------------------------------------------------------------------

    def _first(self, call: Call, model: str) -> Asked:
        """The question as the config puts it, whatever failures have changed since."""
        local = self.config.models[model].provider == "gguf"
        rung = Rung(self.models[model].engine, call.drawings[model].max_tokens) if local else None
        return self._asked(call, model, rung)

    def _asked(self, call: Call, model: str, rung: Rung | None) -> Asked:
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
        return Asked(
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
        there = self.config.llm.models[self.config.models[model].model or ""]
        provider = self.config.llm.providers[there.provider].model_dump(mode="json")
        return f"router:{there.provider}:{there.id}:{sha_of(canonical(provider))[:16]}"

    # -- what is known ------------------------------------------------------------------------------------------

    def _recalled(self, call: Call, wanted: Asked, asked: Asked) -> Answer | None:
        """An answer that needs no model: of the run's parent, or of the store."""
        known = self.memo.inherited(call.id, key_of(wanted))
        if known is None and self.config.cache == "use":
            found = self.store.recall(key_of(asked))
            if found is None and asked == wanted:
                ruled = _as_ruled(call, wanted)
                found = self.store.recall(key_of(ruled)) or self.store.recall(key_of(self._as_pressed(ruled)))
            known = None if found is None else Known(found, "cache")
        if known is None:
            return None
        return self._noted(call, wanted, asked, replace(known.answer, model=asked.model), known.source, "")

    def _answered(self, call: Call, wanted: Asked, asked: Asked, answer: Answer, change: str) -> Answer:
        answer = replace(answer, text=self.mask(answer.text))
        if self.config.cache != "off":
            self.store.remember(key_of(asked), asked, answer)
            if asked != wanted:  # an identical run asks nothing, whatever has led to the change
                changed = asked.numerics != wanted.numerics
                ruled = _as_ruled(call, wanted)
                self.store.remember(key_of(self._as_pressed(ruled) if changed else ruled), wanted, answer)
        return self._noted(call, wanted, asked, answer, "model", change)

    def _as_pressed(self, wanted: Asked) -> Asked:
        """The question with the memory that models may take: with more of it the answer may need no change."""
        budget = self.residents.budget
        return replace(wanted, numerics={**wanted.numerics, "ram": budget.ram, "vram": budget.vram})

    def _noted(self, call: Call, wanted: Asked, asked: Asked, answer: Answer, source: str, change: str) -> Answer:
        """The answer as it is kept: masked once more, since the store may be older than a secret."""
        answer = replace(answer, text=self.mask(answer.text))
        data = {"key": key_of(wanted), "sha": self.texts.put(answer.text), "from": source, "asked": asked.summary()}
        self.run.emit(ANSWERED, call.id, **data, answer=answer.figures(), rung=change)
        return answer

    def _failed(self, call: Call, model: str, error: AgentlabError, following: Rung | None) -> None:
        then = "none" if following is None else following.change
        self.run.emit("call.failed", call.id, kind=error.kind, message=error.message, model=model, rung=then)


def _as_ruled(call: Call, wanted: Asked) -> Asked:
    """The question with the stage's rule for prompts that are too long: what became of it goes by that rule alone."""
    return replace(wanted, numerics={**wanted.numerics, "overflow": call.stage.overflow})


def _seed(call: Call, rung: Rung) -> int:
    """The call's own seed, and at every further try another one that no other sample has."""
    if rung.tries == 0:
        return call.seed
    digest = hashlib.sha256(f"{call.id}:{call.seed}:{rung.tries}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def _check(text: str, schema: Mapping[str, Any] | None) -> None:
    """Raises SchemaError when an answer does not fit."""
    if schema is not None and isinstance(found := fits(text, schema), Rejected):
        raise SchemaError(f"The answer does not fit its schema: {'; '.join(found.problems)}")
