"""Reports: the same blocks in Markdown and HTML; text from outside cannot become markup."""

import ast
import csv
import importlib
import io
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.runs.document import Block, Code, Figure, Heading, Report, Table, Text, duration, number
from agentlab.runs.index import write_index
from agentlab.runs.manifest import Metric, RunTokens
from agentlab.runs.redact import Redactor
from agentlab.runs.report import csv_files, html, markdown, numeric_columns
from agentlab.runs.run import OpenRun, RunEnvironment, RunOutcome, RunSpec
from agentlab.runs.store import list_runs
from cli.screen import Screen

SVG = "<svg></svg>"


def test_markdown_of_every_block() -> None:
    blocks = [
        Heading("H"),
        Text("t"),
        Table(("name", "mse"), [("a", "0.5")], "cap"),
        Figure("plots/x.svg", "p"),
        Code("c"),
    ]
    assert markdown("T", blocks) == (
        "# T\n\n## H\n\nt\n\ncap\n\n| name | mse |\n| --- | ---: |\n| a | 0.5 |\n\n![p](plots/x.svg)\n\n```\nc\n```\n"
    )


def test_tables_become_csv_files_named_after_their_sections() -> None:
    trials = Table(("trial", "note"), [("r0", 'says "x, y"'), ("r1", "=1+1"), ("r2", "+cmd"), ("r3", "-0.5 [-1, 0]")])
    facts = Table(("", ""), [("command", "agentlab nas")])
    blocks = [facts, trials, Heading("Tokens & cost"), trials, Table(("n",), [("1",)]), Heading("…"), trials]
    files = csv_files(blocks)
    assert list(files) == ["summary.csv", "tokens-cost.csv", "tokens-cost-2.csv", "section.csv"]
    assert files["tokens-cost-2.csv"] == "n\n1\n"
    assert [row[1] for row in csv.reader(io.StringIO(files["summary.csv"]))] == [
        "note",
        'says "x, y"',
        "'=1+1",  # a spreadsheet would compute it
        "'+cmd",
        "-0.5 [-1, 0]",
    ]


def test_code_cannot_close_its_own_fence() -> None:
    assert "````\na\n```\nb\n````" in markdown("T", [Code("a\n```\nb")])


def test_html_is_self_contained() -> None:
    page = html("T", [Figure("x.svg", "plot")], lambda _: SVG)
    assert f'<figure role="img" aria-label="plot">{SVG}</figure>' in page
    assert "<script" not in page
    assert "://" not in page


@given(st.text(max_size=60))
def test_html_escapes_whatever_comes(text: str) -> None:
    hostile = f"<script>{text}</script>"
    for block in (Heading(hostile), Text(hostile), Code(hostile), Table((hostile,), [(hostile,)])):
        assert "<script" not in html(hostile, [block], lambda _: SVG)


def test_whoever_prints_a_report_runs_nothing_of_it() -> None:
    hostile = "a\x1b]0;title\x07b\x08\u009b1m\rc\u202ed\te"
    blocks = [Heading(hostile), Text(hostile), Code(hostile), Table((hostile,), [(hostile,)], hostile)]
    for report in (markdown(hostile, blocks), html(hostile, blocks, lambda _: SVG)):
        assert not set("\x1b\x07\x08\u009b\r\u202e") & set(report)
        assert "a\ufffd]0;title\ufffdb" in report
        assert "d\te" in report


@given(st.text(max_size=40))
def test_a_cell_cannot_break_its_table(text: str) -> None:
    lines = markdown("T", [Table(("c",), [(text,)])]).splitlines()
    assert len(lines) == 5


def test_numbers_are_aligned_right() -> None:
    assert numeric_columns(Table(("a", "b", "c"), [("x", "1.5", "–"), ("y", "20 %", "3")])) == {1, 2}


def test_number_shows_unknown_as_a_dash_and_small_as_power() -> None:
    assert [number(v) for v in (None, 0.12345, 0.0, 1.5e-7)] == ["–", "0.1235", "0.0000", "1.500e-07"]


