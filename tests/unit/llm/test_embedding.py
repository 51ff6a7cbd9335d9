"""Vectors: one clock for all models, the same guards and budget as for answers, and no fault of a plug-in leaks."""

import asyncio
import time

import pytest

from agentlab import errors
from agentlab.llm.ledger.memory import MemoryLedger
from agentlab.llm.types import Embeddings, Message, Usage


class Embedder:
    """Gives a vector per text after `pause` seconds, or raises."""

    def __init__(self, tokens=4, pause=0.0, fault=None):
        self.usage, self.pause, self.fault, self.asked = Usage(tokens), pause, fault, 0

    async def embed(self, model, texts):
        self.asked += 1
        await asyncio.sleep(self.pause)
        if self.fault is not None:
            raise self.fault
        return Embeddings(((1.0,),) * len(texts), self.usage)

    async def close(self):
        pass


class Kinds(MemoryLedger):
    """Remembers the kinds of the errors, too."""

    def __init__(self):
        super().__init__()
        self.kinds = []

    def record(self, sample):
        self.kinds.append((sample.model, sample.error))
        super().record(sample)


@pytest.fixture
def router_of(among):
    def make(models, price=None, **changes):
        able = {"caps": ["embeddings"], **({"price": price} if price else {})}
        return among(models, models=dict.fromkeys(models, able), **changes)

    return make


def embed(router):
    return asyncio.run(router.embed(["some text"]))


def test_the_next_model_steps_in(router_of):
    models = {"bad": Embedder(fault=errors.ServerFaultError("HTTP 500.")), "good": Embedder()}
    name, embedding = embed(router_of(models))
    assert (name, embedding.vectors, embedding.usage.input_tokens) == ("good", ((1.0,),), 4)


def test_a_host_without_a_place_is_asked_again(router_of):
    class Crowded(Embedder):
        async def embed(self, model, texts):
            self.fault = errors.HostBusyError("no place", connections=3) if self.asked == 0 else None
            return await super().embed(model, texts)

    models = {"busy": Crowded(), "spare": Embedder()}
    assert embed(router_of(models))[0] == "busy"
    assert (models["busy"].asked, models["spare"].asked) == (2, 0)


def test_texts_that_nobody_takes_are_told_as_the_first_one_did(router_of):
    models = {name: Embedder(fault=errors.BadRequestError(f"{name} takes no text")) for name in "ab"}
    with pytest.raises(errors.BadRequestError, match="a: a takes no text") as caught:
        embed(router_of(models))
    assert caught.value.hint
    assert (models["a"].asked, models["b"].asked) == (1, 1)


def test_one_clock_runs_for_all_models(router_of):
    ledger, models = Kinds(), {name: Embedder(pause=9) for name in "abc"}
    router = router_of(models, ledger=ledger, defaults={"timeout": {"total": 0.3}})
    for call in range(5):
        start = time.monotonic()
        with pytest.raises(errors.AllModelsFailedError) as caught:
            embed(router)
        assert time.monotonic() - start < 0.8
        if not call:
            assert [line.split(": ")[1] for line in caught.value.failures] == ["LLMTimeoutError"] * 3
    assert [kind for kind in ledger.kinds if kind[0] == "a"] == [("a", "LLMTimeoutError")] * 5
    assert router.guards["a"].state(time.monotonic()) == "open"


def test_a_silent_model_leaves_the_next_its_share_of_the_clock(router_of):
    models = {"silent": Embedder(pause=9), "good": Embedder()}
    assert embed(router_of(models, defaults={"timeout": {"total": 0.4}}))[0] == "good"


def test_a_model_that_cannot_make_vectors_keeps_no_place_and_no_probe(router_of, speaker):
    router = router_of({"a": speaker(errors.LLMConnectionError("gone"))}, defaults={"retries": 0})
    for _ in range(4):
        with pytest.raises(errors.AllModelsFailedError):
            router.complete_sync([Message("user", "hi")], "t")
    guard = router.guards["a"]
    assert guard.state(time.monotonic()) == "open"
    with pytest.raises(errors.BadRequestError, match="not support embeddings"):
        embed(router)
    assert guard.state(time.monotonic()) == "open"  # a probe on its way would make it half-open


def test_a_model_out_of_use_says_why_and_what_to_do(router_of):
    model = Embedder(fault=errors.AuthError("HTTP 401.", hint="Check A_KEY."))
    router = router_of({"a": model})
    for words in ("AuthError: HTTP 401.", "AuthError: Not asked again: HTTP 401."):
        with pytest.raises(errors.AllModelsFailedError, match=words) as caught:
            embed(router)
        assert caught.value.hint == "Check A_KEY."
    assert model.asked == 1


def test_what_a_plug_in_raises_is_told_without_its_words(router_of):
    model = Embedder(fault=KeyError("sk-canary"))
    with pytest.raises(errors.AllModelsFailedError, match="ServerFaultError: The provider failed: KeyError") as caught:
        embed(router_of({"a": model}))
    assert "canary" not in str(caught.value.failures)


def test_vectors_without_usage_are_charged_at_their_estimate(router_of):
    router = router_of({"a": Embedder(None)}, price={"input": 1000, "output": 0}, budget={"per_run_usd": 0.03})
    for _ in range(2):  # of about 0.011 USD each
        embed(router)
    with pytest.raises(errors.BudgetExceededError):
        embed(router)
    assert router.usage.cost_usd is None  # assumed is not known
