"""Processes that are forked from one that has imported everything: as real as any, and seconds sooner at work.

`Forked([sys.executable, "-m", "agentlab", ...])` is `Popen` of the same: a child of the caller with its own streams,
variables, folder and end. Each worker of the suite has one helper that imports torch and all of agentlab in a single
thread, computes nothing, and forks. What a start from nothing may change (limits of memory, a terminal, the number of
threads) is tested with Popen. `ForkedWithAll` forks what it starts itself, too, with a helper of its own.
"""

import atexit
import ctypes
import functools
import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from importlib import import_module
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
IMPORTED = (
    "cli.main",
    "agentlab.nas.run",
    "agentlab.debate.run",
    "agentlab.persona.run",
    "agentlab.compress.run",
    "agentlab.evolve.run",
    "agentlab.pipeline.run",
    "agentlab.train.trainer",  # with TRL, which looks at every installed package, and datasets with pandas
    "torch._dynamo",  # which comes with the first step of an optimiser
    "optuna._gp.gp",
    "scipy.stats",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "transformers.models.llama.modeling_llama",
    "peft",
    "compressed_tensors.quantization",
    "agentlab.gguf.native",
    "agentlab.hf.decoder",
    "agentlab.study.worker",
)
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER: we become the parent of those whose parent ends
ROOM = 4000  # bytes of the helper's command line, in which that of a new process has its place
FROM_NOTHING = subprocess.Popen
_ONE_AT_A_TIME = threading.Lock()
_inherited: list[socket.socket] = []  # the way to the helper of a `ForkedWithAll`


class Forked(subprocess.Popen[str]):
    """`Popen` of a Python with `-m module` or `-c code`, without the imports. What else there is is started as ever."""

    with_all = False

    def _execute_child(
        self,
        args: Any,
        executable: Any,
        preexec: Any,
        close: Any,
        keep: Any,
        cwd: Any,
        env: Any,
        *further_arguments: Any,
    ) -> None:
        """The one seam that Popen has; all else of it stays as it is."""
        words = [] if isinstance(args, (str, bytes)) else [str(word) for word in args if word != "-u"]
        if sys.platform != "linux" or words[:1] != [sys.executable] or words[1] not in ("-m", "-c"):
            super()._execute_child(args, executable, preexec, close, keep, cwd, env, *further_arguments)
            return
        ends = further_arguments[3:9]  # both of stdin, stdout and stderr; -1 where the caller's is taken
        order = {"words": words[1:], "cwd": str(cwd or Path.cwd()), "env": dict(env or os.environ)}
        order |= {"session": further_arguments[14], "with_all": self.with_all}
        with _ONE_AT_A_TIME:
            helper, prctl = _helper(), ctypes.CDLL(None).prctl
            prctl(SUBREAPER, 1)
            try:
                theirs = [number if end == -1 else end for number, end in enumerate((ends[0], ends[3], ends[5]))]
                socket.send_fds(helper, [json.dumps(order).encode()], theirs)
                answer = helper.recv(32)
                assert answer, "the process that forks has ended"
                self.pid = int(answer)
                helper.recv(32)  # its parent has ended, so it is ours
            finally:
                prctl(SUBREAPER, 0)
        self._child_created = True
        self._close_pipe_fds(*ends)


class ForkedWithAll(Forked):
    """Forked, and so is every Python that it starts, by a helper that is a child of it."""

    with_all = True


@functools.cache
def _helper() -> socket.socket:
    if _inherited:
        return _inherited[-1]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    env = {**os.environ, **ONE_THREAD, "PYTHONPATH": str(REPOSITORY)}
    process = FROM_NOTHING(
        [sys.executable, "-m", __spec__.name, " " * ROOM], stdin=theirs, stdout=subprocess.PIPE, env=env, cwd=REPOSITORY
    )
    theirs.close()
    atexit.register(lambda: (ours.close(), process.communicate()))
    return ours


def main() -> None:
    """The helper: fork a process for each order from stdin. Returns in the new ones, as what was ordered."""
    _call_it("zygote")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in IMPORTED:
        import_module(name)
    conversions = import_module("transformers.conversion_mapping")
    conversions.get_checkpoint_conversion_mapping("llama")  # a thousand patterns, which each process would compile
    os.fsync = lambda _: None  # as in conftest.py
    gc.freeze()
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "a fork needs a process of one thread"
    order, ends = _ordered(socket.socket(fileno=os.dup(0)))
    while order.pop("with_all"):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork():
            theirs.close()
            _inherited.append(ours)
            for module in [
                loaded_module
                for loaded_module in sys.modules.values()
                if vars(loaded_module).get("Popen") is FROM_NOTHING
            ]:
                module.Popen = Forked  # type: ignore[attr-defined]
            break
        for end in (*ends, ours.detach()):
            os.close(end)
        os.dup2(0, 1)  # who waits for the first helper does not wait for this one
        order, ends = _ordered(theirs)
    for number, end in enumerate(ends):
        os.dup2(end, number)
        os.close(end)
    _call_it(sys.executable, *order["words"])
    become(**order)


def _ordered(control: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Fork for each order until `control` ends. Returns the order and its three streams, in the new process."""
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    with control:
        while True:
            order, ends, _, _ = socket.recv_fds(control, 1 << 20, 3)
            if not order:
                sys.exit()
            between = os.fork()
            if not between:
                between, pid = os.getpid(), os.fork()
                if not pid:
                    break
                control.send(str(pid).encode())
                os._exit(0)
            os.waitpid(between, 0)
            control.send(b"ended")
            for end in ends:
                os.close(end)
    while os.getppid() == between:
        time.sleep(0.001)
    return json.loads(order), ends


def _call_it(*words: str) -> None:
    """Make this the command line that `ps` shows."""
    first, last = map(int, Path("/proc/self/stat").read_text().rpartition(")")[2].split()[45:47])
    ctypes.memmove(first, "\0".join(words).encode()[: last - first - 1].ljust(last - first, b"\0"), last - first)


def become(words: list[str], cwd: str, env: dict[str, str], *, session: bool) -> None:
    if session:
        os.setsid()
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        stream = open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115 - until the end
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.stderr.reconfigure(errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    kind, target, *rest = words
    sys.argv, sys.path[0] = [kind, *rest], cwd
    if kind == "-m":
        runpy.run_module(target, run_name="__main__", alter_sys=True)
    else:
        exec(target, {"__name__": "__main__"})


if __name__ == "__main__":
    main()
