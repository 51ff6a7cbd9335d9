"""The response cache answers what was asked before, and nothing else."""

import itertools

import pytest

from agentlab.llm.ledger.memory import MemoryLedger
from agentlab.llm.options import Options
from agentlab.llm.types import Message, Tool

ASK = (Message("user", "Which?"),)
CACHED = Options(cache=True)


def test_a_known_question_is_not_asked_again(among, speaker):
    ledger, one = MemoryLedger(), speaker("yes")
    first = among({"one": one}, ledger=ledger).complete_sync(ASK, "t", options=CACHED)
    second = among({"one": one}, ledger=ledger).complete_sync(ASK, "t", options=CACHED)
    assert (first.cached, second.cached, second.text, second.model) == (False, True, "yes", "one")
    assert len(one.requests) == 1
    assert second.usage.cost_usd == 0


def test_only_where_it_is_wanted(among, speaker):
    ledger, one = MemoryLedger(), speaker("yes")
    for changes in ({}, {"tasks": {"t": {"cache": False}}, "defaults": {"cache": True}}):
        for _ in range(2):
            assert not among({"one": one}, ledger=ledger, **changes).complete_sync(ASK, "t").cached
    assert len(one.requests) == 4
    for _ in range(2):
        answer = among({"one": one}, ledger=ledger, defaults={"cache": True}).complete_sync(ASK, "t")
    assert answer.cached


# Everything that shapes an answer makes another question of it.
CHANGES = {
    "as it is": {},
    "messages": {"messages": (Message("user", "What?"),)},
    "system": {"messages": (Message("system", "Be brief."), *ASK)},
    "temperature": {"temperature": 0.5},
    "max_tokens": {"max_tokens": 7},
    "seed": {"seed": 1},
    "stop": {"stop": ("x",)},
    "top_p": {"top_p": 0.5},
    "tools": {"tools": (Tool("f", "", {"type": "object"}),)},
    "json": {"json_only": True},
    "schema": {"json_schema": {"type": "object"}},
    "id": {"id": "other"},
    "provider": {"seed_of_script": 5},
}


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(CHANGES, 2)))
def test_another_question_is_asked(among, speaker, first, second):
    ledger = MemoryLedger()
    for name in (first, second):
        change = dict(CHANGES[name])
        messages = change.pop("messages", ASK)
        one = speaker('{"a": 1}')
        models = {"one": {"id": change.pop("id", "one")}}
        providers = {"one": {"kind": "scripted", "seed": change.pop("seed_of_script", 0)}}
        router = among({"one": one}, ledger=ledger, models=models, providers=providers)
        assert not router.complete_sync(messages, "t", options=Options(cache=True, **change)).cached


def test_an_answer_that_was_cut_is_not_kept(among, speaker):
    ledger = MemoryLedger()

    class Cut(speaker):
        async def stream(self, request):
            async for delta in super().stream(request):
                yield type(delta)(delta.text, "length" if delta.finish else None, delta.usage)

    one = Cut("half")
    for _ in range(2):
        assert not among({"one": one}, ledger=ledger).complete_sync(ASK, "t", options=CACHED).cached
