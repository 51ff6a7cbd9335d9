"""Which of llama.cpp's fast settings can be trusted with a model on this machine: tried once, and remembered.

Repacked weights and flash attention use kernels of their own. Some builds of them die on some processors, and some
compute nonsense with some models and short prompts. So before a model answers with them, a process of its own reads
prompts of 10, 30, 60 and 130 tokens with the plain settings and with the fast ones. What dies or disagrees is not used.

The model itself is read, whatever its size: a small one with random weights shows no fault that depends on values, such
as half precision that overflows. That is about 370 tokens, as many as one question of a page.
"""

import itertools
import os
import queue
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentlab import machine
from agentlab.config.workspace import Workspace
from agentlab.errors import AgentlabError, LLMCancelledError
from agentlab.gguf import worker_errors
from agentlab.gguf.engine import EngineConfig
from agentlab.gguf.fingerprint import engine_build, fingerprint
from agentlab.gguf.records import Records
from agentlab.workers import child, memory
from agentlab.workers.channel import Channel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from agentlab.gguf.native import Native

    Row = NDArray[np.float32]

LENGTHS = (10, 30, 60, 130)  # of prompts: below and above llama.cpp's tiles of 16, 32 and 64 tokens
_CONTEXT = 256
# Measured: rounding alone gives divergences of at most 0.04 nats (random weights, Q4_K) and 0.005 (SmolLM2); a model
# that answers nonsense is off by several.
_DIVERGENCE, _GAP = 0.25, 1.0
_SECONDS, _POLL_SECONDS = 240.0, 0.05
_TEXT = (
    "The keeper had lived alone on the rock for eleven years when the first letter arrived. It was written in a neat "
    "hand, and asked only whether the lamp could be seen from the village on the far side of the bay. He read it "
    "twice, put it on the shelf beside the barometer, and went up to trim the wick.\n1. What is the capital of France?"
    "\n2. How many people live there today? Answer as a list: the name, the number, and the year of the count.\n"
)


@dataclass(frozen=True, slots=True)
class Proofs:
    """What was found out about models, kept in a folder: see `of`."""

    folder: Path

    @classmethod
    def of(cls, workspace: Workspace) -> "Proofs":
        """Kept in the user's cache, for all workspaces; in the workspace where that cannot be written."""
        shared = workspace.cache / ".agentlab"
        existing_folder = next(folder for folder in (shared, *shared.parents) if folder.exists())
        return cls((shared if os.access(existing_folder, os.W_OK) else workspace.state) / "gguf")

    def fingerprint(self, path: Path) -> str:
        return fingerprint(path, self.folder / "fingerprints.json")

    def verdicts(self, config: EngineConfig) -> dict[str, str]:
        """Why each way of computing cannot be used, by its name; empty where it can. Those not tried are left out."""
        recorded = self._records.get(self._name(config))
        return {str(name): str(reason) for name, reason in recorded.items()} if isinstance(recorded, dict) else {}

    def settle(self, config: EngineConfig, cancelled: Callable[[], bool] = lambda: False) -> EngineConfig:
        """The fastest settings that are known to be sound, tried now if need be; the plain ones if none is.

        `config`: how the model is wished to be loaded; what it does not wish for is not tried. `cancelled`: asked while
        a model is tried.

        Raises:
            LLMCancelledError: `cancelled` returned True.
            MissingFileError, ModelFileError: the file cannot be read.
        """
        verdicts, variants = self.verdicts(config), _variants(config)
        faster = itertools.takewhile(lambda variant: verdicts.get(name_of(variant)) != "", variants)
        if untried := [variant for variant in faster if name_of(variant) not in verdicts]:
            verdicts |= self._prove(config, untried, cancelled)
        return next((variant for variant in variants if verdicts.get(name_of(variant)) == ""), plain(config))

    def known_settings(self, config: EngineConfig) -> EngineConfig:
        """The same without trying anything."""
        verdicts = self.verdicts(config)
        return next((variant for variant in _variants(config) if verdicts.get(name_of(variant)) == ""), plain(config))

    def distrust(self, config: EngineConfig, reason: str) -> None:
        """Use the plain settings from now on: an engine died with others."""
        if config != plain(config):
            self._keep(config, dict.fromkeys(map(name_of, _variants(replace(config, flash=True, repack=True))), reason))

    @property
    def _records(self) -> Records:
        return Records(self.folder / "proofs.json")

    def _name(self, config: EngineConfig) -> str:
        shape = f"{config.batch} {config.kv_type} {config.gpu_layers}"
        return f"{self.fingerprint(config.path)} {engine_build()} {machine.processor()} {shape}"

    def _keep(self, config: EngineConfig, verdicts: Mapping[str, str]) -> None:
        self._records.put(self._name(config), self.verdicts(config) | dict(verdicts))

    def _prove(
        self, config: EngineConfig, variants: Sequence[EngineConfig], cancelled: Callable[[], bool]
    ) -> dict[str, str]:
        """Try ways until one is sound; what could not be tried at all, for want of memory say, is not remembered."""
        verdicts: dict[str, str] = {}
        deadline = time.monotonic() + _SECONDS
        while "" not in verdicts.values():
            untried = [variant for variant in variants if name_of(variant) not in verdicts]
            if not untried:
                break
            report, status, log = _ask(config, untried, cancelled, deadline)
            verdicts |= report.verdicts
            if report.trying in verdicts or not report.trying:
                break
            if time.monotonic() > deadline:
                verdicts |= {name_of(variant): f"it could not be tested within {_SECONDS:.0f} s" for variant in untried}
            elif signal := worker_errors.fault(status, log):
                verdicts[report.trying] = f"it dies ({signal})"
            else:
                break
        if verdicts:
            self._keep(config, verdicts)
        return verdicts


