"""`--approve`: shows every proposal and waits for yes, no or an edit."""

import os
import select
import sys
from collections.abc import Callable, Iterator, Mapping

from agentlab.errors import Interrupted
from agentlab.runs.stop import StopFlag
from agentlab.search.types import Value

from .screen import Screen

_POLL_SECONDS = 0.2
_MAX_LINE = 65_536
_ANSWERS = {"": "y", "y": "y", "yes": "y", "n": "n", "no": "n", "e": "e", "edit": "e"}
_SIGINT = 2


class TerminalReviewer:
    """Implements `study.steps.Reviewer` on standard input, a terminal or a pipe with one answer per line."""

    def __init__(self, screen: Screen, stop: StopFlag) -> None:
        self._screen = screen
        self._lines = _lines(stop)

    def review(
        self,
        name: str,
        params: Mapping[str, Value],
        *,
        compared_with: Mapping[str, Value],
        source: str,
        problems: Callable[[Mapping[str, Value]], list[str]],
    ) -> Mapping[str, Value] | None:
        """Ask until there is an answer; see `Reviewer.review`."""
        self._show(name, params, compared_with, source)
        while True:
            answer = _ANSWERS.get(self._ask("Train it? [Y]es, [n]o, [e]dit: ").lower())
            if answer == "y":
                return params
            if answer == "n":
                return None
            if answer == "e":
                edited = self._edit_params(params, problems)
                if edited is not None:
                    return edited
            else:
                self._say("Please answer y, n or e.")

    def _edit_params(
        self, params: Mapping[str, Value], problems: Callable[[Mapping[str, Value]], list[str]]
    ) -> Mapping[str, Value] | None:
        """The configuration with the changes that were typed; None, with the reasons shown, if it cannot be tried."""
        typed = self._ask("Changes, as name=value name=value: ")
        changed, wrong = edit(params, typed.split())
        wrong = wrong or problems(changed)
        for reason in wrong:
            self._say(f"Cannot try this: {reason}.")
        return None if wrong else changed

    def _show(self, name: str, params: Mapping[str, Value], base: Mapping[str, Value], source: str) -> None:
        self._say(f"{name}, proposed by {source}; * marks a difference from the configuration to beat")
        for key, value in params.items():
            mark = " " if base.get(key) == value else "*"
            before = f"   (to beat: {base[key]})" if mark == "*" and key in base else ""
            self._say(f"  {mark} {key} = {value}{before}")

    def _say(self, text: str) -> None:
        self._screen.prompt(f"{text}\n")

    def _ask(self, text: str) -> str:
        self._screen.prompt(text)
        line = next(self._lines, None)
        if line is None:
            raise Interrupted("No answer: end of input.", signal=_SIGINT)
        return line.strip()


def edit(params: Mapping[str, Value], words: list[str]) -> tuple[dict[str, Value], list[str]]:
    """The parameters with `name=value` words applied, and what is wrong with the words. Pure.

    A name may be cut to its last parts where that is unambiguous; a value is read as YAML.
    """
    import yaml

    changed, wrong = dict(params), []
    for word in words:
        short, equals, text = word.partition("=")
        names = [name for name in params if name == short or name.endswith(f".{short}")]
        if not names and "." in short:  # a key that becomes active with this edit is told by its whole name
            names = [short]
        if not equals or not text:
            wrong.append(f"{word!r} is not name=value")
        elif len(names) != 1:
            wrong.append(f"{short!r} is {'ambiguous' if names else 'not a key of the search space'}")
        else:
            try:
                changed[names[0]] = yaml.safe_load(text)
            except yaml.YAMLError:
                wrong.append(f"{text!r} is not a valid value")
    return changed, wrong if words else ["no change was given"]


def _lines(stop: StopFlag) -> Iterator[str]:
    """Lines of standard input, read past Python's buffer so that a stop request is seen while waiting.

    Raises:
        Interrupted: somebody asked to stop.
    """
    handle, unread = sys.stdin.fileno(), b""
    while True:
        line, newline, after = unread.partition(b"\n")
        if newline or len(unread) > _MAX_LINE:
            unread = after
            yield line.decode("utf-8", "replace")
            continue
        stop.check()
        ready, _, _ = select.select([handle], [], [], _POLL_SECONDS)
        if not ready:
            continue
        chunk = os.read(handle, 4096)
        if not chunk:
            if unread:
                yield unread.decode("utf-8", "replace")
            return
        unread += chunk
