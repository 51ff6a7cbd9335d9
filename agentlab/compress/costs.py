"""What recipes are going to cost: their stages, as the workshop goes through them, by the sizes of base and text.

Factors are seconds of a core of an x86-64 server, measured on models of 135 and 2 million weights. They are
what a forecast begins with; whatever was measured corrects it.
"""

from collections.abc import Collection, Iterable, Sequence

from agentlab.compress.config import CompressConfig
from agentlab.compress.meter import CompressStage
from agentlab.compress.recipe import Recipe
from agentlab.compress.texts import MOST
from agentlab.gguf import metadata
from agentlab.models.base_model import BaseFile

_LOAD, _IMPORT, _TOUCH = 0.7e-8, 8e-8, 1e-8  # a weight: of a checkpoint, of a GGUF file made one, to rewrite or cut it
_PASS, _TRAIN = 3e-11, 9e-11  # a weight and token, forward, and with gradients
_SOLVE = 1.6e-10  # a weight and number of its row, to round or mask it by its inputs; rows grow as the cube root
_MEASURING, _READING = 5.2, 3.7  # to start the processes that measure an export, and that which reads more text of it
_RUNTIME, _IN_GGUF = 4e-8, 5e-8  # a weight, to see how fast it writes
SHARED = ("float32.gguf", "statistics", "teacher.safetensors")  # files of a base that are made once


def weights_of(base: BaseFile) -> int:
    """Of a checkpoint in float32 or half of it, or of the GGUF file that it is going to be made of; about.

    Raises:
        ModelFileError: the file is damaged.
    """
    if base.source is not None and not base.path.is_dir():
        return metadata.read(base.source).parameters
    size = sum(file.stat().st_size for file in base.path.glob("*.safetensors"))
    return size // (4 if "float32" in (base.path / "config.json").read_text() else 2)


def opening(config: CompressConfig, weights: int, *, imports: bool = False) -> list[CompressStage]:
    """What comes before the first recipe; `imports`: the checkpoint is made of a GGUF file first."""
    tokens = config.text.held_out * config.text.length
    return [
        CompressStage("open", 1 + (_LOAD + imports * _IMPORT) * weights),
        CompressStage("reference", _PASS * weights * tokens),
    ]


def stages_of(
    recipe: Recipe, config: CompressConfig, weights: int, existing: Collection[str] = ()
) -> list[CompressStage]:
    """The stages of a recipe in their order, to the end of measuring; `existing`: what others have done of it."""
    text, recovery = config.text, config.recovery
    shape = str(recipe.model_copy(update={"quantizer": "none", "cache": "f16"})) if recipe.has_own_checkpoint else ""
    touch, solve = _TOUCH * weights, _SOLVE * weights ** (4 / 3)
    read = _PASS * weights * text.calibration * text.length
    train = _TRAIN * weights * recovery.steps * recovery.batch * text.length
    measure = _MEASURING + _RUNTIME * weights + 2 * _PASS * weights * text.held_out * text.length
    gguf, grid = recipe.format == "gguf", recipe.on_grid
    rounding = solve if grid and recipe.quantizer != "rtn" else 1.5 * touch
    stages = [
        (recipe.cut, CompressStage("calibrate", read, "statistics")),
        (recipe.structure != "none", CompressStage("cut", touch, shape)),
        (recipe.structure != "none" and recipe.pruner != "none", CompressStage("calibrate", read, shape)),
        (recipe.pruner != "none", CompressStage("prune", solve, shape)),
        (recipe.recovery == "distil", CompressStage("teacher", read, "teacher.safetensors")),
        (recipe.recovery != "none", CompressStage("recover", train, shape)),
        (recipe.vocabulary == "seen", CompressStage("vocabulary", touch, shape)),
    ]
    stages = [] if shape in existing else stages
    stages += [
        (gguf, CompressStage("write gguf", touch, f"{shape}float32.gguf")),
        (recipe.importance or grid, CompressStage("calibrate", read, f"{shape}statistics")),
        (recipe.quantizer != "none", CompressStage("quantize", rounding)),
        (True, CompressStage("measure", measure + gguf * _IN_GGUF * weights)),
    ]
    return [
        CompressStage(stage.name, 0.0 if stage.makes and stage.makes in existing else stage.work, stage.makes)
        for is_needed, stage in stages
        if is_needed
    ]


def look(windows: int, config: CompressConfig, weights: int) -> list[CompressStage]:
    """What it takes to read an export on windows that nothing was read on before."""
    passing = _PASS * weights * windows * config.text.length
    return [CompressStage("reference", passing), CompressStage("measure", _READING + passing)]


def in_turn(recipes: Iterable[Recipe], config: CompressConfig, weights: int) -> list[float]:
    """The work of recipes one after the other: what they have in common is done by the first."""
    existing, works = set[str](), list[float]()
    for recipe in recipes:
        stages = stages_of(recipe, config, weights, existing)
        works.append(work_of(stages))
        existing |= {stage.makes for stage in stages}
    return works


def cheapest(
    config: CompressConfig, weights: int, existing: Collection[str] = SHARED
) -> tuple[Recipe, list[CompressStage]]:
    """Of the recipes that a search begins with, the one with the least work where so much is made, and its stages."""
    first = [(recipe, stages_of(recipe, config, weights, existing)) for recipe in config.recipes[: config.first]]
    return min(first, key=lambda candidate: work_of(candidate[1]))


def work_of(stages: Iterable[CompressStage]) -> float:
    """Seconds of a core that stages take together."""
    return sum(stage.work for stage in stages)


def work_of_run(config: CompressConfig, recipes: Sequence[Recipe], weights: int, *, imports: bool) -> float:
    """Of a run from nothing; what nobody has proposed yet is taken to be new, and an average of these recipes.

    One recipe is taken to be near a bound, and read on all there is to choose by; another one is confirmed.
    """
    works = in_turn(recipes, config, weights)
    known_count = len(works) if "portfolio" in (config.planner, *config.beside) else config.first
    later = 0 if config.planner == "portfolio" else max(0, config.budget.trials - config.first)
    arms = 1 + sum(name != "portfolio" for name in config.beside)
    arms += 2 * config.control_seeds if config.control == "full" else 0
    average = sum(works) / len(works)
    looks = 2 * work_of(look(MOST, config, weights))
    begins = work_of(opening(config, weights, imports=imports))
    return begins + sum(works[:known_count]) + arms * later * average + looks
