"""Whether personas can be told apart: all are asked the same, twice, for the likeliest answer."""

import contextlib
from collections.abc import Mapping, Sequence
from itertools import groupby

from pydantic import ValidationError

from agentlab.errors import AgentlabError, AllModelsFailedError, GateError, RemoteError, UsageError
from agentlab.llm.config import LLMConfig
from agentlab.persona.talk import Cast, Speaker, SpeakerAnswer, Talk
from agentlab.runs.document import AnswerDocument, Block, Plain, Text, table

KEY = "VLLM_API_KEY"  # what vLLM itself calls it


class PingReply(Plain):
    """A persona's answer, and whether an equal request, which took so many seconds, got an equal one.

    `error` says why there is no answer.
    """

    persona: str
    text: str = ""
    output_tokens: int | None = None
    seconds: float | None = None
    repeats: bool = False
    error: str | None = None


class Ping(AnswerDocument):
    """The answer of `agentlab debate ping`; `identical` are the groups of personas that answer alike."""

    prompt: str
    personas: list[PingReply]
    identical: list[list[str]]

    @classmethod
    def of(cls, prompt: str, first: "Answers", second: "Answers", refused: "Reasons") -> "Ping":
        """From the answers to two equal requests, in the order of the personas, and from who could not be asked."""
        replies = [_compare_answers(name, answer, second[name]) for name, answer in first.items()]
        replies += [PingReply(persona=name, error=reason) for name, reason in refused.items()]
        answering = sorted((reply for reply in replies if reply.error is None), key=_reply_text)
        identical: list[list[str]] = []
        for _, group in groupby(answering, key=_reply_text):
            names = sorted(reply.persona for reply in group)
            if len(names) > 1:
                identical.append(names)
        return cls(prompt=prompt, personas=replies, identical=identical)

    def gate(self) -> AgentlabError | None:
        """The error that ends a check of personas: one does not answer, or all answer alike."""
        if silent := [reply.persona for reply in self.personas if reply.error is not None]:
            return RemoteError(
                f"{len(silent)} of {len(self.personas)} personas did not answer: {', '.join(silent)}.",
                hint="See the errors in the table; run `agentlab adapters show NAME` to inspect an adapter.",
            )
        if len(self.personas) < 2 or not self.identical or len(self.identical[0]) < len(self.personas):
            return None
        return GateError(
            f"All personas give the same answer: {', '.join(self.identical[0])}.",
            hint="Check that each adapter is loaded (vLLM: --enable-lora --lora-modules NAME=PATH), "
            "or try another prompt.",
        )

    def warnings(self) -> list[str]:
        messages = [f"these personas give the same answer: {', '.join(group)}" for group in self.identical]
        if changing := [reply.persona for reply in self.personas if not reply.repeats and reply.error is None]:
            messages.append(f"two identical requests got different answers: {', '.join(changing)}")
        return messages

    def blocks(self) -> list[Block]:
        answer_table = table(
            self.personas,
            {
                "persona": lambda reply: reply.persona,
                "answer": lambda reply: reply.text.strip() if reply.error is None else f"error: {reply.error}",
                "tokens": lambda reply: reply.output_tokens,
                "seconds": lambda reply: None if reply.seconds is None else f"{reply.seconds:.2f}",
                "repeatable": lambda reply: None if reply.error is not None else "yes" if reply.repeats else "no",
            },
        )
        return [answer_table, *map(Text, self.warnings())]


Reasons = Mapping[str, str]  # by persona
Answers = Mapping[str, SpeakerAnswer | str]  # by persona, in their order; a text is the reason why there is none


def _compare_answers(persona: str, first: SpeakerAnswer | str, second: SpeakerAnswer | str) -> PingReply:
    if isinstance(first, str) or isinstance(second, str):
        return PingReply(persona=persona, error=first if isinstance(first, str) else str(second))
    return PingReply(
        persona=persona,
        text=first.text,
        output_tokens=first.output_tokens,
        seconds=second.seconds,  # the first one may have loaded a model
        repeats=first.text == second.text,
    )


def _reply_text(reply: PingReply) -> str:
    return reply.text.strip()


def cast_of_server(base_url: str, names: Sequence[str], env: Mapping[str, str]) -> Cast:
    """Models of an OpenAI-compatible server, such as the adapters of vLLM, as speakers.

    `base_url`: up to and with its /v1; `names`: as the server calls them. `env`: a key in VLLM_API_KEY is sent along.

    Raises:
        UsageError: the URL is none, or would send a key without TLS.
    """
    key = {"api_key": f"${{{KEY}}}"} if env.get(KEY) else {}
    models = {f"persona-{number}": name for number, name in enumerate(dict.fromkeys(names), 1)}
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
        endings = [(speaker, piece) async for speaker, piece in pieces if not isinstance(piece, str)]
    return {speaker.name: _reason(speaker, end) if isinstance(end, AgentlabError) else end for speaker, end in endings}


def _reason(speaker: Speaker, error: AgentlabError) -> str:
    """Why there is no answer, without the name that the speaker's model has in the config."""
    line = error.failures[0] if isinstance(error, AllModelsFailedError) and error.failures else error.message
    return line.removeprefix(f"{speaker.model}: ")
