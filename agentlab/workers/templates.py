"""A model's chat template is a stranger's code. It is rendered in a process of its own, where the kernel bounds it.

So it does not matter what the template computes: a loop, one huge product, a comparison without end. The process starts
with the first template, serves all of them, and is replaced when a template ends it. This module is both ends;
`python -m agentlab.workers.templates PARENT_PID` is the process. A line each way:

    {"template": "{% for m in messages %}...", "values": {"messages": [...], ...}}
    {"text": "..."} or {"error": "..."}
"""

import atexit
import contextlib
import functools
import json
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

from agentlab import machine
from agentlab.workers import child, memory
from agentlab.workers.channel import Channel

SECONDS = 2.0  # of processor time for one prompt, which takes a millisecond; a busy machine decides nothing
_WAIT_SECONDS = 60.0  # a safety net for what sleeps or swaps
_HEADROOM = 512 << 20  # bytes that one prompt may take
_LONGEST = 256 << 20  # bytes of a prompt as a line
_TODAY = datetime(2025, 1, 1)  # noqa: DTZ001 - a constant: neither an answer nor what is learnt may depend on the day


class TemplateRefusesError(ValueError):
    """The template cannot take these messages, fails, or takes too much time or memory; the message says which."""


def render_chat(tokenizer: Any, messages: Sequence[Mapping[str, Any]], *, prompt: bool) -> str:
    """The text of a conversation by the chat template that a tokenizer of transformers has.

    `prompt`: go on to where the next answer begins. Raises as `render` does.
    """
    tokens = {name: str(token) for name, token in tokenizer.special_tokens_map.items() if not isinstance(token, list)}
    return render(tokenizer.get_chat_template(), messages, tokens, prompt=prompt)


def render(
    template: str, messages: Sequence[Mapping[str, Any]], tokens: Mapping[str, str], *, prompt: bool = True
) -> str:
    """The text of a conversation, or a TemplateRefusesError; `tokens`: the special ones by name, like `eos_token`."""
    values = {"messages": list(messages), "tools": None, "documents": None, "add_generation_prompt": prompt, **tokens}
    answer = _RENDERER.ask({"template": template, "values": values})
    if "text" not in answer:
        raise TemplateRefusesError(answer["error"])
    return str(answer["text"])


def prepare() -> None:
    """Start the process without waiting for it, while something else is loaded."""
    with contextlib.suppress(OSError):
        _RENDERER.start()


class _Renderer:
    """The process, as its parent sees it. Any thread may ask; one prompt is rendered at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._channel: Channel | None = None

    def start(self) -> None:
        """Start the process if it does not run; an OSError if no memory or no process number is left."""
        with self._lock:
            self._channel = self._running()

    def close(self) -> None:
        with self._lock:
            if self._channel is not None:
                self._channel.kill()
                self._channel.dispose()
            self._channel = None

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Its answer; a TemplateRefusesError if there is none."""
        with self._lock:
            try:
                answer, status = self._ask_process(request)
                if answer is None and -status != signal.SIGPROF:  # it was killed, perhaps before it was asked
                    answer, status = self._ask_process(request)
            except OSError as error:
                raise TemplateRefusesError(f"no process can be started: {error.strerror or error}") from error
            if answer is None:
                late = -status == signal.SIGPROF
                raise TemplateRefusesError(
                    f"it takes more than {SECONDS:g} seconds" if late else "it crashes its process"
                )
            return answer

    def _ask_process(self, request: Mapping[str, Any]) -> tuple[dict[str, Any] | None, int]:
        """The answer, or None and the exit status of the process."""
        channel, self._channel, answer = self._running(), None, None  # left in the middle, it is not asked again
        try:
            if channel.send(request, _WAIT_SECONDS):
                answer = channel.receive(_WAIT_SECONDS)
        except (EOFError, ValueError):
            pass
        finally:
            status = 0 if answer is not None else channel.dispose()[0]
        if answer is not None:
            self._channel = channel
        return answer, status

    def _running(self) -> Channel:
        if self._channel is not None and self._channel.alive():
            return self._channel
        if self._channel is not None:
            self._channel.dispose()
        return Channel(__name__, machine.worker_environment(1), longest=_LONGEST)


@atexit.register
def _end() -> None:
    _RENDERER.close()


def _renew() -> None:
    """A fork shares the pipes with its parent, and starts a process of its own."""
    global _RENDERER
    _RENDERER = _Renderer()


_RENDERER = _Renderer()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


# -- in the process -------------------------------------------------------------------------------------------------


def _answer(request: Mapping[str, Any]) -> dict[str, str]:
    try:
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # whose signal ends the process
        text = _compile_template(request["template"]).render(**request["values"])
        signal.setitimer(signal.ITIMER_PROF, 0)
    except Exception as error:  # noqa: BLE001 - a stranger's code may raise anything
        signal.setitimer(signal.ITIMER_PROF, 0)
        if memory.ran_out(error):
            return {"error": f"it takes more than {_HEADROOM >> 20} MiB of memory"}
        return {"error": (str(error).strip().rstrip(".") or type(error).__name__)[:200]}
    return {"text": text}


@functools.lru_cache(16)
def _compile_template(source: str) -> Any:
    """As transformers compiles it."""
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` marks what a training learns, and writes nothing itself."""

        tags = {"generation"}  # noqa: RUF012 - jinja's own way

        def parse(self, parser: Any) -> Any:
            parser.stream.skip(1)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    sandbox = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    sandbox.filters["tojson"] = _to_json
    sandbox.globals |= {"raise_exception": _refuse, "strftime_now": _TODAY.strftime}
    return sandbox.from_string(source)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: object) -> NoReturn:
    raise ValueError(str(message))


if __name__ == "__main__":
    pipes = child.attach(int(sys.argv[1]))
    _compile_template("")  # what it imports is not a template's expense
    memory.bound_memory(_HEADROOM)
    pipes.answer(_answer)
