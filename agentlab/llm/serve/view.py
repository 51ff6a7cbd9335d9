"""What `agentlab serve` answers once it listens."""

from typing import Self

from agentlab.llm.config import LLMConfig
from agentlab.llm.serve import names
from agentlab.runs.document import Block, Document, Text


class Served(Document):
    """Where the gateway listens, and what a client may write into `model`."""

    url: str
    models: list[str]

    @classmethod
    def of(cls, url: str, config: LLMConfig) -> Self:
        """The view of a config at a base URL."""
        return cls(url=url, models=list(names.known(config)))

    def blocks(self) -> list[Block]:
        """The address first: programs read it."""
        return [Text(f"Listening at {self.url}"), Text(f"Models: {', '.join(self.models)}")]
