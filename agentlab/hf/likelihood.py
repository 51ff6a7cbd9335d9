"""How likely texts are behind others, many at a time: what stands before them is read once for all of them."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch  # noqa: TID253 - reached lazily, where a model answers

from agentlab.answers.choices import Scored
from agentlab.hf.prefill import (
    SHARED,
    CachedPast,
    Prompt,
    at_once,
    common,
    logits_at,
    pad_texts,
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
    def unread_tokens(self) -> Sequence[int]:
        return self.before.tokens[self.before.known :]

    @property
    def row(self) -> list[int]:
        """What is read at once: the rest, and behind it all texts side by side, but for the last token of each."""
        return [*self.unread_tokens, *chain.from_iterable(text[:-1] for text in self.texts)]


class Likelihood(NamedTuple):
    """The log-probability (natural) of a text in sum, and whether each of its tokens is the likeliest in its place."""

    total: float
    greedy: bool


def score(model: Any, adapters: Rowwise, choices: Sequence[Choice]) -> list[Scored]:
    """How the texts of every choice stand to one another."""
    scores = []
    for choice, text_likelihoods in zip(choices, likelihoods(model, adapters, choices), strict=True):
        totals = tuple(likelihood.total for likelihood in text_likelihoods)
        scores.append(Scored(totals, tuple(map(len, choice.texts)), tuple(choice.sizes)))
    return scores


@torch.inference_mode()
def score_each(
    model: Any, adapters: Rowwise, slots: Sequence[int], questions: Sequence[Choice], done: Callable[[int], object]
) -> list[list[Scored]]:
    """The same under each of the adapters in these places; what all prompts begin with is read once for each of them.

    `done` hears of how many more questions are answered; what it raises ends the work.
    """
    prompts = [question.before.tokens for question in questions]
    shared = common(prompts) if len(prompts) > 1 and not unmergeable(model) and not slides(model) else 0
    pasts: list[CachedPast | None] = [None] * len(slots)
    if shared * (len(prompts) - 1) >= SHARED:
        _, past = read(model, adapters, slots, [prompts[0][:shared]] * len(slots), multiple=1)
        pasts = [past.row(row) for row in range(len(slots))]
    choices: list[Choice] = []
    for slot, slot_past in zip(slots, pasts, strict=True):
        known = shared if slot_past else 0
        choices += [q._replace(before=Prompt(slot, q.before.tokens, slot_past, known)) for q in questions]
    scores: list[Scored] = []
    for start in range(0, len(choices), _AT_ONCE):
        chunk = choices[start : start + _AT_ONCE]
        scores += score(model, adapters, chunk)
        done(len(chunk))
    size = len(questions)
    return [scores[row * size : (row + 1) * size] for row in range(len(slots))]


@torch.inference_mode()
def likelihoods(model: Any, adapters: Rowwise, choices: Sequence[Choice]) -> list[list[Likelihood]]:
    """How likely every text of every choice is.

    All texts of a choice are one row, in which each sees what stands before and itself, and none another one: keys and
    values are copied once for all of them. Where the model's attention does not let us, each text is a row of its own.
    """
    if unmergeable(model) or slides(model):
        return [_score_texts_alone(model, adapters, choice) for choice in choices]
    likelihoods_by_index: dict[int, list[Likelihood]] = {}
    rows = [Prompt(choice.before.adapter, choice.row) for choice in choices]
    for has_past in (False, True):
        indices = [index for index, choice in enumerate(choices) if (choice.before.past is not None) == has_past]
        for part in parts(rows, indices, 0, at_once(model)):
            adapters.rows([rows[index].adapter for index in part])
            likelihoods_by_index.update(zip(part, _together(model, [choices[index] for index in part]), strict=True))
    return [likelihoods_by_index[index] for index in range(len(choices))]


def _score_texts_alone(model: Any, adapters: Rowwise, choice: Choice) -> list[Likelihood]:
    return [_alone(model, adapters, choice.before, text) for text in choice.texts]


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
    past = CachedPast.from_prompts([choice.before for choice in part]) if part[0].before.past else None
    batch = pad_texts(model, [choice.row for choice in part], past)
    width = batch["input_ids"].shape[1]
    seen = torch.eye(width, dtype=torch.bool).repeat(len(part), 1, 1)  # padding, too: a softmax of nothing is no number
    where = torch.zeros(len(part), width, dtype=torch.bool)
    positions = torch.zeros(len(part), width, dtype=torch.long)
    for row, choice in enumerate(part):
        begin, known_count, count = width - len(choice.row), choice.before.known, len(choice.before.tokens)
        end = begin + count - known_count
        where[row, end - 1 :] = True
        seen[row, begin:, begin:end] = torch.ones(width - begin, end - begin).tril().bool()
        positions[row, begin:end] = torch.arange(known_count, count)
        for text in choice.texts:
            columns = slice(end, end := end + len(text) - 1)
            seen[row, columns, columns] = torch.ones(len(text) - 1, len(text) - 1).tril().bool()
            positions[row, columns] = torch.arange(count, count + len(text) - 1)
    before = batch["attention_mask"][:, None, :-width].expand(-1, width, -1)
    mask = torch.cat([before, seen.to(model.device)], dim=2)[:, None]
    additive_mask = torch.zeros(mask.shape, dtype=model.dtype, device=model.device)
    batch["attention_mask"] = additive_mask.masked_fill_(~mask, torch.finfo(model.dtype).min)
    batch["position_ids"] = positions.to(model.device)
    logits = logits_at(model, model.get_output_embeddings(), where.to(model.device), batch)
    return _sums(part, logits.float().log_softmax(-1))


def _sums(part: Sequence[Choice], logits: torch.Tensor) -> Iterator[list[Likelihood]]:
    """From the log-probabilities behind each choice's last token before, and behind all but the last of each text."""
    start = 0
    for choice in part:
        first, start, text_likelihoods = start, start + 1, list[Likelihood]()
        for text in choice.texts:
            positions = [first, *range(start, start := start + len(text) - 1)]
            text_likelihoods.append(_likelihood(logits[positions], text))
        yield text_likelihoods
