"""Carries recipes out on a real model: cut, recover, quantize, export; then the file is measured in its runtime.

What recipes have in common is done once and kept by what it is made of: the statistics of a model, its GGUF file, a
model that was cut and recovered. All of it lies below the run's `stages/`, the base's own below `.agentlab/compress/`.
"""

import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch  # noqa: TID253 - reached lazily, when a model is compressed
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor  # noqa: TID253 - as above

from agentlab import machine
from agentlab.compress import structure
from agentlab.compress.anatomy import INPUTS, check_architecture, layer_name, layers_of, linears, on_a_grid
from agentlab.compress.calibration import Statistics, calibrate
from agentlab.compress.config import SCORED, CompressConfig, limits_of
from agentlab.compress.grid import Codes, Grid
from agentlab.compress.layerwise import prune, quantize
from agentlab.compress.meter import Meter
from agentlab.compress.objective import Measures
from agentlab.compress.packed import write_bitsandbytes, write_dense, write_packed
from agentlab.compress.pruners import PATTERNS
from agentlab.compress.recipe import KQUANTS, Recipe, layers_left, width_left
from agentlab.compress.recovery import keep_teacher, recover
from agentlab.compress.reloading import PROMPT, divergences, reload_gguf, reload_transformers
from agentlab.compress.result import BASE, TEXTS
from agentlab.compress.texts import SHIPPED, pieces, windows
from agentlab.compress.vocabulary import cut_vocabulary
from agentlab.errors import AgentlabError, ModelFileError, RunMismatchError
from agentlab.gguf import metadata
from agentlab.gguf.files import answer_gguf, divergence_gguf, falls_back, quantize_gguf, speed_gguf
from agentlab.gguf.writing import tensor_names, write_gguf
from agentlab.hf.checkpoint import CONFIG
from agentlab.runs.atomic import make_folder, write_bytes
from agentlab.runs.context import Context
from agentlab.runs.events import noted, require_unchanged
from agentlab.runs.run import Run
from agentlab.stats.divergence import Divergence
from agentlab.train.base import load_base
from agentlab.train.config import LoraConfig, TrainingConfig, TrainingJob
from agentlab.train.merge import files_beside

_HELD_OUT_FILE = "held-out.safetensors"


