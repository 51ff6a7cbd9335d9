"""What a run knows already: its own answers and ends of earlier sessions, and what it takes over from its parent."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from agentlab.pipeline.answer import PipelineAnswer
from agentlab.pipeline.state import Ended
from agentlab.pipeline.text_store import RunTexts
from agentlab.runs.events import Event
from agentlab.runs.run import OpenRun

ANSWERED = "call.answered"
FINISHED = "stage.finished"


@dataclass(frozen=True, slots=True)
class Known:
    """An answer, and where it came from: model, cache or parent."""

    answer: PipelineAnswer
    source: str


class KnownAnswers:
    """Answers by the id of their call. The key has to agree: another question gets no old answer."""

    def __init__(
        self, texts: RunTexts, events: Iterable[Event], parent: RunTexts | None = None, inherited: Iterable[Event] = ()
    ) -> None:
        """`inherited` are events of the parent that hold here as well; `parent` has their texts."""
        self._texts, self._parent = texts, parent or texts
        self._inherited = _answers_by_call(inherited)
        self._own = _answers_by_call(events)

    def find_answer(self, call: str, keys: Collection[str]) -> Known | None:
        """What was answered in this run before, under one of these keys; None if nothing, or if its text is lost."""
        return _find_answer(self._own, self._texts, call, keys, None)

    def find_inherited(self, call: str, key: str) -> Known | None:
        return _find_answer(self._inherited, self._parent, call, (key,), "parent")


def _find_answer(
    answers: Mapping[str, Mapping[str, Any]], texts: RunTexts, call: str, keys: Collection[str], source: str | None
) -> Known | None:
    data = answers.get(call)
    if data is None or data["key"] not in keys:
        return None
    text = texts.text(data["sha"])
    return None if text is None else Known(PipelineAnswer.of(data["answer"], text), source or data["from"])


def _answers_by_call(events: Iterable[Event]) -> dict[str, Mapping[str, Any]]:
    return {event.id: event.data for event in events if event.type == ANSWERED}


class Ends:
    """How steps ended, as events of the run, by the id that they have within it: what is finished is finished."""

    def __init__(self, run: OpenRun, texts: RunTexts) -> None:
        self._run, self._texts = run, texts
        self._known = {event.id: event.data for event in run.events if event.type == FINISHED}

    def find_end(self, id_: str) -> Ended | None:
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
