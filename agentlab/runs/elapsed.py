"""How long a run has worked, be it ended, under way or killed. Pure."""

from collections.abc import Sequence

from agentlab.runs.events import Event
from agentlab.runs.manifest import Manifest

_BEGINNINGS = ("run.started", "run.resumed")


def elapsed(manifest: Manifest, events: Sequence[Event]) -> float:
    """Wall seconds of all sessions; of one that nobody has ended, those from its first event to the last.

    A session writes its seconds into the manifest when it ends. One that is under way, or was killed, has only events.
    """
    begun = [event.t for event in events if event.type in _BEGINNINGS]
    sessions = (manifest.started is not None) + len(manifest.resumed)
    if manifest.status != "running" or not begun or len(begun) < sessions:  # one has begun and not said so yet
        return manifest.seconds
    return round(manifest.seconds + max(0.0, events[-1].t - begun[-1]), 3)
