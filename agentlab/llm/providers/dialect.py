"""Words of a request that single models refuse, learnt from the refusal.

One protocol serves many models, and some of the newer ones take no `temperature`, or want `max_tokens` under another
name. Which ones changes too fast for a table of names: the first refusal is believed, and the model is asked again
without the word. Only words without which an answer is still an answer to the question may be listed.
"""

import re
from collections.abc import Mapping
from typing import Any

from agentlab.errors import BadRequestError

_REFUSES = re.compile(
    r"unsupported|not support|deprecated|both be specified|not permitted|unrecognized|unknown (parameter|field)"
)


class Dialect:
    """What is known about the models of one endpoint."""

    def __init__(self, words: Mapping[str, str | None]) -> None:
        """`words` may be refused, the first that is named by a refusal first; None, or what is said instead."""
        self._words = words
        self._refused: dict[str, set[str]] = {}

    def put(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """The body as the model that it names takes it."""
        refused = self._refused.get(body["model"], ())
        names = {word: self._words[word] if word in refused else word for word in body}
        return {name: body[word] for word, name in names.items() if name is not None}

    def learn(self, body: Mapping[str, Any], error: BadRequestError) -> bool:
        """Whether the error refuses a word that was in the body, so that asking again without it helps."""
        said = error.message.lower()
        if not _REFUSES.search(said):
            return False
        word = next((word for word in self._words if word in body and re.search(rf"\b{word}\b", said)), None)
        if word is None:
            return False
        self._refused.setdefault(body["model"], set()).add(word)
        return True
