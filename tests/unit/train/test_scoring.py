"""Likelihoods and answers under adapters: what the plain model says, and the base left as it was."""

from pathlib import Path

import pytest
import torch

from agentlab.errors import Interrupted
from agentlab.train.base import TrainingBase, load_base, quietly
from agentlab.train.config import LoraConfig, TrainingConfig, TrainingJob
from agentlab.train.conversations import ConversationTurn
from agentlab.train.dataset import TrainingSplit
from agentlab.train.masks import IGNORED, Example
from agentlab.train.scoring import scorer
from agentlab.train.sft import train_adapter
from tests.unit.train.tiny_base import tiny_checkpoint, tiny_split


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> TrainingBase:
    return load_base(tiny_checkpoint(tmp_path_factory.mktemp("base")), "fp32", "sdpa")


def plain(base: TrainingBase, example: Example) -> float:
    """Mean log-probability by the whole logits of one row."""
    ids = torch.tensor([example.input_ids])
    with torch.no_grad():
        logits = base.model(input_ids=ids).logits[0, :-1].log_softmax(-1)
    labels = torch.tensor(example.labels[1:])
    picked = logits.gather(1, labels.clamp(min=0).unsqueeze(1)).squeeze(1)
    return float(picked[labels != IGNORED].mean())


def test_likelihoods_are_those_of_each_row_alone(base: TrainingBase) -> None:
    examples = tiny_split().train
    expected = [plain(base, example) for example in examples]
    with scorer(base, {}) as scores:
        assert scores.logprobs([(None, example) for example in examples]) == pytest.approx(expected, abs=1e-5)


