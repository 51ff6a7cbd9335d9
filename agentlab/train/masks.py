"""What is learnt of a conversation: the assistant's turns with the token that ends each of them, under any template.

A turn's tokens are found by prefixes: the conversation up to the turn, with the prompt for an answer, and to its end.
That holds for every template that leaves what it wrote before as it is; one that rewrites history is refused.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from agentlab.train.chat_template import ChatTemplate, TemplateRefusesError
from agentlab.train.conversations import Conversation, ConversationTurn, refuse
from agentlab.train.spans import SpanError, SpanTokenizer

IGNORED = -100  # label of a token that is not learnt, to torch and transformers


class UnfitError(ValueError):
    """Nothing can be learnt from a conversation as it is; the message says why, as a whole clause."""

    def __init__(self, message: str, *, remedy: str | None = "choose a base whose chat template supports them") -> None:
        super().__init__(message)
        self.remedy = remedy  # what helps beside changing the conversation, if anything does


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation as tokens. Labels are its tokens, in their own places, where something is learnt, else `IGNORED`.

    Nothing is learnt of the first token, which follows nothing.
    """

    line: int  # of the conversation in its file
    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    dropped_turns: int  # the oldest, left out because the conversation is too long

    @property
    def learnt(self) -> int:
        """Number of tokens that are learnt; at least one."""
        return sum(label != IGNORED for label in self.labels)


def examples(
    conversations: Sequence[Conversation],
    tokenizer: Any,
    max_length: int,
    path: Path,
    pause: Callable[[], object] = lambda: None,
) -> tuple[Example, ...]:
    """The conversations of the file `path` as tokens, `max_length` of them at most.

    `pause` is called between two conversations; what it raises ends the work.

    Raises:
        ModelFileError: the tokenizer's template cannot be used for training at all.
        DataError: what is wrong with conversations, every problem with `file:line`.
    """
    encoder = ConversationEncoder(tokenizer)
    encoded: list[Example] = []
    problems: list[str] = []
    remedies: list[str | None] = []
    for conversation in conversations:
        pause()
        try:
            encoded.append(encoder.example(conversation, max_length))
        except UnfitError as error:
            problems.append(f"{path}:{conversation.line}: {error}")
            remedies.append(error.remedy)
    refuse(problems, path, _advice(remedies))
    return tuple(encoded)


class ConversationEncoder:
    """Turns conversations into examples with one tokenizer and its template."""

    def __init__(self, tokenizer: Any) -> None:
        """Take transformers' own tokenizer; raises ModelFileError where its template cannot be used for training."""
        self._template = ChatTemplate(tokenizer)
        self._tokenizer = SpanTokenizer(tokenizer)

    def example(self, conversation: Conversation, max_length: int) -> Example:
        """The conversation without as many of its oldest pairs of turns as do not fit; the system turn stays.

        Raises:
            UnfitError: nothing can be learnt from it, or not even its last pair fits.
        """
        for number, turn in enumerate(conversation.turns, 1):
            if token := self._template.control_in(turn.content):
                raise UnfitError(f"message {number} contains the control token {token!r}", remedy=None)
        first = 1 if conversation.turns[0].role == "system" else 0
        system, dialogue = conversation.turns[:first], conversation.turns[first:]

        @cache
        def without(pairs: int) -> tuple[list[int], list[int]]:
            return self._label_tokens(system + dialogue[2 * pairs :])

        pairs = _fewest(len(dialogue) // 2, lambda pairs: len(without(pairs)[0]) <= max_length)
        if pairs is None:
            length = len(without(len(dialogue) // 2 - 1)[0])
            raise UnfitError(
                f"the last question and answer have {length} tokens, but max_length is {max_length}",
                remedy="raise training.max_length",
            )
        ids, labels = without(pairs)
        return Example(conversation.line, tuple(ids), tuple(labels), 2 * pairs)

    def _label_tokens(self, turns: Sequence[ConversationTurn]) -> tuple[list[int], list[int]]:
        """Raises UnfitError where template or tokenizer cannot tell the assistant's part from the rest."""
        try:
            text = self._template.render(turns)
            passages = [self._passage(text, turns, n) for n, turn in enumerate(turns) if turn.role == "assistant"]
            ids, spans = self._tokenizer.encode(text, passages)
        except TemplateRefusesError as error:
            raise UnfitError(
                f"the chat template of {self._template.name} rejects this conversation: {error}"
            ) from error
        except SpanError as error:
            raise UnfitError(f"{error}; remove whitespace at the start and end of messages") from error
        labels = [IGNORED] * len(ids)
        for span in spans:
            if ids[span][-1:] != [self._template.end_token]:
                raise UnfitError(
                    f"an answer does not end with the token {self._template.end!r}, so its end would not be learnt"
                )
            labels[span] = ids[span]
        labels[0] = IGNORED
        return ids, labels

    def _passage(self, text: str, turns: Sequence[ConversationTurn], index: int) -> tuple[int, int]:
        """Where the answer `turns[index]` and its end-of-turn token lie in the text of all turns."""
        template = self._template
        before = template.render(turns[:index], prompt=True)
        after = template.render(turns[: index + 1])
        problem = None
        if not text.startswith(after):
            problem = "renders this turn differently once later turns follow (its text is dropped or changed)"
        elif not after.startswith(before):
            problem = (
                "renders a prompt for this turn that the conversation does not begin with (prefixes are not preserved)"
            )
        elif not after.endswith(template.tail):
            problem = f"ends this turn without {template.tail!r}, unlike other turns"
        elif _letters(turns[index].content) not in _letters(after[len(before) :]):
            problem = "does not render the text of this turn"
        if problem is not None:
            raise UnfitError(f"message {index + 1}: the chat template of {template.name} {problem}")
        return len(before), len(after) - len(template.tail) + len(template.end)


def _advice(remedies: Sequence[str | None]) -> str:
    return ", or ".join(["Change these conversations", *sorted({remedy for remedy in remedies if remedy})]) + "."


def _fewest(limit: int, fits: Callable[[int], bool]) -> int | None:
    """The least number below `limit` that fits, where every larger one does too."""
    if fits(0):
        return 0
    fewest = bisect_left(range(limit), True, key=fits)
    return fewest if fewest < limit else None


def _letters(text: str) -> str:
    """Templates may trim an answer, or set its paragraphs apart; what is no whitespace has to stay."""
    return "".join(text.split())
