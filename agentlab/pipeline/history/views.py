"""What `agentlab pipeline history export` answers."""

from agentlab.runs.document import Block, Code, Document


class Exported(Document):
    """A run as text, or the file that it was written to; the other one is None."""

    form: str
    text: str | None
    path: str | None

    def blocks(self) -> list[Block]:
        """The text itself, or the file's path."""
        return [Code(self.text if self.text is not None else self.path or "")]
