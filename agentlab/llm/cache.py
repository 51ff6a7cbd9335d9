"""The response cache: the same question, to the same model of the same provider, need not be paid for twice."""

import hashlib
import json
from dataclasses import asdict, replace
from typing import Any

from agentlab.llm.config import LLMConfig
from agentlab.llm.ledger.protocol import Ledger
from agentlab.llm.ledger.sample import CachedAnswer
from agentlab.llm.question import Candidate, Question

# What a provider's entry says about money, patience and keys has no part in what it answers.
_NO_PART = {"limits", "api_key", "total"}


class ResponseCache:
    """Finds answers in the ledger by everything that was sent, and where to."""

    def __init__(self, config: LLMConfig, ledger: Ledger) -> None:
        self._config = config
        self._ledger = ledger

    def known(self, question: Question, candidate: Candidate) -> CachedAnswer | None:
        """What this model answered to this request before."""
        return self._ledger.answer(self.key(question, candidate))

    def keep(self, question: Question, candidate: Candidate, answer: CachedAnswer) -> None:
        """Remember an answer."""
        self._ledger.remember(self.key(question, candidate), answer)

    def key(self, question: Question, candidate: Candidate) -> str:
        """SHA-256 of the whole request and of the provider it goes to."""
        provider = self._config.providers[candidate.provider].model_dump(mode="json")
        sent: dict[str, Any] = {
            "provider": {name: value for name, value in provider.items() if name not in _NO_PART},
            "request": asdict(replace(question.request, model=candidate.id)),
        }
        text = json.dumps(sent, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
