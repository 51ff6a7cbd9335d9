"""What all providers behind HTTP share: their key, and errors that come out without it and with the next step."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol

from agentlab import errors
from agentlab.llm.provider_config import EndpointConfig, host_of, require_trust
from agentlab.llm.providers import ProviderContext
from agentlab.llm.providers.faults import error_from
from agentlab.llm.transport import HttpReply, Transport
from agentlab.llm.types import Delta
from agentlab.runs.redact import Redactor

_USAGE_SECONDS = 1.0  # how long the usage may come after the last piece of an answer
_KEY_PAGES = {
    "openrouter.ai": "https://openrouter.ai/keys",
    "api.openai.com": "https://platform.openai.com/api-keys",
    "api.anthropic.com": "https://console.anthropic.com/settings/keys",
}
_REFUSES = re.compile(
    r"unsupported|not support|deprecated|both be specified|not permitted|unrecognized|unknown (parameter|field)"
)


class RefusableFields:
    """Words of a request that single models of one endpoint refuse, learnt from the refusal.

    One protocol serves many models, and some of the newer ones take no `temperature`, or want `max_tokens` under
    another name. Which ones changes too fast for a table of names: the first refusal is believed, and the model is
    asked again without the word. Only words without which an answer is still an answer may be listed.
    """

    def __init__(self, words: Mapping[str, str | None]) -> None:
        """`words` may be refused, the first that is named by a refusal first; None, or what is said instead."""
        self._words = words
        self._refused: dict[str, set[str]] = {}

    def put(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """The body as the model that it names takes it."""
        refused = self._refused.get(body["model"], ())
        names = {word: self._words[word] if word in refused else word for word in body}
        return {name: body[word] for word, name in names.items() if name is not None}

    def learn(self, body: Mapping[str, Any], error: errors.BadRequestError) -> bool:
        """Whether the error refuses a word that was in the body, so that asking again without it helps."""
        message = error.message.lower()
        if not _REFUSES.search(message):
            return False
        word = next((word for word in self._words if word in body and re.search(rf"\b{word}\b", message)), None)
        if word is None:
            return False
        self._refused.setdefault(body["model"], set()).add(word)
        return True


def key_of(name: str, provider: EndpointConfig, surroundings: ProviderContext) -> str | None:
    """The key of a provider of the config; None when it needs none.

    Raises:
        UntrustedHostError: the key may not go there.
        MissingKeyError: its variable is not set, or holds what cannot be a key.
    """
    variable = provider.key_name
    if variable is None:
        return None
    require_trust(variable, provider.base_url, surroundings.env)
    key = surroundings.env.get(variable, "").strip()
    page = _KEY_PAGES.get(host_of(provider.base_url))
    remedy = (
        f"Put {variable}=... into {surroundings.workspace.root / '.env'} or the environment"
        f"{f' (get a key at {page})' if page else ''}; to run without a key, use --set llm=embedded."
    )
    if not key:
        raise errors.MissingKeyError(f"The provider {name} needs a key, and {variable} is not set.", hint=remedy)
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise errors.MissingKeyError(
            f"{variable} contains characters that are invalid in a key, such as a line break.", hint=remedy
        )
    return key


class Reader(Protocol):
    """Makes pieces of an answer of what one reply holds. Errors as of `ChatModel.stream`."""

    finished: bool  # the answer is whole
    ended: bool  # nothing more will come

    def event(self, data: str) -> Delta:
        """One event of a stream."""

    def document(self, body: bytes) -> Delta:
        """A whole answer, from a server that does not stream."""


class Endpoint:
    """A transport whose replies are good ones, and whose errors are fit to show."""

    def __init__(
        self, transport: Transport, *, key: str | None, key_name: str | None, refusable: Mapping[str, str | None]
    ) -> None:
        """`key_name` is the variable that the key came from; `refusable` are the words of `RefusableFields`."""
        self._transport = transport
        self._redactor = Redactor([key] if key else [])
        self._key_name = key_name
        self._refusable = RefusableFields(refusable)

    async def chat(self, path: str, body: dict[str, Any], reader: Reader) -> AsyncIterator[Delta]:
        """Ask, and read the answer piece by piece. From its last piece on, what becomes of the stream is no matter.

        Raises:
            LLMTruncatedError: it broke off before its end.
            RemoteError: as of `post`.
        """
        try:
            async with self.post(path, body) as reply:
                if not reply.is_event_stream:
                    delta = reader.document(await reply.document())
                    # half an answer that is known to be one is not shown: another model can still give a whole one
                    yield delta if delta.finish else Delta(usage=delta.usage)
                    return
                async for delta in _pieces(reply, reader):
                    yield delta
                if not reader.finished:
                    raise errors.LLMTruncatedError("The answer broke off before it was complete.")
        except (errors.LLMTimeoutError, errors.LLMConnectionError, errors.LLMTruncatedError):
            if not reader.finished:
                raise

    @asynccontextmanager
    async def post(self, path: str, body: dict[str, Any]) -> AsyncIterator[HttpReply]:
        """Send JSON and hand out the reply if its status is 200; see `Transport.post`.

        A word that the model named in `body` turns out to refuse is left out (see `RefusableFields`) and the rest sent
        again.

        Raises:
            RemoteError: any other status, or whatever is raised while the reply is read.
        """
        try:
            while True:
                sent_body = self._refusable.put(body)
                async with self._transport.post(path, sent_body) as reply:
                    if reply.status == 200:
                        yield reply
                        return
                    error = error_from(reply.status, await reply.error_body(), reply.headers, now=time.time())
                if not (isinstance(error, errors.BadRequestError) and self._refusable.learn(sent_body, error)):
                    raise error
        except errors.RemoteError as error:
            raise self._fit_to_show(error) from None

    def _fit_to_show(self, error: errors.RemoteError) -> errors.RemoteError:
        """The error without the key, which some providers quote, and with the next step."""
        error.message = self._redactor.scrub(error.message)
        error.args = (error.message,)
        if isinstance(error, errors.AuthError) and error.hint is None:
            error.hint = f"Check {self._key_name}." if self._key_name else "The endpoint requires a key: set `api_key`."
        return error

    async def close(self) -> None:
        await self._transport.close()


async def _pieces(reply: HttpReply, reader: Reader) -> AsyncIterator[Delta]:
    """Each event's piece. A server that said why it stops is waited for no longer than a second after its words."""
    events, now = reply.events(), asyncio.get_running_loop().time
    has_begun, until = False, None
    while True:
        event = await (anext(events, None) if until is None else _before(until, events))
        if event is None:
            return
        delta = reader.event(event)
        speaks = bool(delta.text or delta.reasoning or delta.tools)
        if speaks and not has_begun:
            has_begun = True
            reply.mark_begun()
        if reader.ended:
            reply.mark_ended()
        if reader.finished and (speaks or until is None):
            until = now() + _USAGE_SECONDS
        yield delta


async def _before(until: float, events: AsyncIterator[str]) -> str | None:
    try:
        async with asyncio.timeout_at(until):
            return await anext(events, None)
    except TimeoutError:
        raise errors.LLMTimeoutError("The stream ended early.") from None
