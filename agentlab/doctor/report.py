"""What `agentlab doctor` answers."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from agentlab.errors import MissingError, UnknownNameError
from agentlab.runs.document import Block, Document, Table, Text

Status = Literal["ok", "warn", "missing"]


class Row(BaseModel):
    """One thing that was looked at. `remedy` says how to put it right, None when there is nothing to do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    status: Status
    detail: str
    remedy: str | None = None


class DoctorReport(Document):
    """All rows, in the order of the examination."""

    rows: list[Row]

    def blocks(self) -> list[Block]:
        """A table, then the remedies, each in full so that a command can be copied."""
        table = Table(("what", "status", "found"), [(row.name, row.status, row.detail) for row in self.rows])
        return [table, *(Text(f"{row.name}: {row.remedy}") for row in self.rows if row.status != "ok" and row.remedy)]

    def require(self, names: Sequence[str]) -> None:
        """Insist on some rows.

        Raises:
            UnknownNameError: there is no row of that name.
            MissingError: one of them is not ok.
        """
        by_name = {row.name: row for row in self.rows}
        for name in names:
            if name not in by_name:
                raise UnknownNameError("row of doctor", name, list(by_name))
        failed = [by_name[name] for name in names if by_name[name].status != "ok"]
        if failed:
            said = "; ".join(f"{row.name}: {row.detail}" for row in failed)
            raise MissingError(f"Required and not there: {said}.", hint=failed[0].remedy)
