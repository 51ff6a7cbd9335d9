"""Whether personas can be told apart: all are asked the same, twice, for the likeliest answer."""

import contextlib
from collections.abc import Mapping, Sequence
from itertools import groupby

from pydantic import ValidationError

from agentlab.errors import AgentlabError, AllModelsFailedError, GateError, RemoteError, UsageError
from agentlab.llm.config import LLMConfig
from agentlab.persona.talk import Answer, Cast, Speaker, Talk
from agentlab.runs.document import Block, Document, Plain, Text, table

KEY = "VLLM_API_KEY"  # what vLLM itself calls it


class Asked(Plain):
    """A persona's answer, and whether an equal request, which took so many seconds, got an equal one.

    `error` says why there is no answer.
    """

    persona: str
    text: str = ""
    output_tokens: int | None = None
    seconds: float | None = None
    repeats: bool = False
    error: str | None = None


class Ping(Document):
    """The answer of `agentlab debate ping`; `identical` are the groups of personas that answer alike."""

    prompt: str
    personas: list[Asked]
    identical: list[list[str]]

    @classmethod
    def of(cls, prompt: str, first: "Answers", again: "Answers", refused: "Reasons") -> "Ping":
        """From the answers to two equal requests, in the order of the personas, and from who could not be asked."""
        asked = [_compared(name, one, again[name]) for name, one in first.items()]
        asked += [Asked(persona=name, error=reason) for name, reason in refused.items()]
        alike = groupby(sorted((each for each in asked if each.error is None), key=_said), key=_said)
        groups = [[each.persona for each in group] for _, group in alike]
        return cls(prompt=prompt, personas=asked, identical=[sorted(group) for group in groups if len(group) > 1])

    def gate(self) -> AgentlabError | None:
        """The error that ends a check of personas: one does not answer, or all answer alike."""
        silent = [each.persona for each in self.personas if each.error is not None]
        if silent:
            return RemoteError(
                f"{len(silent)} of {len(self.personas)} personas do not answer: {', '.join(silent)}.",
                hint="The table says why; `agentlab adapters show NAME` says what an adapter holds.",
            )
        if len(self.personas) < 2 or not self.identical or len(self.identical[0]) < len(self.personas):
            return None
        return GateError(
            f"All personas give the same answer: {', '.join(self.identical[0])}.",
            hint="Is each adapter loaded (vLLM: --enable-lora --lora-modules NAME=PATH)? Or try another prompt.",
        )

    def warnings(self) -> list[str]:
        """What is no failure, but should be known."""
        found = [f"these answer alike: {', '.join(group)}" for group in self.identical]
        changing = [each.persona for each in self.personas if not each.repeats and each.error is None]
        if changing:
            found.append(f"two equal requests got different answers: {', '.join(changing)}")
        return found

    def blocks(self) -> list[Block]:
        """A table of answers."""
        shown = table(
            self.personas,
            {
                "persona": lambda each: each.persona,
                "answer": lambda each: each.text.strip() if each.error is None else f"none: {each.error}",
                "tokens": lambda each: each.output_tokens,
                "seconds": lambda each: None if each.seconds is None else f"{each.seconds:.2f}",
                "same again": lambda each: None if each.error is not None else "yes" if each.repeats else "no",
            },
        )
        return [shown, *map(Text, self.warnings())]


Reasons = Mapping[str, str]  # by persona
Answers = Mapping[str, Answer | str]  # by persona, in their order; a text is the reason why there is none


def _compared(persona: str, first: Answer | str, again: Answer | str) -> Asked:
    if isinstance(first, str) or isinstance(again, str):
        return Asked(persona=persona, error=first if isinstance(first, str) else str(again))
    return Asked(
        persona=persona,
        text=first.text,
        output_tokens=first.output_tokens,
        seconds=again.seconds,  # the first one may have loaded a model
        repeats=first.text == again.text,
    )


def _said(asked: Asked) -> str:
    return asked.text.strip()


def served(base_url: str, names: Sequence[str], env: Mapping[str, str]) -> Cast:
    """Models of an OpenAI-compatible server, such as the adapters of vLLM, as speakers.

    `base_url`: up to and with its /v1; `names`: as the server calls them. `env`: a key in VLLM_API_KEY is sent along.

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


async def ping(talk: Talk, prompt: str, refused: Mapping[str, AgentlabError]) -> Ping:
    """Ask everybody twice; `refused` are those that cannot be asked."""
    reasons = {name: error.message for name, error in refused.items()}
    return Ping.of(prompt, await _answers(talk, prompt), await _answers(talk, prompt), reasons)


async def _answers(talk: Talk, prompt: str) -> Answers:
    talk.reset()
    async with contextlib.aclosing(talk.ask(prompt)) as pieces:
        ended = [(speaker, piece) async for speaker, piece in pieces if not isinstance(piece, str)]
    return {who.name: _reason(who, end) if isinstance(end, AgentlabError) else end for who, end in ended}


def _reason(speaker: Speaker, error: AgentlabError) -> str:
    """Why there is no answer, without the name that the speaker's model has in the config."""
    line = error.failures[0] if isinstance(error, AllModelsFailedError) and error.failures else error.message
    return line.removeprefix(f"{speaker.model}: ")
