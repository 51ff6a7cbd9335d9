"""How long a run has worked, be it ended, under way or killed. Pure."""

from collections.abc import Sequence

from agentlab.runs.events import Event
from agentlab.runs.manifest import Manifest

_BEGINNINGS = ("run.started", "run.resumed")


def elapsed(manifest: Manifest, events: Sequence[Event]) -> float:
    """Wall seconds of all sessions; of one that nobody has ended, those from its first event to the last.

    A session writes its seconds into the manifest when it ends. One that is under way, or was killed, has only events.
    """
    if manifest.status != "running":
        return manifest.seconds
    begun = next((event.t for event in reversed(events) if event.type in _BEGINNINGS), None)
    return manifest.seconds if begun is None else round(manifest.seconds + max(0.0, events[-1].t - begun), 3)
