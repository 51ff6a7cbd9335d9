"""Carries recipes out on a real model: cut, recover, quantize, export; then the file is measured in its runtime.

What recipes have in common is done once and kept by what it is made of: the statistics of a model, its GGUF file, a
model that was cut and recovered. All of it lies below the run's `stages/`, the base's own below `.agentlab/compress/`.
"""

import hashlib
import json
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch  # noqa: TID253 - reached lazily, when a model is compressed
from safetensors.numpy import save

from agentlab import machine
from agentlab.compress.architecture import INPUTS, check_architecture, layer_name, layers_of, linears, on_a_grid
from agentlab.compress.calibration import CalibrationStatistics, calibrate
from agentlab.compress.checkpoint_formats import write_bitsandbytes, write_dense, write_packed
from agentlab.compress.config import SCORED, CompressConfig, limits_of
from agentlab.compress.costs import SHARED, cheapest, look, opening, stages_of
from agentlab.compress.export_check import PROMPT, divergences, read_transformers, reload_gguf, reload_transformers
from agentlab.compress.goal import read_goal
from agentlab.compress.grid import Codes, Grid
from agentlab.compress.layerwise import prune, quantize
from agentlab.compress.meter import Meter
from agentlab.compress.objective import Floats, Measures, Side
from agentlab.compress.pruners import PATTERNS, drop_layers, narrow
from agentlab.compress.recipe import KQUANTS, QUANTIZERS, Recipe, layers_left, width_left
from agentlab.compress.recovery import keep_teacher, recover
from agentlab.compress.result import BASE, TEXTS
from agentlab.compress.stage_cache import StageCache
from agentlab.compress.texts import MOST, SHIPPED, pieces, windows
from agentlab.compress.vocabulary import Fewer, cut_vocabulary
from agentlab.errors import ModelFileError, RunMismatchError
from agentlab.gguf import metadata
from agentlab.gguf.files import answer_gguf, divergence_gguf, falls_back, quantize_gguf, speed_gguf
from agentlab.gguf.writing import tensor_names, write_gguf
from agentlab.hf.checkpoint import CONFIG
from agentlab.runs.atomic import make_folder, write_bytes, write_json
from agentlab.runs.context import Context
from agentlab.runs.events import first_event_data, has_changed
from agentlab.runs.run import OpenRun
from agentlab.stats.divergence import Divergence
from agentlab.train.base import load_base
from agentlab.train.config import LoraConfig, TrainingConfig, TrainingJob
from agentlab.train.merge import files_beside

Windows = Sequence[Sequence[int]]


