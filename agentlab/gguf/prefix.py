"""How much of a prompt need not be read again. Pure."""

from collections.abc import Sequence


def reusable(cached: Sequence[int], prompt: Sequence[int], batch: int) -> int:
    """Tokens at the beginning of `prompt` whose place in the attention cache is the one a fresh start would make.

    A batch's rounding depends on which tokens it holds, so only whole batches are taken over: then every later batch
    is cut as in a fresh start, and no bit of any logit differs. The last token is never among them, because its logits
    are wanted.

    Args:
        cached: tokens that were evaluated in batches of `batch` from position 0 on.
        prompt: the tokens to come.
        batch: at least 1.
    """
    shared, most = 0, min(len(cached), len(prompt) - 1)
    while (end := shared + batch) <= most and cached[shared:end] == prompt[shared:end]:
        shared = end
    return shared
