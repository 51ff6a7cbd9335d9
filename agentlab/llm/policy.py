"""What happens after an error: the same model again, the next one, or neither; and what the model's guard learns.

One table for everything (research: routing). Pure; the clock and chance come in.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from agentlab import errors
from agentlab.errors import AgentlabError, AllModelsFailedError
from agentlab.llm.types import Attempt

BREAKER_OPEN = "Not asked: it keeps failing"  # begins the error of a call that fails fast
LONGEST_WAIT = 120.0  # seconds; a provider that asks for more is left alone
BUSY_TRIES = 6  # further tries at a host that has no place; in between the calls wait for one
_FIRST_WAIT, _CEILING = 0.5, 8.0


@dataclass(frozen=True, slots=True)
class Rule:
    """A row of the table."""

    again: bool = False  # the same request to the same model may succeed, after a moment
    move_on: bool = False  # another model may do better
    trips: bool = False  # counts against the model in its breaker
    cools: bool = False  # the model asks to be left alone for a while, and may be asked again after that
    disables: bool = False  # the model is of no use before the configuration changes
    refuses: bool = False  # the model does not take this request; if no model does, the request is at fault
    remedy: str = "`agentlab llm show` lists the models in use."  # where the error itself does not say what to do


def _fault(remedy: str) -> Rule:
    return Rule(again=True, move_on=True, trips=True, remedy=remedy)


_RULES: dict[type[AgentlabError], Rule] = {
    errors.HostBusyError: Rule(
        again=True, move_on=True, remedy="Send fewer requests at once (`providers.NAME.limits.concurrency`)."
    ),
    errors.LLMConnectionError: _fault("Check that the server is running and that `base_url` is right."),
    errors.LLMTimeoutError: Rule(
        move_on=True,
        trips=True,
        remedy="Raise the timeout (--set llm.defaults.timeout.first_token=60), or check the load of the server.",
    ),
    errors.LLMTruncatedError: Rule(move_on=True, trips=True, remedy="The server's log may say why the answer stopped."),
    errors.RateLimitedError: Rule(
        move_on=True,
        cools=True,
        remedy="Wait, send fewer requests at once (`providers.NAME.limits`), or check the account's quota.",
    ),
    errors.QuotaError: Rule(move_on=True, cools=True, remedy="Check the account's quota and credit."),
    errors.ServerFaultError: _fault("The server's log or the provider's status page may say more."),
    errors.AuthError: Rule(move_on=True, disables=True, remedy="Check the key."),
    errors.UnknownModelError: Rule(
        move_on=True,
        disables=True,
        remedy="Check that `id` is the provider's name for the model, and check `base_url`.",
    ),
    errors.BadRequestError: Rule(
        move_on=True,
        refuses=True,
        remedy="Check the model's `id`, and that the model supports all features of the request.",
    ),
    errors.ContextOverflowError: Rule(
        move_on=True, refuses=True, remedy="Shorten the prompt, or use a model with a larger context window."
    ),
    # what one provider refuses to talk about is not smuggled past it
    errors.ContentFilterError: Rule(remedy="Rephrase the prompt, or use another model."),
    errors.MalformedReplyError: _fault(
        "Check that `base_url` points to a model API, without a trailing path such as /chat/completions."
    ),
    errors.SchemaError: Rule(move_on=True, remedy="Use a larger model."),  # was asked again already
    errors.WorkerDiedError: _fault("`agentlab doctor` tests the local model."),
    errors.LLMCancelledError: Rule(),
    errors.BudgetExceededError: Rule(),
    errors.UsageError: Rule(),  # the caller's slip, whatever model is asked
}
# A missing file, a broken model file: this model is out, the others are not.
_OTHERWISE = Rule(move_on=True)


def rule_for(error: AgentlabError) -> Rule:
    """The row of the table for an error."""
    return rule_of(type(error))


def rule_of(kind: type[AgentlabError] | None) -> Rule:
    """The row of the table for a class of errors; None is one that nobody knows."""
    return next((_RULES[base] for base in kind.__mro__ if base in _RULES), _OTHERWISE) if kind else _OTHERWISE


def kind_of(name: str | None) -> type[AgentlabError] | None:
    """The class of errors that bears this name; None where there is none, as for a plug-in's own."""
    kind = getattr(errors, name or "", None)
    return kind if isinstance(kind, type) and issubclass(kind, AgentlabError) else None


def backoff(tries: int, chance: float) -> float:
    """Seconds before try `tries` + 1: doubling from 0.5 to 8, times 0.5 to 1 as `chance` goes from 0 to 1."""
    return float(min(_CEILING, _FIRST_WAIT * 2 ** (tries - 1)) * (0.5 + 0.5 * chance))


def verdict(
    task: str, attempts: Sequence[Attempt], hint: str | None = None, retry_after: float | None = None
) -> AgentlabError:
    """The error of a call that nobody answered. It tells what the first model said, and a remedy.

    If all models refused the request it is of the class of the first refusal, or else AllModelsFailedError. `hint` is
    the remedy of the first error; `retry_after` is in seconds, where all models asked for patience.
    """
    if not attempts:
        return AllModelsFailedError(f"No language model accepts the request for {task}.", hint=_OTHERWISE.remedy)
    first, kinds = attempts[0], [kind_of(attempt.error) for attempt in attempts]
    hint = hint or rule_of(kinds[0]).remedy
    if kinds[0] is not None and all(rule_of(kind).refuses for kind in kinds):
        others_note = " No other model accepts it either." if len({failure.model for failure in attempts}) > 1 else ""
        return kinds[0](f"{first.model}: {first.message}{others_note}", hint=hint)
    lines = tuple(f"{failure.model}: {failure.error}: {failure.message}" for failure in attempts)
    return AllModelsFailedError(
        f"No language model answered {task}; the first error: {lines[0]}",
        failures=lines,
        hint=hint,
        retry_after=retry_after,
    )
