"""Texts of models quoted as data in a question to a model: nothing in them can end the quotation. Pure."""

import re
from collections.abc import Sequence
from typing import Literal, get_args

Tag = Literal["question", "answer", "candidate"]  # what questions here are made of

# A text that holds one of the tags has its bracket written out. A model reads `< / answer`, `</answer_A>` and one with
# invisible characters between its letters as the tag too, so they count as it.
_BETWEEN = r"(?:[^\w<>]|_)*"
_NAMES = "|".join(_BETWEEN.join(tag) for tag in get_args(Tag))
_OWN = re.compile(rf"[<＜﹤‹〈](?={_BETWEEN}(?:{_NAMES}))", re.IGNORECASE)

# A line that a model may read as one of our headings: `##`, or what looks like it, after marks and spaces of any kind.
_BREAKS = r"\n\r\v\f\x1c-\x1e\x85\u2028\u2029"
_NEVER = rf"[^\w{_BREAKS}#＃﹟♯]*"
_HEADING = re.compile(rf"(?:^|(?<=[{_BREAKS}]))({_NEVER})[#＃﹟♯](?={_NEVER}[#＃﹟♯])")
_CUT = "\n[...]\n"


def wrap_in_tags(tag: Tag, text: str, name: str = "") -> str:
    """A text between tags, such as `<answer A>`; it cannot hold one of them."""
    full = f"{tag} {name}".rstrip()
    return f"<{full}>\n{_OWN.sub('&lt;', text)}\n</{full}>"


def join_under_headings(texts: Sequence[tuple[str, str]]) -> str:
    """Texts under their names, as `## draft`; headings in a text go two levels down, so that none poses as another."""
    return "\n\n".join(f"## {name}\n" + _HEADING.sub(r"\1###", text) for name, text in texts)


def cut_middle(text: str, characters: int) -> str:
    """A text without its middle if it is longer than that."""
    if len(text) <= characters:
        return text
    kept_length = max(0, characters - len(_CUT))
    return text[: kept_length - kept_length // 2] + _CUT + text[len(text) - kept_length // 2 :]
