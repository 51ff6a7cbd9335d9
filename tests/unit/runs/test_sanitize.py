"""Foreign text on a terminal is seen, not obeyed."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from agentlab.runs.sanitize import visible


def test_what_steers_a_terminal_becomes_a_mark() -> None:
    assert visible("\x1b[2Ja\x07b\x08c\rd\x7fe\u009b1m\0") == "�[2Ja�b�c�d�e�1m�"


def test_what_turns_the_direction_of_a_text_becomes_a_mark() -> None:
    """All that has the property Bidi_Control of Unicode."""
    controls = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    assert visible(f"rm {controls}gpj.exe") == f"rm {'�' * len(controls)}gpj.exe"


def test_lines_and_columns_stay() -> None:
    assert visible("a\tb\nc\r\nd") == "a\tb\nc\nd"


@given(st.text())
def test_nothing_else_changes(text: str) -> None:
    visible_text = visible(text)
    assert not [letter for letter in visible_text if unicodedata.category(letter) == "Cc" and letter not in "\t\n"]
    assert visible(visible_text) == visible_text
    printable = "".join(letter for letter in text if unicodedata.category(letter) not in ("Cc", "Cf"))
    assert visible(printable) == printable
