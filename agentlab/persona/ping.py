"""Whether personas can be told apart: all are asked the same, twice, for the likeliest answer."""

import contextlib
from collections.abc import Mapping, Sequence
from itertools import groupby

from pydantic import ValidationError

from agentlab.errors import AgentlabError, GateError, UsageError
from agentlab.llm.config import LLMConfig
from agentlab.persona.talk import Answer, Cast, Speaker, Talk
from agentlab.runs.document import Block, Document, Plain, Text, table

KEY = "VLLM_API_KEY"  # what vLLM itself calls it


class Asked(Plain):
    """A persona's answer, and whether an equal request, which took so many seconds, got an equal one."""

    persona: str
    text: str
    output_tokens: int | None
    seconds: float | None
    repeats: bool


class Ping(Document):
    """The answer of `agentlab debate ping`; `identical` are the groups of personas that answer alike."""

    prompt: str
    personas: list[Asked]
    identical: list[list[str]]

    @classmethod
    def of(cls, prompt: str, first: Sequence[Answer], again: Sequence[Answer]) -> "Ping":
        """From the answers to two equal requests, in the order of the personas."""
        asked = [
            Asked(
                persona=one.speaker,
                text=one.text,
                output_tokens=one.output_tokens,
                seconds=other.seconds,  # the first one may have loaded a model
                repeats=one.text == other.text,
            )
            for one, other in zip(first, again, strict=True)
        ]
        alike = groupby(sorted(asked, key=_said), key=_said)
        groups = [[each.persona for each in group] for _, group in alike]
        return cls(prompt=prompt, personas=asked, identical=[sorted(group) for group in groups if len(group) > 1])

    def gate(self) -> GateError | None:
        """The error that ends a check of personas that all answer alike; None where two of them differ."""
        if len(self.personas) < 2 or not self.identical or len(self.identical[0]) < len(self.personas):
            return None
        return GateError(
            f"All personas give the same answer: {', '.join(self.identical[0])}.",
            hint="Is each adapter loaded (vLLM: --enable-lora --lora-modules NAME=PATH)? Or try another prompt.",
        )

    def warnings(self) -> list[str]:
        """What is no failure, but should be known."""
        found = [f"these answer alike: {', '.join(group)}" for group in self.identical]
        changing = [each.persona for each in self.personas if not each.repeats]
        if changing:
            found.append(f"two equal requests got different answers: {', '.join(changing)}")
        return found

    def blocks(self) -> list[Block]:
        """A table of answers."""
        shown = table(
            self.personas,
            {
                "persona": lambda each: each.persona,
                "answer": lambda each: each.text.strip(),
                "tokens": lambda each: each.output_tokens,
                "seconds": lambda each: None if each.seconds is None else f"{each.seconds:.2f}",
                "same again": lambda each: "yes" if each.repeats else "no",
            },
        )
        return [shown, *map(Text, self.warnings())]


def _said(asked: Asked) -> str:
    return asked.text.strip()


def served(base_url: str, names: Sequence[str], env: Mapping[str, str]) -> Cast:
    """Models of an OpenAI-compatible server, such as the adapters of vLLM, as speakers.

    Args:
        base_url: up to and with its /v1.
        names: as the server calls them.
        env: a key in VLLM_API_KEY is sent along.

    Raises:
        UsageError: the URL is none, or would send a key without TLS.
    """
    key = {"api_key": f"${{{KEY}}}"} if env.get(KEY) else {}
    models = {f"persona-{place}": name for place, name in enumerate(dict.fromkeys(names), 1)}
    tree = {
        "providers": {"server": {"kind": "openai_compat", "base_url": base_url, **key}},
        "models": {model: {"provider": "server", "id": name} for model, name in models.items()},
        "roles": {"primary": list(models)},
    }
    speakers = tuple(Speaker(name, model) for model, name in models.items())
    try:
        return Cast(LLMConfig.model_validate(tree, context={"env": env}), speakers)
    except ValidationError as error:
        raise UsageError(f"--base-url: {error.errors()[0]['msg'].removeprefix('Value error, ')}.") from error


async def ping(talk: Talk, prompt: str) -> Ping:
    """Ask everybody twice.

    Raises:
        AgentlabError: of the first persona that did not answer.
    """
    return Ping.of(prompt, await _answers(talk, prompt), await _answers(talk, prompt))


async def _answers(talk: Talk, prompt: str) -> list[Answer]:
    talk.reset()
    found = list[Answer]()
    async with contextlib.aclosing(talk.ask(prompt)) as pieces:
        async for _, piece in pieces:
            if isinstance(piece, AgentlabError):
                raise piece
            if isinstance(piece, Answer):
                found.append(piece)
    return found
