"""Reports: the same blocks in Markdown and HTML; text from outside cannot become markup."""

from hypothesis import given
from hypothesis import strategies as st

from agentlab.runs.document import Code, Figure, Heading, Table, Text, number
from agentlab.runs.report import html, markdown, numeric_columns

PNG = b"\x89PNG"


def test_markdown_of_every_block() -> None:
    blocks = [
        Heading("H"),
        Text("t"),
        Table(("name", "mse"), [("a", "0.5")], "cap"),
        Figure("plots/x.png", "p"),
        Code("c"),
    ]
    assert markdown("T", blocks) == (
        "# T\n\n## H\n\nt\n\ncap\n\n| name | mse |\n| --- | ---: |\n| a | 0.5 |\n\n![p](plots/x.png)\n\n```\nc\n```\n"
    )


def test_code_cannot_close_its_own_fence() -> None:
    assert "````\na\n```\nb\n````" in markdown("T", [Code("a\n```\nb")])


def test_html_is_self_contained() -> None:
    page = html("T", [Figure("x.png", "plot")], lambda _: PNG)
    assert "data:image/png;base64,iVBORw==" in page
    assert "<script" not in page
    assert "://" not in page


@given(st.text(max_size=60))
def test_html_escapes_whatever_comes(text: str) -> None:
    hostile = f"<script>{text}</script>"
    for block in (Heading(hostile), Text(hostile), Code(hostile), Table((hostile,), [(hostile,)])):
        assert "<script" not in html(hostile, [block], lambda _: PNG)


def test_whoever_prints_a_report_runs_nothing_of_it() -> None:
    hostile = "a\x1b]0;title\x07b\x08\u009b1m\rc\u202ed\te"
    blocks = [Heading(hostile), Text(hostile), Code(hostile), Table((hostile,), [(hostile,)], hostile)]
    for report in (markdown(hostile, blocks), html(hostile, blocks, lambda _: PNG)):
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
