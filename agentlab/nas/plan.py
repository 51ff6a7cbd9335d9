"""What a study is going to do, for `--dry-run` and the first line on the screen, and what a trial would need. Pure."""

import math

from agentlab.nas.config import DataConfig, ModelConfig, NasConfig, TrialConfig
from agentlab.nas.series import Series
from agentlab.nas.study import TERMS
from agentlab.runs.document import AnswerDocument, Block, Table, duration
from agentlab.search.screen import ScreenEstimate
from agentlab.study.finals import last_round_size

_FLOAT = 4
# Weight, gradient, two moments of Adam, the best epoch's copy and the optimiser's passing copy.
_COPIES = 6


class NasPlan(AnswerDocument):
    """The answer of `nas --dry-run`."""

    series: str
    trials: int
    workers: int
    searched: list[str]
    proposers: str
    parameters: int
    memory_bytes: int
    repeats: int
    finals: int
    finals_at_most: int
    paired_studies: int
    language_model: str
    proposals: int
    judges: bool
    max_cost_usd: float
    seconds: float

    def blocks(self) -> list[Block]:
        at_a_time = f", {self.workers} at a time" if self.workers > 1 else ""
        finals_note = (
            f", up to {self.finals_at_most} if more trials qualify" if self.finals_at_most > self.finals else ""
        )
        rows = [
            ("series", self.series),
            ("trials", f"{self.trials}{at_a_time}"),
            ("further trainings", f"{self.repeats} to measure the noise, {self.finals} in the last round{finals_note}"),
            ("proposers", self.proposers),
            ("searched", ", ".join(self.searched) or "nothing"),
            ("trial 0", f"{self.parameters:,} weights, about {self.memory_bytes / 2**20:.0f} MiB of memory to train"),
            (
                "time",
                f"about {duration(self.seconds)} of training, extrapolated from the first steps of trial 0 on "
                "this machine",
            ),
            ("language model", self.language_model),
        ]
        if self.paired_studies:
            rows.insert(3, ("full control", f"{self.paired_studies} more studies, {self.trials} training runs in each"))
        if self.proposals:
            judged = ", plus one per near tie" if self.judges else ""
            rows.append(("model calls", f"about {self.proposals} for proposals{judged}"))
            rows.append(("model cost", f"at most {self.max_cost_usd:g} USD for paid models; local models are free"))
        return [Table(("plan", ""), rows)]


def plan_of(
    config: NasConfig,
    series: Series,
    searched: list[str],
    cost: ScreenEstimate,
    training_seconds: float,
    *,
    agent: bool,
) -> NasPlan:
    """The plan of a checked config. `cost` and `training_seconds` are those of trial 0; `agent`: a model proposes."""
    finals, trials = config.finals, config.max_iterations
    paired = 2 * config.control_seeds - 1 if config.control == "full" and agent else 0
    with_agent = 1 + paired // 2
    repeats = config.evaluator.repeats if config.evaluator.noise is None else 0
    final_trainings = min(finals.count, trials) * finals.seeds
    trainings = (1 + paired) * trials + repeats + final_trainings
    agent_note = "; the language model for about half of the trials" if agent else ""
    return NasPlan(
        series=describe_series(series, config.data),
        trials=trials,
        workers=config.workers,
        searched=searched,
        proposers=f"{config.search.base}{agent_note}",
        parameters=cost.parameters,
        memory_bytes=cost.memory_bytes,
        repeats=repeats,
        finals=final_trainings,
        finals_at_most=last_round_size(finals.count, trials) * finals.seeds,
        paired_studies=paired,
        language_model=describe_models(config),
        proposals=with_agent * ((trials - 1) // 2) if agent else 0,
        judges=all(config.llm.models[name].tier != "pick" for name in config.llm.candidates(TERMS.evaluate)),
        max_cost_usd=config.llm.budget.per_run_usd,
        seconds=trainings * training_seconds / config.workers,
    )


def describe_series(series: Series, data: DataConfig) -> str:
    """One sentence on what was read, and one on a target that has no effect."""
    first, last = str(series.dates[0])[:16], str(series.dates[-1])[:16]
    notes = f" {' '.join(note.rstrip('.') + '.' for note in series.notes)}" if series.notes else ""
    return (
        f"{series.source}: {len(series.values):,} rows, {series.channels} columns ({', '.join(series.names[:8])}"
        f"{', …' if series.channels > 8 else ''}), one row per {series.frequency}, {first} to {last}.{notes}"
        f"{_idle_target(series, data)}"
    )


def _idle_target(series: Series, data: DataConfig) -> str:
    if data.features != "M" or data.target in (None, series.names[-1]):
        return ""
    return (
        f" data.target={data.target} has no effect because data.features=M forecasts every column; "
        "use MS or S to forecast only the target."
    )


def describe_models(config: NasConfig) -> str:
    """The language models that may answer, in the order they are asked."""
    names = [f"{name} ({config.llm.models[name].id})" for name in config.llm.candidates(TERMS.propose)]
    return " then ".join(names) or "none: the classical optimiser proposes every trial"


def estimate(trial: TrialConfig, series: Series) -> ScreenEstimate:
    """Weights (exact) and training memory (an upper estimate, meant for screening) of a trial.

    Memory counts each weight six times, and per layer the activations that the gradient needs: about 14 widths and two
    feed-forward widths per step and, per head, three score matrices. A block of scored windows holds half of one
    layer at a time, which is the larger part where training batches are small. Measured peaks lie 5 to 15 % below.
    """
    parameters = _parameters(trial, series.channels, series.time_channels, len(series.targets))
    kept_activations, widest = _activations(trial)
    activations = max(trial.data.batch_size * kept_activations, trial.data.scored_at_once * widest // 2)
    return ScreenEstimate(parameters, _FLOAT * (_COPIES * parameters + activations))


def encoder_lengths(model: ModelConfig, input_length: int) -> list[int]:
    """Steps that each encoder layer sees; distilling halves them, rounding up."""
    lengths = [input_length]
    for _ in range(model.e_layers - 1):
        lengths.append(math.ceil(lengths[-1] / 2) if model.distil else lengths[-1])
    return lengths


def _parameters(trial: TrialConfig, channels: int, time_channels: int, targets: int) -> int:
    model, width = trial.model, trial.model.d_model
    norm = 2 * width
    embedding = (3 * channels * width + width) + (time_channels * width + width)
    attention = 4 * (width * width + width)
    wide = model.ff_multiplier * width
    feed_forward = (width * wide + wide) + (wide * width + width)
    distil = (3 * width * width + width) + norm
    encoder = model.e_layers * (attention + feed_forward + 2 * norm) + norm
    decoder = model.d_layers * (2 * attention + feed_forward + 3 * norm) + norm
    projection = width * targets + targets
    shortcut = trial.data.input_length * trial.data.horizon if model.shortcut else 0
    between = (model.e_layers - 1) * distil if model.distil else 0
    return 2 * embedding + encoder + between + decoder + projection + shortcut


def _activations(trial: TrialConfig) -> tuple[int, int]:
    """Numbers per window: all that a training step keeps, and the most that one layer holds at once."""
    model = trial.model
    decoded = trial.data.label_length + trial.data.horizon
    per_step = (14 + 2 * model.ff_multiplier) * model.d_model
    lengths = encoder_lengths(model, trial.data.input_length)
    layers = [length * per_step + 3 * model.n_heads * length**2 for length in lengths]
    decoder = decoded * (per_step + 6 * model.d_model) + 3 * model.n_heads * decoded * (decoded + lengths[-1])
    layers += [decoder] * model.d_layers
    return sum(layers), max(layers)
