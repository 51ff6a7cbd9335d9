"""Texts of models quoted as data in a question to a model: nothing in them can end the quotation. Pure."""

import re
from typing import Literal, get_args

Tag = Literal["question", "answer", "candidate"]  # what questions here are made of

# A text that holds one of the tags has its bracket written out. A model reads `< / answer`, `</answer_A>` and one with
# invisible characters between its letters as the tag too, so they count as it.
_BETWEEN = r"(?:[^\w<>]|_)*"
_NAMES = "|".join(_BETWEEN.join(tag) for tag in get_args(Tag))
_OWN = re.compile(rf"[<＜﹤‹〈](?={_BETWEEN}(?:{_NAMES}))", re.IGNORECASE)
_CUT = "\n[...]\n"


def quoted(tag: Tag, text: str, name: str = "") -> str:
    """A text between tags, such as `<answer A>`; it cannot hold one of them."""
    full = f"{tag} {name}".rstrip()
    return f"<{full}>\n{_OWN.sub('&lt;', text)}\n</{full}>"


def shortened(text: str, characters: int) -> str:
    """A text without its middle if it is longer than that."""
    if len(text) <= characters:
        return text
    kept = max(0, characters - len(_CUT))
    return text[: kept - kept // 2] + _CUT + text[len(text) - kept // 2 :]
