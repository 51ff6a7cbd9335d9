"""Texts of models quoted as data: nothing in them can end the quotation. Pure."""

import re

# The tags that questions here are made of; in a quoted text their bracket is written out.
_OWN = re.compile(r"<(?=\s*/?\s*(?:question|answer|candidate)\b)", re.IGNORECASE)
_CUT = "\n[...]\n"


def quoted(tag: str, text: str, name: str = "") -> str:
    """A text between tags, such as `<answer A>`; it cannot hold one of them."""
    full = f"{tag} {name}".rstrip()
    return f"<{full}>\n{_OWN.sub('&lt;', text)}\n</{full}>"


def shortened(text: str, characters: int) -> str:
    """A text without its middle if it is longer than that."""
    if len(text) <= characters:
        return text
    kept = max(0, characters - len(_CUT))
    return text[: kept - kept // 2] + _CUT + text[len(text) - kept // 2 :]