def name_of(config: EngineConfig) -> str:
    """A way of computing in words."""
    fast = [words for words, on in (("repacked weights", config.repack), ("flash attention", config.flash)) if on]
    return " and ".join(fast) or "plain settings"


def plain(config: EngineConfig) -> EngineConfig:
    """Without what has to be proven; a cache of fewer bits cannot do without flash attention."""
    return replace(config, flash=config.kv_type != "f16", repack=False)


def _variants(config: EngineConfig) -> list[EngineConfig]:
    """From the fastest wished for on, without the plain one. Repacked weights gain more than flash attention."""
    plain_config = plain(config)
    switches = itertools.product((True, False), (True, plain_config.flash))
    variants = [replace(config, flash=flash, repack=repack) for repack, flash in switches]
    allowed = [variant for variant in variants if variant.repack <= config.repack and variant.flash <= config.flash]
    return list(dict.fromkeys(variant for variant in allowed if variant != plain_config))


def disagreement(expected: "Row", actual: "Row") -> str | None:
    """Why two rows of logits are not the same model's, None if rounding explains all; pure.

    `expected`: float32 of shape (vocabulary,), computed plainly; `actual`: the same, computed fast.
    """
    import numpy as np

    from agentlab.stats.divergence import log_softmax

    if not actual.max() < np.inf:  # nor is it for NaN; a token may be ruled out by -inf
        return "its logits contain NaN or +inf"
    p, q = (np.maximum(log_softmax(row.astype(np.float64)), -1e4) for row in (expected, actual))
    likely = p > -30.0
    divergence = float((np.exp(p[likely]) * (p - q)[likely]).sum())
    gap = float(p.max() - p[actual.argmax()])
    if divergence <= _DIVERGENCE and gap <= _GAP:
        return None
    return f"it disagrees with the plain settings (divergence {min(divergence, 999):.2g}, gap {min(gap, 999):.2g} nats)"


# -- in a process of its own ------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _ProofReport:
    """What the process said before it ended: verdicts, and the way that it was trying, "" for the plain one."""

    verdicts: dict[str, str]
    trying: str = ""


