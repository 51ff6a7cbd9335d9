"""A checkpoint's chat template: conversations as text, and the token that ends an answer.

Templates are code that came with the checkpoint, and are rendered in a process of their own: see `workers.templates`.
"""

import re
from collections.abc import Sequence
from typing import Any

from agentlab.errors import ModelFileError
from agentlab.train.conversations import ConversationTurn
from agentlab.workers.templates import TemplateRefusesError as TemplateRefusesError
from agentlab.workers.templates import render_chat

_PROBE = (ConversationTurn("user", "question"), ConversationTurn("assistant", "agentlabprobe"))
_INSTRUCT = "Use an instruct model, for example `agentlab models import smollm2-135m`."


class ChatTemplate:
    """What a template makes of turns."""

    def __init__(self, tokenizer: Any) -> None:
        """Try the template of a tokenizer, transformers' own, on a short conversation.

        Raises:
            ModelFileError: there is no template, it cannot be used, or no token of its own ends an answer.
        """
        self._tokenizer = tokenizer
        self.name = str(tokenizer.name_or_path or "the base model")
        if not tokenizer.chat_template:
            raise ModelFileError(
                f"{self.name} has no chat template, so it cannot be trained on conversations.", hint=_INSTRUCT
            )
        self.tail = self._tail()  # what it writes behind an answer, such as `<|im_end|>` and a newline
        added = {str(token): number for number, token in tokenizer.added_tokens_decoder.items()}
        leading_tokens = [text for text in added if self.tail.lstrip().startswith(text)]
        if not leading_tokens:
            raise ModelFileError(
                f"After an answer, the chat template of {self.name} writes {self.tail!r} and no end-of-turn "
                "token, so a model trained on it never learns to stop.",
                hint="Make the template write an end-of-turn token, such as eos_token, right after each answer.",
            )
        end = max(leading_tokens, key=len)
        self.end = self.tail[: self.tail.index(end) + len(end)]  # the rest of the tail is not the model's to write
        self.end_token = added[end]
        special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special} | {end}
        self._control = re.compile("|".join(re.escape(text) for text in sorted(special, key=len, reverse=True)))

    def render(self, turns: Sequence[ConversationTurn], *, prompt: bool = False) -> str:
        """The text of the turns; with `prompt`, up to where the next answer begins.

        Raises:
            TemplateRefusesError: the template refuses them, fails, or takes too much time or memory.
        """
        messages = [{"role": turn.role, "content": turn.content} for turn in turns]
        return render_chat(self._tokenizer, messages, prompt=prompt)

    def control_in(self, text: str) -> str | None:
        """A special token that the text spells out, and that would end or begin a turn in the middle of it."""
        match = self._control.search(text)
        return None if match is None else match.group()

    def without_control(self, text: str) -> str:
        """The text, in which every special token that it spells out has spaces between its characters: none is one."""
        spelt = self._control.sub(lambda match: " ".join(match.group()), text)
        return self._control.sub("", spelt)  # one of a single character

    def _tail(self) -> str:
        try:
            text = self.render(_PROBE)
        except TemplateRefusesError as error:
            raise ModelFileError(
                f"The chat template of {self.name} rejects a question-answer pair: {error}.", hint=_INSTRUCT
            ) from error
        _, answer, tail = text.rpartition(_PROBE[-1].content)
        if not answer:
            raise ModelFileError(f"The chat template of {self.name} omits answers.", hint=_INSTRUCT)
        return tail
