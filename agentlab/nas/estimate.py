"""What a trial would need, computed without building it: candidates are refused before they cost anything. Pure."""

import math

from agentlab.nas.config import ModelConfig, TrialConfig
from agentlab.nas.series import Series
from agentlab.search.screen import Estimate

_FLOAT = 4
# Weight, gradient, two moments of Adam, the best epoch's copy and the optimiser's passing copy.
_COPIES = 6


def estimate(trial: TrialConfig, series: Series) -> Estimate:
    """Weights (exact) and training memory (an upper estimate, meant for screening) of a trial.

    Memory counts each weight six times, and per layer the activations that the gradient needs: about 14 widths and two
    feed-forward widths per step and, per head, three score matrices. A block of scored windows holds half of one
    layer at a time, which is the larger part where training batches are small. Measured peaks lie 5 to 15 % below.
    """
    parameters = _parameters(trial, series.channels, series.time_channels, len(series.targets))
    kept, widest = _activations(trial)
    activations = max(trial.data.batch_size * kept, trial.data.scored_at_once * widest // 2)
    return Estimate(parameters, _FLOAT * (_COPIES * parameters + activations))


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