class RealWorkshop:
    """Implements `objective.Workshop`."""

    def __init__(
        self,
        config: CompressConfig,
        base: Path,
        source: Path | None,
        name: str,
        run: OpenRun,
        context: Context,
        threads: int,
        meter: Meter,
    ) -> None:
        """Load the base and cut the texts.

        Raises:
            ModelFileError: the base is damaged, or of an architecture that cannot be compressed.
            DataError: there is too little text.
            RunMismatchError: base or text are not those that the run began with.
        """
        self._config, self._run, self._name, self._threads = config, run, name, threads
        self._meter, self._stop = meter, context.stop.check
        self._base = load_base(base, "fp32", "sdpa")
        self._check()
        check_architecture(self._base.model.config)
        text = config.text
        parts = pieces(None if text.file is None else context.workspace.resolve(text.file))
        counts = (text.calibration, text.held_out)
        self._texts = windows(self._base.tokenizer, parts, text.file or SHIPPED, counts, text.length, config.seed)
        self._windows = torch.tensor(self._texts.calibration)
        self._key = _hash(self._base.fingerprint, self._texts.sha256, *counts, text.length)
        self._cache = StageCache(context.workspace.root / ".agentlab" / "compress", self._key)
        self._shared = self._cache.folder
        self._stages = run.folder.folder("stages").path
        self._source = source
        self._tell_input()
        count, freed = self._cache.evict_others(time.time())
        if count:
            run.stream("stages.evicted", name, count=count, bytes=freed)
        self._weights = int(first_event_data(run.events, BASE, name)["weights"])
        self._made = {name for name in SHARED if (self._shared / name).exists()}
        self._meter.expect([*opening(config, self._weights)[1:], *cheapest(config, self._weights, self._made)[1]])
        self._reference(self._texts.held_out, self._base.path)  # what is wrong with the base is no recipe's fault

    def _tell_input(self) -> None:
        now = {"sha256": self._texts.sha256, "fingerprint": self._base.fingerprint}
        if has_changed(first_event_data(self._run.events, TEXTS, self._name), **now):
            raise RunMismatchError(
                "The base or the text has changed since the run started.", hint="Restore it, or start a new run."
            )
        self._run.emit_once(TEXTS, self._name, source=self._texts.source, **now)
        weights = sum(parameter.numel() for parameter in self._base.model.parameters())
        side_bytes = sum(file.stat().st_size for file in [self._base.path / CONFIG, *files_beside(self._base.path)])
        checkpoint = side_bytes + sum(file.stat().st_size for file in self._base.path.glob("*.safetensors"))
        size = self._source.stat().st_size if self._source else checkpoint
        dense = 2 * weights + side_bytes  # what a bfloat16 export of the base would hold
        stored = None if self._source is None else metadata.read(self._source).quantisation
        grid = all(on_a_grid(layer.weight) for layer in linears(self._base.model).values())
        shapes = {name: layer.weight.shape for name, layer in linears(self._base.model).items()}
        odd = [len(falls_back(shapes, "Q4_K_M")), len(shapes)]
        facts = {"weights": weights, "dense": dense, "source": size, "stored": stored, "grid": grid, "odd": odd}
        limits = [(limit.rule.model_dump(mode="json"), limit.why) for limit in limits_of(self._config, self._base.path)]
        self._run.emit_once(BASE, self._name, **facts, limits=limits, chat=bool(self._base.tokenizer.chat_template))

    @property
    def dense(self) -> int:
        return int(first_event_data(self._run.events, BASE, self._name)["dense"])

    def make(self, recipe: Recipe, out: Path) -> Measures:
        stages = stages_of(recipe, self._config, self._weights, self._made)
        self._meter.expect(stages)
        self._made |= {stage.makes for stage in stages}
        folder = self._shaped_checkpoint(recipe)
        out.parent.mkdir(parents=True, exist_ok=True)
        if recipe.format == "gguf":
            return self._gguf(recipe, folder, out.with_name(f"{out.name}.gguf"))
        return self._checkpoint(recipe, folder, out)

    def read(self, recipe: Recipe, out: Path, side: Side, start: int, stop: int) -> tuple[Floats, Floats]:
        windows = getattr(self._texts, side)[start:stop]
        full = read_goal(self._config.goal).bounds_kl
        folder = self._base.path if recipe.vocabulary == "all" else self._shaped_checkpoint(recipe)
        losses, kls, step = Floats(), Floats(), self._config.text.held_out if full else MOST  # which memory holds
        for begin in range(0, len(windows), step):
            part = windows[begin : begin + step]
            self._meter.expect(look(len(part), self._config, self._weights))
            reference = self._reference(part, folder, full=full)
            self._stage("measure")
            divergence = self._divergence(recipe, out, reference)
            losses, kls = losses + divergence.losses, kls + divergence.windows
        return losses, kls

    def _divergence(self, recipe: Recipe, out: Path, reference: Path) -> Divergence:
        if recipe.format == "gguf":
            return divergence_gguf(out, reference, self._threads, self._check, kv_type=recipe.cache)
        return read_transformers(out, reference, self._threads, self._check)

    def _check(self) -> None:
        self._stop()
        self._meter.check()

    def _stage(self, name: str) -> None:
        self._meter.stage(name)
        self._run.stream("stage.began", name)

    # -- what recipes have in common ----------------------------------------------------------------------------

    def _reference(self, windows: Windows, folder: Path, *, full: bool = True) -> Path:
        """What the base says of windows, in a folder's vocabulary; `full`: of all tokens. See `divergence_gguf`."""
        fewer, first = self._fewer(folder), full and windows == self._texts.held_out
        name = "held-out" if first and not fewer else f"held-out-{_hash(fewer and folder.name, full, windows)}"

        def build(file: Path) -> None:
            self._stage("reference")
            tokens, logs, counted = [], [], []
            for window in windows:
                self._check()
                row, ids, begins = self._distributions(window), list(window), list(range(1, len(window)))
                if fewer:
                    ids, begins = fewer.window(window)
                    row = fewer.distributions(row[np.maximum(begins, 1) - 1])
                tokens.append(ids)
                logs.append(row if full else row[np.arange(len(row)), ids[1:]])
                counted.append(np.array(begins) > 0)
            content = save({"tokens": np.array(tokens), "logprobs": np.stack(logs), "at": np.stack(counted)})
            self._meter.flush()  # with the file there, a killed run does not compute it again, nor count it
            write_bytes(file, content)

        return self._cache.get(f"{name}.safetensors", build, self._stages if fewer else None)

    def _distributions(self, window: Sequence[int]) -> np.ndarray:
        """Log-probabilities of the base behind each token but the last, float32 (tokens - 1, vocabulary)."""
        with torch.inference_mode():
            logits = self._base.model(torch.tensor([window], device=self._base.model.device)).logits[0, :-1].float()
            if not torch.isfinite(logits).all():
                raise ModelFileError(
                    f"The outputs of {self._base.path.name} are not finite.",
                    hint="Its weights are damaged, or it cannot be computed in float32. Download it again.",
                )
            return np.asarray(logits.log_softmax(-1).cpu())

    def _fewer(self, folder: Path) -> Fewer | None:
        """The vocabulary of a checkpoint, if it is not the base's."""
        file = folder.with_name(f"{folder.name}-vocabulary.json")
        return Fewer(**json.loads(file.read_bytes())) if file.is_file() else None

    def _fewer_words(self, model: Any, folder: Path) -> Path:
        """Leave out tokens that the text does not use; the folder of the tokenizer that is left."""
        self._stage("vocabulary")
        words = folder.with_name(f"{folder.name}-tokenizer")
        make_folder(words)
        fewer = cut_vocabulary(model, self._base.path, self._texts.seen, words)
        write_json(folder.with_name(f"{folder.name}-vocabulary.json"), asdict(fewer))
        return words

    def _shaped_checkpoint(self, recipe: Recipe) -> Path:
        """The checkpoint before it is quantized: the base's, or one that was cut and recovered."""
        if not recipe.has_own_checkpoint:
            return self._base.path
        shaping = {"structure", "kept", "pruner", "pruning_sparsity", "recovery", "vocabulary"}
        made_of = recipe.model_dump(include=shaping)
        recovery = self._config.recovery.model_dump() if recipe.recovery != "none" else {}
        of = _hash(self._key, json.dumps([made_of, recovery, self._config.seed]))
        folder = self._stages / f"{'seen' if recipe.vocabulary == 'seen' else 'cut'}-{of}"
        if not folder.is_dir():
            model = load_base(self._base.path, "fp32", "sdpa").model
            if recipe.structure != "none":
                self._cut(model, recipe)
            if recipe.pruner != "none":
                self._prune(model, recipe, folder)
            if recipe.recovery != "none":
                self._recover(model, recipe, folder.with_name(f"{folder.name}-training"))
            make_folder(folder.parent)
            words = self._fewer_words(model, folder) if recipe.vocabulary == "seen" else self._base.path
            write_dense(model, words, folder, "float32", self._check)
        return folder

    def _cut(self, model: Any, recipe: Recipe) -> None:
        statistics = self._statistics(self._base.path, self._base.model)
        self._stage("cut")
        if recipe.structure == "width":
            narrow(model, statistics, width_left(model.config.intermediate_size, recipe.kept))
        else:
            count = len(layers_of(model))
            drop_layers(model, statistics.influences(), count - layers_left(count, recipe.kept))

    def _prune(self, model: Any, recipe: Recipe, folder: Path) -> None:
        if recipe.structure == "none":
            statistics = self._statistics(self._base.path, self._base.model)
        else:
            statistics = self._statistics(folder.with_name(f"{folder.name}-cut"), model)
        self._stage("prune")
        sparsity = recipe.pruning_sparsity
        assert recipe.pruner != "none"
        assert sparsity is not None
        pattern = PATTERNS[sparsity] if isinstance(sparsity, str) else sparsity
        prune(model, statistics, recipe.pruner, pattern, check=self._check)

    def _recover(self, model: Any, recipe: Recipe, folder: Path) -> None:
        config, teacher = self._config.recovery, None
        if recipe.recovery == "distil":
            self._stage("teacher")
            file = self._shared / "teacher.safetensors"
            teacher = keep_teacher(self._base.model, self._windows, file, self._key, check=self._check)
        self._stage("recover")
        epochs = config.steps * config.batch / (len(self._windows) - SCORED)
        training = TrainingConfig(epochs=epochs, batch_size=config.batch, lr=config.learning_rate, evals=2)
        job = TrainingJob(LoraConfig(r=config.rank, alpha=2 * config.rank), training, folder, self._config.seed)
        origin, bf16 = _hash(self._key, str(recipe)), machine.describe().bf16
        recover(model, self._windows, SCORED, job, origin, teacher=teacher, bf16=bf16, check=self._check)

    def _statistics(self, folder: Path, model: Any) -> CalibrationStatistics:
        self._stage("calibrate")
        base = folder == self._base.path
        cache_folder = (self._shared if base else folder) / "statistics"
        origin = self._key if base else f"{self._key}/{folder.name}"
        windows = self._windows
        if fewer := self._fewer(folder):
            windows = torch.tensor([fewer.window(window)[0] for window in self._texts.calibration])
        return calibrate(model, windows, cache_folder, origin, memory=None, check=self._check)

    def _plain_gguf(self, folder: Path) -> Path:
        def build(file: Path) -> None:
            self._stage("write gguf")
            write_gguf(folder, file, "f32", self._check)

        return self._cache.get("float32.gguf", build, None if folder == self._base.path else folder)

    # -- exports ------------------------------------------------------------------------------------------------

    def _gguf(self, recipe: Recipe, folder: Path, out: Path) -> Measures:
        plain = self._plain_gguf(folder)
        importance = self._importance(folder) if recipe.importance else None
        self._stage("quantize")
        kind = KQUANTS[recipe.quantization_bits]
        out.unlink(missing_ok=True)
        quantize_gguf(plain, out, kind, importance=importance, threads=self._threads, check=self._check)
        reference, file = self._reference(self._texts.held_out, folder), metadata.read(out)
        self._stage("measure")
        weights = reload_gguf(out, folder, reference, self._threads, self._check)
        runtime = self._divergence(recipe, out, reference)
        files = [out, self._source or self._plain_gguf(self._base.path)]
        ours, source = speed_gguf(files, self._threads, self._check, kv_type=recipe.cache)
        says = answer_gguf(out, PROMPT, self._threads, self._check)
        figures = {**asdict(ours), "source_decode": source.decode, "says": says, "kl_computed": None}
        return self._measures(out, file.file_bytes, weights, runtime, held=dict(file.types), **figures)

    def _checkpoint(self, recipe: Recipe, folder: Path, out: Path) -> Measures:
        shutil.rmtree(out, ignore_errors=True)
        model, bytes_by_type = self._write_checkpoint(recipe, folder, out)
        reference = self._reference(self._texts.held_out, folder)
        self._stage("measure")
        size = sum(file.stat().st_size for file in out.iterdir())
        computed = Divergence.of(divergences(model, reference))
        del model
        weights, runtime, figures = reload_transformers(out, self._base.path, reference, self._threads, self._check)
        return self._measures(out, size, weights, runtime, held=bytes_by_type, kl_computed=computed.kl, **figures)

    def _write_checkpoint(self, recipe: Recipe, folder: Path, out: Path) -> tuple[Any, dict[str, int]]:
        """The model of a folder, quantized if so, and written; its weights are those of the file."""
        if recipe.quantizer == "bitsandbytes":
            self._stage("quantize")
            return write_bitsandbytes(folder, recipe.quantization_bits, out), {}
        model = load_base(folder, "fp32", "sdpa").model
        codes: dict[str, Codes] = {}
        if recipe.on_grid:
            statistics = self._statistics(folder, model)
            self._stage("quantize")
            grid = Grid(recipe.quantization_bits, recipe.group)
            codes = quantize(model, statistics, QUANTIZERS.load(recipe.quantizer), grid, check=self._check)
            write_packed(model, codes, folder, out, "bfloat16", self._check)
        else:
            write_dense(model, folder, out, "bfloat16", self._check)
        for name, parameter in model.named_parameters():
            if name.removesuffix(".weight") not in codes:
                parameter.data.copy_(parameter.data.bfloat16())  # as it is written
        bytes_by_type: Counter[str] = Counter()
        for code in codes.values():
            bytes_by_type[str(code.grid)] += code.bits() // 8
        return model, dict(bytes_by_type)

    def _measures(self, out: Path, size: int, weights: Divergence, runtime: Divergence, **figures: Any) -> Measures:
        bits = float(8 * size / first_event_data(self._run.events, BASE, self._name)["weights"])
        return Measures(file=out.name, size=size, bits=bits, kl_weights=weights.kl, **asdict(runtime), **figures)

    def _importance(self, folder: Path) -> dict[str, np.ndarray]:
        """Of each matrix by its GGUF name, the mean square of each of its inputs."""
        model = self._base.model if folder == self._base.path else load_base(folder, "fp32", "sdpa").model
        statistics, name_of = self._statistics(folder, model), tensor_names(model.config.to_dict())
        importance: dict[str, np.ndarray] = {}
        for index in range(len(layers_of(model))):
            layer_statistics = statistics.layer(index)
            for layer_input in INPUTS:
                row = layer_statistics.squares[layer_input.key].diagonal().numpy()
                names = [name_of(f"{layer_name(index, reader)}.weight") for reader in layer_input.readers]
                importance |= {str(name): row for name in names}
        return importance


def _hash(*parts: object) -> str:
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:16]
