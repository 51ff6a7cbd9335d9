"""Foreign text as a reader may see it: in a report, on a terminal."""

import re

# C0 and C1 but for tab and newline: a model's answer or a file's name must not move the cursor, set a title or clear
# the screen. And Bidi_Control (Unicode, PropList): it must not read otherwise than it is.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """The text with a replacement character for each control character; lines end as on Unix. Pure."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))
