"""Who hears an answer while it comes. Until they have been shown a piece of it, another model may still answer."""

from dataclasses import replace

from agentlab.llm.question import Question, Sink
from agentlab.llm.types import Delta


class Listener:
    """Passes on what is meant for the caller, from the first piece that is more than white space."""

    def __init__(self, sink: Sink, question: Question) -> None:
        """Nothing has come yet. Only what the question asks for is shown: tool calls, thoughts."""
        self._sink = sink
        self._tools, self._thoughts = question.request.offers_tools, question.thoughts
        self._blank: list[Delta] = []  # pieces of white space, which may be all that comes
        self.shown = False

    def begin(self) -> None:
        """A model begins: forget what another one said unheard."""
        self._blank.clear()

    def hear(self, model: str, delta: Delta) -> None:
        """Show a piece of the model's answer, unless it holds nothing for the caller."""
        if (delta.tools and not self._tools) or (delta.reasoning and not self._thoughts):
            delta = replace(
                delta,
                tools=delta.tools if self._tools else (),
                reasoning=delta.reasoning if self._thoughts else "",
            )
        if not (delta.text or delta.tools or delta.reasoning):
            return
        if not (self.shown or delta.text.strip() or delta.tools or delta.reasoning):
            self._blank.append(delta)
            return
        self.shown = True
        for piece in (*self._blank, delta):
            self._sink(model, piece)
        self._blank.clear()
