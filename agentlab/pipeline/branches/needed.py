"""Which texts the runs of some folders need: what a collection of the store must keep."""

from collections.abc import Iterable
from pathlib import Path
from shlex import quote

from agentlab.errors import RunUnreadableError
from agentlab.pipeline.branches.trace import trace
from agentlab.pipeline.ends import FINISHED
from agentlab.runs.store import list_runs

_FILES = ("manifest.json", "events.jsonl")  # a folder with neither is no run: it names nothing


def needed(folders: Iterable[Path]) -> set[str]:
    """The hashes of all texts that the pipeline runs in these folders name. A folder that is gone needs none.

    Raises:
        RunUnreadableError: a run is damaged, so nobody knows what it needs.
    """
    named: set[str] = set()
    for folder in dict.fromkeys(folder.resolve() for folder in folders):
        listing = list_runs(folder)
        for name, reason in listing.unreadable:
            if any((folder / name / file).exists() for file in _FILES):
                raise _unknown(folder, name, reason)
        for record in listing.runs:
            if record.manifest.command != "pipeline":
                continue
            try:
                events = record.events()
                found = trace(events)
            except RunUnreadableError as error:
                raise _unknown(folder, record.id, error.message) from error
            named |= {call.sha for call in found.calls.values()}
            named |= {step.sha for step in found.steps.values() if step.sha}
            answers = (event.data.get("answer") for event in events if event.type == FINISHED)
            named |= {sha for sha in answers if isinstance(sha, str)}
    return named


def _unknown(folder: Path, run: str, reason: str) -> RunUnreadableError:
    removal = f"agentlab runs rm {quote(run)} --runs-dir {quote(str(folder))}"
    return RunUnreadableError(
        f"Nobody knows which texts {run} needs: {reason}",
        hint=f"Nothing was deleted. Restore the run from a copy, or remove it with `{removal}`.",
    )
