"""What a client may write into `model`: a model of the config, or a strategy over all of them. Pure."""

from typing import get_args

from agentlab.errors import ConfigError, UnknownNameError
from agentlab.llm.config import LLMConfig
from agentlab.llm.provider_config import Strategy

TASK = "serve"  # what `tasks` of a config, and the statistics, call the gateway's questions
DEFAULT = "agentlab"  # whatever the config says
_COMPARING = ("best_of_two", "best_of_n")  # of no use with a single model
STRATEGIES: dict[str, Strategy] = {f"{DEFAULT}/{name.replace('_', '-')}": name for name in get_args(Strategy)}


def known_names(config: LLMConfig) -> dict[str, str]:
    """Every name a client may use, and who owns it: the gateway, or a provider of the config."""
    several = len(config.candidates(TASK)) > 1
    strategies = (name for name, strategy in STRATEGIES.items() if several or strategy not in _COMPARING)
    ours = dict.fromkeys((DEFAULT, *strategies), DEFAULT)
    return ours | {name: model.provider for name, model in config.models.items()}


def meaning(name: str, config: LLMConfig) -> tuple[Strategy | None, str | None]:
    """The strategy that a name asks for, and the one model of the config; None where the config decides.

    Raises:
        UnknownNameError: it is no name of the gateway.
    """
    names = known_names(config)
    if name not in names:
        raise UnknownNameError("model", name[:200], list(names))
    if name in config.models:
        return "single", name
    return STRATEGIES.get(name), None


def check(config: LLMConfig) -> None:
    """Raise ConfigError if there is no model to offer, or one that bears a name of the gateway."""
    if not config.models:
        raise ConfigError(
            "The config has no language model, so there is nothing to serve.",
            hint="Choose one, for example `agentlab serve embedded`; `agentlab configs list llm` shows all.",
        )
    taken_names = [name for name in config.models if name == DEFAULT or name in STRATEGIES]
    if taken_names:
        raise ConfigError(
            "\n".join(f"models.{name}: the gateway uses this name for a strategy" for name in taken_names),
            hint="Give the model another name.",
        )
