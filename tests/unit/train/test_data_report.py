"""From files to what is trained on, with the figures and warnings that come before it."""

import json

import pytest

from agentlab.errors import DataError
from agentlab.runs.report import markdown
from agentlab.train.data_report import DataReport, prepare, read_data, survey
from agentlab.train.masks import IGNORED
from tests.unit.train.chats import CHATML, bytewise, chat

TOKENIZER = bytewise(CHATML)


@pytest.fixture
def write(tmp_path):
    def write(name, *conversations):
        path = tmp_path / name
        rows = [
            {"messages": [{"role": t.role, "content": t.content} for t in conversation.turns]}
            for conversation in conversations
        ]
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        return path

    return write


def prepared(path, eval_path=None, max_length=512):
    return prepare(read_data(path, eval_path), TOKENIZER, max_length=max_length, eval_fraction=0.25, seed=0)


def test_the_figures_are_those_of_the_examples(write):
    path = write("a.jsonl", *(chat(f"q {n}", "the dog " * n, f"r {n}", "yes") for n in range(1, 41)))
    prepared_data = prepared(path)
    report, train, held_out = prepared_data.report, prepared_data.split.train, prepared_data.split.held_out
    assert (report.train.conversations, report.held_out.conversations) == (30, 10)
    assert [example.line for example in held_out] == [example.line for example in prepared_data.held_out]
    assert report.train.turns == 60
    tokens = report.train.tokens
    assert tokens.total == sum(len(example.input_ids) for example in train)
    assert tokens.learnt == sum(label != IGNORED for example in train for label in example.labels)
    assert report.held_out.tokens.longest == max(len(example.input_ids) for example in held_out)
    assert 0 < tokens.share < 1
    assert report.leaks == ()
    assert report.warnings == ()
    assert DataReport.model_validate_json(report.model_dump_json()) == report
    assert f"| trained tokens | {tokens.learnt} (" in markdown("Data", report.blocks())


def test_without_a_tokenizer_the_report_says_all_but_the_tokens(write):
    path = write("a.jsonl", *(chat(f"q {n}", "a") for n in range(40)))
    report, full_report = survey(read_data(path), eval_fraction=0.25, seed=0), prepared(path).report
    assert report.train == full_report.train.model_copy(update={"tokens": None})
    assert report.warnings == full_report.warnings
    page = markdown("Data", report.blocks())
    assert "| assistant turns | 30 | 10 |" in page
    assert "tokens" not in page


def test_what_to_think_about_is_said(write):
    long = chat("q", "a", "the dog " * 60, "a", "q", "a")
    path = write("a.jsonl", long, chat("hello", "x"), chat("hello", "x"), chat("Who?", "I"))
    held_out_path = write("b.jsonl", chat("hello", "x"), chat("who", "You"), chat("new", "x"))
    report = prepared(path, held_out_path, max_length=100).report
    assert (report.train.turns, report.train.tokens.truncated, report.train.tokens.dropped_turns) == (6, 1, 4)
    assert (report.train.duplicates, report.held_out.duplicates) == (1, 0)
    assert [(leak.held_out, leak.train, leak.exact) for leak in report.leaks] == [(1, 2, True), (2, 4, False)]
    assert report.leaked_share == pytest.approx(2 / 3)
    warnings_text = " ".join(report.warnings)
    for words in (
        "6 assistant turns for training; an adapter learns little from fewer than 50",
        "duplicate conversations for training: 1;",
        "conversations for training that exceed training.max_length: 1; turns dropped, oldest first: 4",
        "2 of 3 held-out conversations overlap with training",
    ):
        assert words in warnings_text
    page = markdown("Data", report.blocks())
    assert "| 1 | 2 | all turns |" in page
    assert "| 2 | 4 | the first question |" in page
    assert "Warning: only 6 assistant turns" in page


def test_little_that_is_learnt_and_nothing_that_is_held_out(write):
    warnings_text = " ".join(prepared(write("a.jsonl", *[chat("word " * 50, "a")] * 60)).report.warnings)
    assert "% of the tokens are trained on" in warnings_text
    assert "nothing is held out" in warnings_text


def test_problems_name_the_file_they_are_in(write):
    good, bad = write("a.jsonl", chat("q", "a")), write("b.jsonl", chat("q", "a"), chat("q", "the dog " * 300))
    with pytest.raises(DataError, match=r"b\.jsonl:2: the last question and answer have"):
        prepared(good, bad)
