"""The typed result that a completed run left in `result.json`."""

import json
from typing import TypeVar

from agentlab.errors import RunUnreadableError
from agentlab.runs.document import Document
from agentlab.runs.store import RunRecord

D = TypeVar("D", bound=Document)


def read_result(record: RunRecord, model: type[D]) -> D:
    """What the run found.

    Raises:
        RunUnreadableError: absent or of another shape.
    """
    try:
        return model.model_validate(json.loads(record.text("result.json")))
    except (ValueError, RecursionError) as error:
        raise RunUnreadableError(
            f"{record.path / 'result.json'} is damaged.", hint=f"Its report is {record.path / 'report.md'}."
        ) from error
