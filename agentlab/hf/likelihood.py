"""How likely texts are behind others, many at a time: what stands before them is read once for all of them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch  # noqa: TID253 - reached lazily, where a model answers

from agentlab.answers.choices import Scored
from agentlab.hf.prefill import (
    SHARED,
    Past,
    Prompt,
    at_once,
    common,
    logits_at,
    padded,
    parts,
    read,
    slides,
    unmergeable,
)
from agentlab.lora.rowwise import Rowwise

_AT_ONCE = 128  # questions between two words of progress


class Choice(NamedTuple):
    """What could stand behind a prompt: texts of at least one token each, and their bytes where these matter."""

    before: Prompt
    texts: Sequence[Sequence[int]]
    sizes: Sequence[int] = ()

    @property
    def rest(self) -> Sequence[int]:
        """What is to be read of the prompt."""
        return self.before.tokens[self.before.known :]

    @property
    def row(self) -> list[int]:
        """What is read at once: the rest, and behind it all texts side by side, but for the last token of each."""
        return [*self.rest, *(token for text in self.texts for token in text[:-1])]


class Likelihood(NamedTuple):
    """The log-probability (natural) of a text in sum, and whether each of its tokens is the likeliest in its place."""

    total: float
    greedy: bool


def score(model: Any, adapters: Rowwise, asked: Sequence[Choice]) -> list[Scored]:
    """How the texts of every choice stand to one another."""
    return [
        Scored(tuple(one.total for one in found), tuple(map(len, each.texts)), tuple(each.sizes))
        for each, found in zip(asked, likelihoods(model, adapters, asked), strict=True)
    ]


@torch.inference_mode()
def score_each(
    model: Any, adapters: Rowwise, places: Sequence[int], questions: Sequence[Choice], done: Callable[[int], object]
) -> list[list[Scored]]:
    """The same under each of the adapters in these places; what all prompts begin with is read once for each of them.

    `done` hears of how many more questions are answered; what it raises ends the work.
    """
    prompts = [question.before.tokens for question in questions]
    shared = common(prompts) if len(prompts) > 1 and not unmergeable(model) and not slides(model) else 0
    pasts: list[Past | None] = [None] * len(places)
    if shared * (len(prompts) - 1) >= SHARED:
        _, past = read(model, adapters, places, [prompts[0][:shared]] * len(places), multiple=1)
        pasts = [past.row(row) for row in range(len(places))]
    asked = [
        question._replace(before=Prompt(place, question.before.tokens, past, shared if past else 0))
        for place, past in zip(places, pasts, strict=True)
        for question in questions
    ]
    found: list[Scored] = []
    for start in range(0, len(asked), _AT_ONCE):
        found += score(model, adapters, some := asked[start : start + _AT_ONCE])
        done(len(some))
    size = len(questions)
    return [found[row * size : (row + 1) * size] for row in range(len(places))]


@torch.inference_mode()
def likelihoods(model: Any, adapters: Rowwise, asked: Sequence[Choice]) -> list[list[Likelihood]]:
    """How likely every text of every choice is.

    All texts of a choice are one row, in which each sees what stands before and itself, and none another one: keys and
    values are copied once for all of them. Where the model's attention does not let us, each text is a row of its own.
    """
    if unmergeable(model) or slides(model):
        return [[_alone(model, adapters, each.before, text) for text in each.texts] for each in asked]
    found: dict[int, list[Likelihood]] = {}
    rows = [Prompt(each.before.adapter, each.row) for each in asked]
    for begun in (False, True):
        some = [index for index, each in enumerate(asked) if (each.before.past is not None) == begun]
        for part in parts(rows, some, 0, at_once(model)):
            adapters.rows([rows[index].adapter for index in part])
            found.update(zip(part, _together(model, [asked[index] for index in part]), strict=True))
    return [found[index] for index in range(len(asked))]


def _alone(model: Any, adapters: Rowwise, before: Prompt, text: Sequence[int]) -> Likelihood:
    adapters.rows([before.adapter])
    ids = torch.tensor([[*before.tokens, *text[:-1]]], device=model.device)
    logits = model(input_ids=ids, use_cache=False, logits_to_keep=len(text)).logits[0].float().log_softmax(-1)
    return _likelihood(logits, text)


def _likelihood(logits: torch.Tensor, text: Sequence[int]) -> Likelihood:
    """From log-probabilities of shape (tokens, vocabulary)."""
    greedy = logits.argmax(-1).tolist() == list(text)
    return Likelihood(float(logits[range(len(text)), list(text)].sum()), greedy)


def _together(model: Any, part: Sequence[Choice]) -> Iterator[list[Likelihood]]:
    """Of choices that are all read behind a past, or none."""
    past = Past.joined([each.before for each in part]) if part[0].before.past else None
    batch = padded(model, [each.row for each in part], past)
    width = batch["input_ids"].shape[1]
    seen = torch.eye(width, dtype=torch.bool).repeat(len(part), 1, 1)  # padding, too: a softmax of nothing is no number
    where = torch.zeros(len(part), width, dtype=torch.bool)
    positions = torch.zeros(len(part), width, dtype=torch.long)
    for row, each in enumerate(part):
        begin, known, count = width - len(each.row), each.before.known, len(each.before.tokens)
        end = begin + count - known
        where[row, end - 1 :] = True
        seen[row, begin:, begin:end] = torch.ones(width - begin, end - begin).tril().bool()
        positions[row, begin:end] = torch.arange(known, count)
        for text in each.texts:
            own = slice(end, end := end + len(text) - 1)
            seen[row, own, own] = torch.ones(len(text) - 1, len(text) - 1).tril().bool()
            positions[row, own] = torch.arange(count, count + len(text) - 1)
    before = batch["attention_mask"][:, None, :-width].expand(-1, width, -1)
    mask = torch.cat([before, seen.to(model.device)], dim=2)[:, None]
    shown = torch.zeros(mask.shape, dtype=model.dtype, device=model.device)
    batch["attention_mask"] = shown.masked_fill_(~mask, torch.finfo(model.dtype).min)
    batch["position_ids"] = positions.to(model.device)
    logits = logits_at(model, model.get_output_embeddings(), where.to(model.device), batch)
    return _sums(part, logits.float().log_softmax(-1))


def _sums(part: Sequence[Choice], logits: torch.Tensor) -> Iterator[list[Likelihood]]:
    """From the log-probabilities behind each choice's last token before, and behind all but the last of each text."""
    start = 0
    for each in part:
        first, start, found = start, start + 1, list[Likelihood]()
        for text in each.texts:
            places = [first, *range(start, start := start + len(text) - 1)]
            found.append(_likelihood(logits[places], text))
        yield found