def page(*blocks: Block) -> str:
    return html("T", blocks, lambda _: SVG)


@given(
    st.text(
        st.characters(exclude_categories=["C", "Z"], exclude_characters="`") | st.sampled_from("  \t-{("), max_size=600
    )
)
def test_long_lines_of_an_answer_are_folded_in_markdown_and_lose_no_letter(text: str) -> None:
    lines = markdown("T", [Code(f"    {text}\nend")]).split("\n")
    assert all(len(line) <= 100 for line in lines[2:])
    assert "".join("".join(lines[2:]).strip("`").split()) == "".join(f"{text}end".split())


def test_a_line_of_many_megabytes_is_folded_in_a_moment() -> None:
    began = time.process_time()
    folded = markdown("T", [Code("x" * 10_000_000)])
    assert time.process_time() - began < 10  # the square of its length took over 20 s
    assert folded.count("x") == 10_000_000


def test_code_keeps_its_indent_and_short_lines_are_left_alone() -> None:
    code = "def f():\n\treturn 1\n    " + "call(argument, " * 12
    first, second, third, *folded_lines = markdown("T", [Code(code)]).split("```")[1].strip("\n").split("\n")
    assert (first, second) == ("def f():", "\treturn 1")
    assert f"\n{'ask ' * 50}\n" in markdown("T", [Code("ask " * 50, command=True)])
    assert all(line.startswith("    call(") for line in (third, *folded_lines))


def test_answers_wrap_on_a_page() -> None:
    assert "white-space: pre-wrap" in page(Code("x" * 500))
    assert "h1, h2, p, pre, caption { overflow-wrap: anywhere; }" in page()


def test_a_table_that_a_phone_cannot_show_has_cards_there() -> None:
    """Every cell bears the name of its column, which stands before it when the header is gone."""
    columns = ("stage", "answers", "asked", "failed", "read", "reused", "written", "seconds")
    page_html = page(Table(columns, [("draft", "3", "1", "0", "120", "0", "40", "1.23")], "Stages"))
    assert '<table class="wide"><caption>Stages</caption>' in page_html
    assert [f'data-label="{column}"' in page_html for column in columns] == [True] * len(columns)
    assert "<table>" in page(Table(("who", "answer"), [("base, told to be kind", "plain words " * 30)]))
    assert "<table><caption>Two" in page(Table(("step ahead", "test MSE"), [("1", "0.1499")], "Two"))


def test_a_word_that_never_ends_may_be_broken_and_no_other() -> None:
    page_html = page(Table(("who", "answer"), [("base", "x" * 300), ("other", "plain words " * 30)]))
    assert page_html.count('class="long"') == 3  # the header and two cells
    assert 'class="long"' not in page(Table(("who", "answer"), [("base", "plain words " * 30)]))


def test_a_table_without_headings_has_no_blank_row(capsys: pytest.CaptureFixture[str]) -> None:
    facts = Table(("", ""), [("status", "completed"), ("error", "")], "Facts")
    assert "<thead>" not in page(facts)
    assert markdown("T", [facts]) == "# T\n\nFacts\n\n- status: completed\n- error\n"
    Screen().blocks([facts])
    assert capsys.readouterr().out == "status\tcompleted\nerror\t\n"


@pytest.mark.parametrize(
    "module",
    [
        *(
            "nas.result",
            "nas.report",
            "bench.load.tables",
            "bench.check.result",
            "bench.quality.result",
            "persona.result",
        ),
        *("train.data_report", "pipeline.result"),
    ],
)
def test_every_table_of_a_report_has_a_caption(module: str) -> None:
    source = Path(importlib.import_module(f"agentlab.{module}").__file__ or "").read_text()
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    tables = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id in ("Table", "table")]
    assert tables
    assert [call.lineno for call in tables if len(call.args) < 3 and not call.keywords] == []


