"""Renders blocks as `report.md` and as a self-contained `report.html` (pictures inlined, no script, no request)."""

import base64
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from agentlab.runs.document import Block, Code, Figure, Heading, Table, Text
from agentlab.runs.visible import visible

if TYPE_CHECKING:
    from agentlab.runs.run import Run


def write_report(run: "Run", title: str, blocks: Sequence[Block]) -> None:
    """Write both reports into the run folder, secrets masked. Figures are read from it."""
    blocks = run.masked(blocks)
    run.write_bytes("report.md", markdown(title, blocks).encode())
    run.write_bytes("report.html", html(title, blocks, lambda name: run.file(name).read_bytes()).encode())


def markdown(title: str, blocks: Sequence[Block]) -> str:
    """GitHub-flavoured Markdown. Text from outside cannot add markup to a table or a heading."""
    parts = [f"# {_line(title)}"]
    for block in blocks:
        match block:
            case Heading(text):
                parts.append(f"## {_line(text)}")
            case Text(text):
                parts.append(_escape(text))
            case Code(text):
                fence = "`" * max(3, _longest_fence(text) + 1)
                parts.append(f"{fence}\n{text.rstrip()}\n{fence}")
            case Figure(file, alt):
                parts.append(f"![{_line(alt)}]({file})")
            case Table():
                parts.append(_markdown_table(block))
    return visible("\n\n".join(parts) + "\n")


def _markdown_table(table: Table) -> str:
    right = numeric_columns(table)
    lines = [
        "| " + " | ".join(_line(column) for column in table.columns) + " |",
        "| " + " | ".join("---:" if i in right else "---" for i in range(len(table.columns))) + " |",
        *("| " + " | ".join(_line(cell) for cell in row) + " |" for row in table.rows),
    ]
    return (f"{_escape(table.caption)}\n\n" if table.caption else "") + "\n".join(lines)


def numeric_columns(table: Table) -> set[int]:
    """Indices of columns that hold only numbers, with or without a spread, and dashes."""
    return {i for i in range(len(table.columns)) if table.rows and all(_is_number(row[i]) for row in table.rows)}


def _is_number(cell: str) -> bool:
    try:
        for part in cell.split(" ± "):
            float(part.rstrip(" %x").replace(",", "").replace("−", "-"))
    except ValueError:
        return cell in ("", "–")
    return True


def _escape(text: str) -> str:
    for mark in ("\\", "`", "*", "_", "<", "[", "|"):
        text = text.replace(mark, f"\\{mark}")
    return text


def _line(text: str) -> str:
    return _escape(" ".join(text.split()))


def _longest_fence(text: str) -> int:
    longest = run = 0
    for letter in text:
        run = run + 1 if letter == "`" else 0
        longest = max(longest, run)
    return longest


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{{ title }}</title>
<style>
:root { color-scheme: light dark; --ink: #1c1e21; --paper: #fff; --faint: #6b7280; --rule: #d9dce1; --band: #f5f6f8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e7e9; --paper: #17191c; --faint: #9aa1ab; --rule: #33373d; --band: #1f2226; }
  img { background: #fff; }
}
body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid var(--rule); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--rule); text-align: left; vertical-align: top; }
th { color: var(--faint); font-weight: 600; } td.n, th.n { text-align: right; white-space: nowrap; }
caption { caption-side: top; text-align: left; color: var(--faint); padding-bottom: .4rem; }
img { max-width: 100%; height: auto; } pre { background: var(--band); padding: .8rem; overflow-x: auto; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
{% for block in blocks %}{% if block.kind == "Heading" %}<h2>{{ block.text }}</h2>
{% elif block.kind == "Text" %}<p>{{ block.text }}</p>
{% elif block.kind == "Code" %}<pre>{{ block.text }}</pre>
{% elif block.kind == "Figure" %}<p><img src="data:image/png;base64,{{ block.data }}" alt="{{ block.alt }}"></p>
{% else %}<div class="scroll"><table>{% if block.caption %}<caption>{{ block.caption }}</caption>{% endif %}
<tr>{% for c in block.columns %}<th{% if loop.index0 in block.right %} class="n"{% endif %}>{{ c }}</th>{% endfor %}</tr>
{% for row in block.rows %}<tr>{% for c in row -%}
<td{% if loop.index0 in block.right %} class="n"{% endif %}>{{ c }}</td>{% endfor %}</tr>
{% endfor %}</table></div>
{% endif %}{% endfor %}</body>
</html>
"""


def html(title: str, blocks: Sequence[Block], read: Callable[[str], bytes]) -> str:
    """One page that opens anywhere. `read` returns the bytes of a figure's PNG file."""
    from jinja2 import Environment, StrictUndefined

    page = Environment(autoescape=True, undefined=StrictUndefined).from_string(_PAGE)
    return visible(page.render(title=title, blocks=[_html_block(block, read) for block in blocks]))


def _html_block(block: Block, read: Callable[[str], bytes]) -> dict[str, object]:
    kind = type(block).__name__
    match block:
        case Heading(text) | Text(text) | Code(text):
            return {"kind": kind, "text": text}
        case Figure(file, alt):
            return {"kind": kind, "alt": alt, "data": base64.b64encode(read(file)).decode()}
        case Table(columns, rows, caption):
            right = numeric_columns(block)
            return {"kind": kind, "columns": columns, "rows": rows, "caption": caption, "right": right}
