"""How steps ended, as events of the run: what an earlier session has finished is finished."""

from agentlab.pipeline.state import Ended
from agentlab.pipeline.texts import Texts
from agentlab.runs.run import Run

FINISHED = "stage.finished"


class Ends:
    """Ends of steps by the id that they have within the run."""

    def __init__(self, run: Run, texts: Texts) -> None:
        self._run, self._texts = run, texts
        self._known = {event.id: event.data for event in run.events if event.type == FINISHED}

    def known(self, id_: str) -> Ended | None:
        """How the step ended in an earlier session; None if it did not, or if a text is lost."""
        data = self._known.get(id_)
        if data is None:
            return None
        answer, output = self._texts.text(data["answer"]), self._texts.text(data["sha"])
        if answer is None or output is None:
            return None
        return Ended(data["status"], answer, output, data["json"], data["why"])

    def note(self, id_: str, end: Ended, seconds: float) -> None:
        """Write an end down, and its texts. May be called from any thread."""
        output = self._texts.put(end.output)
        data = {
            "sha": output,
            "answer": output if end.answer == end.output else self._texts.put(end.answer),
            "json": end.json,
            "status": end.status,
            "why": dict(end.why),
            "seconds": round(seconds, 4),
        }
        self._run.emit(FINISHED, id_, **data)