REPORT = Report(
    title="Search of x",
    verdict=["A wins.", "The agent helped."],
    facts={"model": "m", "data": "d"},
    body=[Heading("Details")],
    next_step="agentlab next",
    caveats=["One seed only."],
)


def made_run(tmp_path: Path, name: str, **given: object) -> OpenRun:
    spec = RunSpec("nas", "seed: 7", "seed: 7", "sha256:0", 7, ("agentlab", "nas", "my file.yaml"), name=name)
    return OpenRun.create(tmp_path / "runs", spec, RunEnvironment(**given))  # type: ignore[arg-type] # as the caller gives


def test_a_report_says_what_was_asked_the_verdict_how_it_was_made_and_what_next(tmp_path: Path) -> None:
    clock = iter(range(0, 10_000, 100))
    with made_run(tmp_path, "r", clock=lambda: float(next(clock))) as run:
        run.start({"system": "Linux", "cores": 2, "memory_bytes": 8 << 30})
        run.report = REPORT
        run.complete(RunOutcome(tokens=RunTokens(input=1000, output=234), cost_usd=0.5))
    text = (run.path / "report.md").read_text()
    phrases = (
        "# Search of x",
        "A wins.",
        "The agent helped.",
        "command: agentlab nas 'my file.yaml'",
        f"reproduce: agentlab nas {tmp_path / 'runs' / 'r' / 'config.yaml'}",
        "model: m",
        "data: d",
        "seed: 7",
        "version: agentlab",
        "machine: Linux, 2 cores, 8 GiB",
        f"duration: {duration(run.manifest.seconds)}",
        "language models: 1,234 tokens, 0.5000 USD",
        "agentlab next",
        "## Details",
        "## Caveats",
        "One seed only.",
    )
    positions = [text.replace("\\", "").index(phrase) for phrase in phrases]
    assert positions == sorted(positions)
    assert run.manifest.seconds > 0


def test_a_failed_run_reports_what_failed_and_how_to_go_on(tmp_path: Path) -> None:
    with made_run(tmp_path, "r", redactor=Redactor(["hunter2hunter2"])) as run:
        run.start({})
        run.fail("DataError", "row 3 holds hunter2hunter2")
    text = (run.path / "report.md").read_text()
    assert text.startswith("# agentlab nas failed\n\nThe run failed: row 3 holds \\[redacted] (DataError)")
    assert "agentlab runs resume r" in text
    assert "Caveats" not in text
    assert "hunter2" not in (run.path / "report.html").read_text()


def test_the_tables_are_those_of_the_last_report(tmp_path: Path) -> None:
    with made_run(tmp_path, "r") as run:
        for heading in ("Before", "After"):
            body = [Heading(heading), Table(("n",), [("1",)])]
            run.report = Report("t", (), {}, body)
            run.write_report(run.manifest)
    assert [path.name for path in (run.path / "tables").iterdir()] == ["after.csv"]


def test_an_interrupted_run_has_no_report(tmp_path: Path) -> None:
    with made_run(tmp_path, "r") as run:
        run.start({})
        run.interrupt()
    assert not (run.path / "report.md").exists()


def test_an_index_lists_all_runs_newest_first_and_leads_to_their_reports(tmp_path: Path) -> None:
    for name in ("first", "second", "third"):
        with made_run(tmp_path, name) as run:
            run.start({})
            if name == "first":
                run.interrupt()
            else:
                run.report = REPORT
                run.complete(RunOutcome({"mse": Metric(value=0.25, direction="lower")}))
    runs = tmp_path / "runs"
    page = write_index(runs, list_runs(runs).runs, Redactor()).read_text()
    assert page.index(">third<") < page.index(">second<") < page.index(">first<")
    assert '<a href="third/report.html">third</a>' in page
    assert "first/report.html" not in page
    assert "mse 0.2500" in page
    assert [record.id for record in list_runs(runs).runs] == ["first", "second", "third"]  # the page is no run


@pytest.mark.parametrize(("seconds", "text"), [(4.24, "4.2 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")])
def test_durations_are_said_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