def _ask(
    config: EngineConfig, variants: Sequence[EngineConfig], cancelled: Callable[[], bool], deadline: float
) -> tuple[_ProofReport, int, str]:
    """Try ways in a new process; also its exit status and the tail of its log."""
    report, finished = _ProofReport({}), False
    fields = asdict(replace(config, context=_CONTEXT, adapter=None)) | {"path": str(config.path.absolute())}
    environment = {**machine.worker_environment(config.threads), "GGML_NO_BACKTRACE": "1"}
    try:
        channel = Channel("agentlab.gguf.trusted_settings", environment)
    except OSError as error:  # no memory or no process number left
        return report, 0, str(error)
    try:
        job = {"config": fields, "ways": [[variant.flash, variant.repack] for variant in variants]}
        finished = not channel.send(job, _SECONDS)
        while not finished and time.monotonic() < deadline:
            if cancelled():
                raise LLMCancelledError("The call was cancelled while its model's engine was being tested.")
            message = channel.receive(_POLL_SECONDS) or {}
            report.trying = message.get("trying", report.trying)
            report.verdicts |= message.get("verdict", {})
    except (EOFError, ValueError):  # it is done, or it died
        pass
    finally:
        status, log = channel.dispose()
    return report, status, log


def _rows(native: "Native", tokens: Sequence[int], lengths: Sequence[int], *, afresh: bool) -> Iterator["Row"]:
    """Logits after each of the prompts, and after one more token that is read by itself.

    The prompts are beginnings of one text: read `afresh` or each as what the one before lacks.
    """
    read = 0
    for length in lengths:
        read = native.cut(0) if afresh else read
        for start in range(read, length, native.batch):
            native.evaluate(tokens[start : min(start + native.batch, length)])
        yield native.logits().copy()
        native.evaluate(tokens[length : length + 1])
        yield native.logits().copy()
        read = length + 1


def _try(config: EngineConfig, variants: Sequence[EngineConfig], say: Callable[[dict[str, Any]], None]) -> None:
    """Compare ways with the plain one until one agrees. Each is named before it is tried: it may be the last word."""
    from agentlab.gguf.native import Native

    plain_native = Native(plain(config))
    tokens = plain_native.tokenize(_TEXT * (1 + LENGTHS[-1] // len(_TEXT.split())))
    tokens = (tokens * LENGTHS[-1])[: LENGTHS[-1] + 1]  # a vocabulary may have a token for the whole text
    expected: list[Row] = []
    for variant in variants:
        say({"trying": name_of(variant)})
        native = Native(variant)
        # where nothing was repacked, it is the plain way itself, and a word from it is enough
        same = native.buffers == plain_native.buffers and variant.flash == plain(variant).flash
        lengths = LENGTHS[:1] if same else LENGTHS
        if len(expected) < 2 * len(lengths):
            say({"trying": ""})
            plain_native.cut(0)
            expected = list(_rows(plain_native, tokens, lengths, afresh=False))
            say({"trying": name_of(variant)})
        row_pairs = zip(expected, _rows(native, tokens, lengths, afresh=True), strict=False)
        reason = next((reason for pair in row_pairs if (reason := disagreement(*pair))), None)
        native.free()
        say({"verdict": {name_of(variant): reason or ""}})
        if reason is None:
            return


def _serve(pipes: child.Pipes, requests: "queue.SimpleQueue[dict[str, Any]]") -> None:
    job = requests.get()
    fields = job["config"]
    config = EngineConfig(**fields | {"path": Path(fields["path"])})
    memory.bound_memory(config.memory_bytes)
    try:
        _try(config, [replace(config, flash=flash, repack=repack) for flash, repack in job["ways"]], pipes.reply)
    except AgentlabError as error:  # the load that follows says so, too
        sys.stderr.write(f"{error.message}\n")


if __name__ == "__main__":
    _requests: "queue.SimpleQueue[dict[str, Any]]" = queue.SimpleQueue()
    _pipes = child.attach(int(sys.argv[1]))
    _pipes.serve(_requests.put, lambda: _serve(_pipes, _requests))