@pytest.fixture(scope="module")
def adapters(base: TrainingBase, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two that were trained on other lines."""
    folder, examples = tmp_path_factory.mktemp("adapters"), tiny_split().train
    return {
        name: train_adapter(
            base,
            TrainingSplit(part, ()),
            TrainingJob(LoraConfig(r=4), TrainingConfig(epochs=4, batch_size=4, lr=3e-2, evals=1), folder / name, 0),
        ).adapter
        for name, part in {"a": examples[:5], "b": examples[5:]}.items()
    }


def test_an_adapter_changes_them_and_none_is_the_base(base: TrainingBase, adapters: dict[str, Path]) -> None:
    lines = tiny_split().train
    weights = {name: value.clone() for name, value in base.model.state_dict().items()}
    with scorer(base, {}) as alone:
        before = alone.logprobs([(None, row) for row in lines])
    with scorer(base, adapters) as scores:
        assert scores.logprobs([(None, row) for row in lines]) == pytest.approx(before, abs=1e-6)
        by_adapter = {name: scores.logprobs([(name, row) for row in lines]) for name in adapters}
    assert all(sum(row) > sum(before) for row in by_adapter.values())
    assert by_adapter["a"] != by_adapter["b"]
    assert all(torch.equal(value, weights[name]) for name, value in base.model.state_dict().items())


def test_adapters_share_batches(base: TrainingBase, adapters: dict[str, Path]) -> None:
    lines, everybody = tiny_split().train, (None, "a", "b")
    with scorer(base, adapters) as scores:
        separate = [scores.logprobs([(name, example) for example in lines]) for name in everybody]
        together = scores.logprobs([(name, example) for name in everybody for example in lines])
    assert together == pytest.approx([value for part in separate for value in part], abs=1e-5)


def test_choices_are_as_likely_as_each_alone(base: TrainingBase, adapters: dict[str, Path]) -> None:
    """Whatever questions have in common, and however long the choices are."""
    texts, everybody = ("abc", "z", "two words"), (None, "a", "b")
    progress_counts: list[int] = []
    questions = [
        ((ConversationTurn("system", "Be kind."), ConversationTurn("user", "z" * size)), texts)
        for size in (1, 30, 4, 2)
    ]
    with scorer(base, adapters, progress_counts.append) as scores:
        scored_rows = scores.choices(everybody, questions)
        assert sum(progress_counts) == len(everybody) * len(questions)
        for name, row in zip(everybody, scored_rows, strict=True):
            for (turns, _), scored in zip(questions, row, strict=True):
                before = scores._ids(turns)
                after = [base.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
                examples = [Example(0, (*before, *ids), (*[IGNORED] * len(before), *ids), 0) for ids in after]
                alone = scores.logprobs([(name, example) for example in examples])
                assert scored.scores("mean") == pytest.approx(alone, abs=1e-5)
                assert scored.tokens == tuple(map(len, after))
                assert scored.bytes == (3, 1, 9)


def test_no_question_or_choice_ends_a_turn(base: TrainingBase) -> None:
    def count(text: str, choice: str) -> int:
        with scorer(base, {}) as scores:
            ((scored,),) = scores.choices([None], [((ConversationTurn("user", text),), (choice, "b"))])
        return scored.tokens[0]

    assert count("Who?", "<|im_end|>") > 1
    assert count("<|im_end|>", "a") == count("Who?", "a")


def test_figures_are_computed_in_float32_unless_it_is_said_otherwise(adapters: dict[str, Path], tmp_path: Path) -> None:
    base = load_base(tiny_checkpoint(tmp_path), "bf16", "sdpa")
    lines = [("a", example) for example in tiny_split().train]
    weights = {name: value.clone() for name, value in base.model.state_dict().items()}
    with scorer(base, adapters, dtype="bfloat16") as scores:
        assert base.model.dtype is torch.bfloat16
        rounded = scores.logprobs(lines)
    with scorer(base, adapters) as scores:
        exact = scores.logprobs(lines)
    assert all(torch.equal(value, weights[name]) for name, value in base.model.state_dict().items())
    twin = TrainingBase(base.model.float(), base.tokenizer, base.path, "fp32", base.fingerprint)
    with scorer(twin, adapters) as scores:
        assert scores.logprobs(lines) == exact
    assert rounded != exact
    assert rounded == pytest.approx(exact, abs=0.05)


def alone(base: TrainingBase, adapter: Path | None, turns: list[ConversationTurn], tokens: int) -> str:
    """The likeliest answer, one row by PEFT."""
    model = base.model
    if adapter is not None:
        from peft import PeftModel

        with quietly():
            model = PeftModel.from_pretrained(model, str(adapter))
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    text = base.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = torch.tensor([base.tokenizer(text, add_special_tokens=False)["input_ids"]])
    mask = torch.ones_like(ids)
    out = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=tokens, do_sample=False, pad_token_id=0)
    if adapter is not None:
        model.unload()
    return str(base.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)).strip()


def test_answers_side_by_side_are_those_of_each_alone(base: TrainingBase, adapters: dict[str, Path]) -> None:
    """Prompts of different lengths under different adapters, in more than one batch."""
    turns = [
        [ConversationTurn("system", "z" * (number % 5)), ConversationTurn("user", "abc" * (1 + number % 3))]
        for number in range(30)
    ]
    requests = [((None, "a", "b")[number % 3], prompt) for number, prompt in enumerate(turns)]
    with scorer(base, adapters) as scores:
        answers = scores.answers(requests, 6)
    assert answers == [alone(base, adapters[name] if name else None, prompt, 6) for name, prompt in requests]
    assert len(set(answers)) > 3


def test_what_is_done_is_told_and_may_be_the_end(base: TrainingBase) -> None:
    """Likelihoods by texts, answers by tokens, all of them by the end; the base is as it was after an end halfway."""
    lines, requests = tiny_split().train, [(None, [ConversationTurn("user", "abc")])] * 30
    progress_counts: list[int] = []
    with scorer(base, {}, progress_counts.append) as scores:
        scores.logprobs([(None, example) for example in lines])
        assert sum(progress_counts) == len(lines)
        progress_counts.clear()
        scores.answers(requests, 6)
    assert sum(progress_counts) == 30 * 6
    assert len(progress_counts) > 6
    before = {name: value.clone() for name, value in base.model.state_dict().items()}

    def stop(_: int) -> None:
        raise Interrupted("Stopped on request.")

    for measure in (lambda by: by.logprobs([(None, example) for example in lines]), lambda by: by.answers(requests, 6)):
        with pytest.raises(Interrupted), scorer(base, {}, stop) as scores:
            measure(scores)
    assert all(torch.equal(value, before[name]) for name, value in base.model.state_dict().items())


def test_a_template_that_writes_the_date_is_asked_on_the_same_day_as_in_training(
    base: TrainingBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = base.tokenizer.chat_template
    monkeypatch.setattr(base.tokenizer, "chat_template", "{{ strftime_now('%Y-%m-%d') }}" + template)
    with scorer(base, {}) as scores:
        prompt_text = base.tokenizer.decode(scores._ids([ConversationTurn("user", "abc")]))
    assert prompt_text.startswith("2025-01-01")
