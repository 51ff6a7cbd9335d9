"""The next token of an answer. Pure, given a generator."""

import torch  # noqa: TID253 - imported by the decoder alone, in its worker process


def pick(logits: torch.Tensor, temperature: float, top_p: float | None, generator: torch.Generator) -> int:
    """A token drawn from softmax(logits / temperature), or the likeliest at temperature 0.

    With `top_p`, from the smallest set of likeliest tokens whose probability is at least that (Holtzman et al.,
    "The Curious Case of Neural Text Degeneration", section 3.1).

    Args:
        logits: float of shape (vocabulary,), on the generator's device.
        temperature: at least 0.
        top_p: in (0, 1], or None for all tokens.
        generator: draws one number, unless the temperature is 0.
    """
    if temperature == 0:
        return int(logits.argmax())
    chances, tokens = torch.softmax(logits.double() / temperature, dim=-1).sort(descending=True, stable=True)
    if top_p is not None:
        chances = chances.where(chances.cumsum(-1) - chances < top_p, 0.0)
    return int(tokens[torch.multinomial(chances, 1, generator=generator)])