class RealWorkshop:
    """Implements `objective.Workshop`."""

    def __init__(
        self,
        config: CompressConfig,
        base: Path,
        source: Path | None,
        name: str,
        run: Run,
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
        file = config.text.file
        parts = pieces(None if file is None else context.workspace.resolve(file))
        text = config.text
        counts = (text.calibration, text.held_out)
        self._texts = windows(self._base.tokenizer, parts, file or SHIPPED, counts, text.length)
        self._windows = torch.tensor(self._texts.calibration)
        self._key = _hash(self._base.fingerprint, self._texts.sha256, *counts, text.length)
        self._shared = context.workspace.root / ".agentlab" / "compress" / self._key
        self._stages = run.folder.folder("stages").path
        self._source = source
        self._tell_input()
        self._reference()  # what is wrong with the base is no recipe's fault

    def _tell_input(self) -> None:
        now = {"sha256": self._texts.sha256, "fingerprint": self._base.fingerprint}
        changed = RunMismatchError(
            "The base or the text is not what it was when the run began.", hint="Put it back, or begin a new run."
        )
        require_unchanged(noted(self._run.events, TEXTS, self._name), changed, **now)
        self._run.emit_once(TEXTS, self._name, source=self._texts.source, **now)
        weights = sum(each.numel() for each in self._base.model.parameters())
        beside = sum(file.stat().st_size for file in [self._base.path / CONFIG, *files_beside(self._base.path)])
        checkpoint = beside + sum(file.stat().st_size for file in self._base.path.glob("*.safetensors"))
        size = self._source.stat().st_size if self._source else checkpoint
        dense = 2 * weights + beside  # what a bfloat16 export of the base would hold
        stored = None if self._source is None else metadata.read(self._source).quantisation
        grid = all(on_a_grid(each.weight) for each in linears(self._base.model).values())
        shapes = {name: each.weight.shape for name, each in linears(self._base.model).items()}
        odd = [len(falls_back(shapes, "Q4_K_M")), len(shapes)]
        found = {"weights": weights, "dense": dense, "source": size, "stored": stored, "grid": grid, "odd": odd}
        limits = [(limit.rule.model_dump(mode="json"), limit.why) for limit in limits_of(self._config, self._base.path)]
        self._run.emit_once(BASE, self._name, **found, limits=limits, chat=bool(self._base.tokenizer.chat_template))

    @property
    def dense(self) -> int:
        """See `Workshop`."""
        return int(noted(self._run.events, BASE, self._name)["dense"])

    def make(self, recipe: Recipe, out: Path) -> Measures:
        """See `Workshop`."""
        folder = self._shaped(recipe)
        out.parent.mkdir(parents=True, exist_ok=True)
        if recipe.format == "gguf":
            return self._gguf(recipe, folder, out.with_name(f"{out.name}.gguf"))
        return self._checkpoint(recipe, folder, out)

    def _check(self) -> None:
        self._stop()
        self._meter.check()

    def _stage(self, name: str) -> None:
        self._meter.stage(name)
        self._run.stream("stage.began", name)

    # -- what recipes have in common ----------------------------------------------------------------------------

    def _reference(self) -> Path:
        """Log-probabilities of the base on the held-out windows, float32; see `divergence_gguf`."""
        path = self._shared / _HELD_OUT_FILE
        if not _whole(path):
            self._stage("reference")
            logs, model = [], self._base.model
            with torch.inference_mode():
                for window in self._texts.held_out:
                    self._check()
                    logits = model(torch.tensor([window], device=model.device)).logits[0, :-1].float()
                    if not torch.isfinite(logits).all():
                        raise ModelFileError(
                            f"{self._base.path.name} answers with numbers that are not finite.",
                            hint="Its weights are damaged, or it cannot be computed in float32: get it again.",
                        )
                    logs.append(logits.log_softmax(-1).cpu())
            tokens = torch.tensor(self._texts.held_out)
            make_folder(path.parent)
            everywhere = torch.ones(tokens.shape[0], tokens.shape[1] - 1, dtype=torch.bool)
            content = save({"tokens": tokens, "logprobs": torch.stack(logs), "at": everywhere})
            self._meter.flush()  # with the file there, a killed run does not compute it again, nor count it
            write_bytes(path, content)
        return path

    def _texts_of(self, folder: Path) -> tuple[Tensor, Path]:
        """Calibration windows and reference in the vocabulary of a checkpoint."""
        own = folder.with_name(f"{folder.name}-{_HELD_OUT_FILE}")
        if not own.is_file():
            return self._windows, self._reference()
        with safe_open(own, framework="pt") as file:
            return file.get_tensor("calibration"), own

    def _fewer_words(self, model: Any, folder: Path) -> Path:
        """Leave out tokens that the text does not use; the folder of the tokenizer that is left."""
        self._stage("vocabulary")
        words = folder.with_name(f"{folder.name}-tokenizer")
        make_folder(words)
        fewer = cut_vocabulary(model, self._base.path, self._texts.seen, words)
        with safe_open(self._reference(), framework="np") as file:
            logs = file.get_tensor("logprobs")
        tokens, begins = zip(*map(fewer.window, self._texts.held_out), strict=True)
        at = np.array(begins) > 0
        rows = [fewer.distributions(each[np.maximum(places, 1) - 1]) for each, places in zip(logs, begins, strict=True)]
        kept = {
            "tokens": torch.tensor(tokens),
            "logprobs": torch.from_numpy(np.stack(rows)),
            "at": torch.from_numpy(at),
            "calibration": torch.tensor([fewer.window(window)[0] for window in self._texts.calibration]),
        }
        write_bytes(folder.with_name(f"{folder.name}-{_HELD_OUT_FILE}"), save(kept))
        return words

    def _shaped(self, recipe: Recipe) -> Path:
        """The checkpoint before it is quantized: the base's, or one that was cut and recovered."""
        if not recipe.shaped:
            return self._base.path
        made_of = recipe.model_dump(
            include={"structure", "kept", "pruner", "pruning_sparsity", "recovery", "vocabulary"}
        )
        recovery = self._config.recovery.model_dump() if recipe.recovery != "none" else {}
        folder = self._stages / f"cut-{_hash(self._key, json.dumps([made_of, recovery, self._config.seed]))}"
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
            inner = model.config.intermediate_size
            structure.narrow(model, statistics, width_left(inner, recipe.kept))
        else:
            count = len(layers_of(model))
            structure.drop_layers(model, statistics.influences(), count - layers_left(count, recipe.kept))

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
        prune(model, statistics, recipe.pruner, pattern, check=self._check, tell=lambda *_: None)

    def _recover(self, model: Any, recipe: Recipe, folder: Path) -> None:
        config, teacher = self._config.recovery, None
        if recipe.recovery == "distil":
            self._stage("teacher")
            file = self._shared / "teacher.safetensors"
            teacher = keep_teacher(
                self._base.model, self._windows, file, self._key, check=self._check, tell=lambda *_: None
            )
        self._stage("recover")
        learnt = len(self._windows) - SCORED
        training = TrainingConfig(
            epochs=config.steps * config.batch / learnt, batch_size=config.batch, lr=config.learning_rate, evals=2
        )
        job = TrainingJob(LoraConfig(r=config.rank, alpha=2 * config.rank), training, folder, self._config.seed)
        origin = _hash(self._key, str(recipe))
        bf16 = machine.describe().bf16
        recover(model, self._windows, SCORED, job, origin, teacher=teacher, bf16=bf16, check=self._check)

    def _statistics(self, folder: Path, model: Any) -> Statistics:
        """Of the inputs of all linear layers, of the model in a folder."""
        self._stage("calibrate")
        base = folder == self._base.path
        place = (self._shared if base else folder) / "statistics"
        origin = self._key if base else f"{self._key}/{folder.name}"
        windows, _ = self._texts_of(folder)
        return calibrate(model, windows, place, origin, memory=None, check=self._check, tell=lambda *_: None)

    def _plain_gguf(self, folder: Path) -> Path:
        """The checkpoint of a folder as a GGUF file in float32, which all k-quants are made of."""
        file = (self._shared if folder == self._base.path else folder) / "float32.gguf"
        if not _whole(file):
            self._stage("write gguf")
            make_folder(file.parent)
            file.unlink(missing_ok=True)
            write_gguf(folder, file, "f32", self._check)
        return file

    # -- exports ------------------------------------------------------------------------------------------------

    def _gguf(self, recipe: Recipe, folder: Path, out: Path) -> Measures:
        plain = self._plain_gguf(folder)
        importance = self._importance(folder) if recipe.importance else None
        self._stage("quantize")
        kind = KQUANTS[recipe.quantization_bits]
        out.unlink(missing_ok=True)
        quantize_gguf(plain, out, kind, importance=importance, threads=self._threads, check=self._check)
        self._stage("measure")
        (_, reference), file = self._texts_of(folder), metadata.read(out)
        weights = reload_gguf(out, folder, reference, self._threads, self._check)
        found = divergence_gguf(out, reference, self._threads, self._check, kv_type=recipe.cache)
        files = [out, self._source or self._plain_gguf(self._base.path)]
        ours, source = speed_gguf(files, self._threads, self._check, kv_type=recipe.cache)
        return self._measures(
            out,
            file.file_bytes,
            found,
            held=dict(file.types),
            kl_computed=None,
            kl_weights=weights.kl,
            source_decode=source.decode,
            says=answer_gguf(out, PROMPT, self._threads, self._check),
            load=ours.load,
            prefill=ours.prefill,
            decode=ours.decode,
            peak=ours.peak,
        )

    def _checkpoint(self, recipe: Recipe, folder: Path, out: Path) -> Measures:
        shutil.rmtree(out, ignore_errors=True)
        model, held = self._written(recipe, folder, out)
        self._stage("measure")
        (_, reference), size = self._texts_of(folder), sum(file.stat().st_size for file in out.iterdir())
        computed = Divergence.of(divergences(model, reference))
        del model
        found = reload_transformers(out, self._base.path, reference, self._threads, self._check)
        names = ("load", "prefill", "decode", "source_decode", "peak", "gpu", "says")
        speeds = {name: getattr(found, name) for name in names}
        weights = {"kl_computed": computed.kl, "kl_weights": found.weights.kl}
        return self._measures(out, size, found.runtime, held=held, **weights, **speeds)

    def _written(self, recipe: Recipe, folder: Path, out: Path) -> tuple[Any, dict[str, int]]:
        """The model of a folder, quantized if so, and written; its weights are those of the file."""
        if recipe.quantizer == "bitsandbytes":
            self._stage("quantize")
            return write_bitsandbytes(folder, recipe.quantization_bits, out), {}
        model = load_base(folder, "fp32", "sdpa").model
        codes: dict[str, Codes] = {}
        if recipe.quantizer in ("rtn", "gptq", "awq"):
            statistics = self._statistics(folder, model)
            self._stage("quantize")
            grid = Grid(recipe.quantization_bits, recipe.group)
            codes = quantize(model, statistics, recipe.quantizer, grid, check=self._check, tell=lambda *_: None)
            write_packed(model, codes, folder, out, "bfloat16", self._check)
        else:
            write_dense(model, folder, out, "bfloat16", self._check)
        for name, each in model.named_parameters():
            if name.removesuffix(".weight") not in codes:
                each.data.copy_(each.data.bfloat16())  # as it is written
        held: Counter[str] = Counter()
        for code in codes.values():
            held[str(code.grid)] += code.bits() // 8
        return model, dict(held)

    def _measures(self, out: Path, size: int, found: Divergence, **more: Any) -> Measures:
        """Of an export, by what its runtime makes of it."""
        bits = float(8 * size / noted(self._run.events, BASE, self._name)["weights"])
        told: dict[str, Any] = {"kl": found.kl, "loss": found.loss, "top1": found.top1, "windows": found.windows}
        return Measures(file=out.name, size=size, bits=bits, **told, **more)

    def _importance(self, folder: Path) -> dict[str, np.ndarray]:
        """Of each matrix by its GGUF name, the mean square of each of its inputs."""
        model = self._base.model if folder == self._base.path else load_base(folder, "fp32", "sdpa").model
        statistics, name_of = self._statistics(folder, model), tensor_names(model.config.to_dict())
        found: dict[str, np.ndarray] = {}
        for index in range(len(layers_of(model))):
            known = statistics.layer(index)
            for each in INPUTS:
                row = known.squares[each.key].diagonal().numpy()
                found |= {str(name_of(f"{layer_name(index, reader)}.weight")): row for reader in each.readers}
        return found


def _whole(file: Path) -> bool:
    """Whether a file that earlier work has left can be used; a damaged one is made again."""
    try:
        if file.suffix == ".gguf":
            metadata.read(file)
        else:
            with safe_open(file, framework="pt"):
                pass
    except (SafetensorError, OSError, AgentlabError):
        return False
    return True


def _hash(*parts: object) -> str:
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:16]
