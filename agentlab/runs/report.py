"""Renders a run's report as `report.md`, as a self-contained `report.html` (pictures inlined, no script, no request), and
its tables as CSV.

Every report has the same frame: what was asked, the verdict, how the run was made and can be made again, what to do
next; then what the capability has to show, and the caveats.
"""

import csv
import io
import re
import shlex
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from agentlab.runs.document import Block, Code, Figure, Heading, Report, Table, Text, dollars, duration
from agentlab.runs.manifest import Manifest
from agentlab.runs.sanitize import visible

_COLUMNS = 100  # of a line of code or an answer in Markdown, whose readers do not fold it
_PAGE_OF = 100 * _COLUMNS  # characters
_PHONE = 40  # characters that a page of 400 px shows beside each other
_LONGEST_WORD = 24  # that is left whole
_FORMULA = re.compile(r"[=@\t\r]|[+-](?!\.?\d)")  # what a spreadsheet would compute: a cell may be a model's text


def frame_report(report: Report, manifest: Manifest, config: Path, runs_dir_flag: str = "") -> list[Block]:
    """What stands below the title: the verdict, the run, the next step, the body, the caveats.

    `config` is the file that makes the run again. `runs_dir_flag` is what a command needs to find the run.
    """
    blocks: list[Block] = [Text(sentence) for sentence in report.verdict]
    next_step = report.next_step
    if manifest.error is not None:
        blocks.insert(0, Text(f"The run failed: {manifest.error.message} ({manifest.error.kind})"))
        next_step = f"agentlab runs resume {manifest.id}"
    if manifest.id in next_step.split():
        next_step += runs_dir_flag
    blocks.append(Table(("", ""), [*_facts_of(report, manifest, config)]))
    if next_step:
        blocks += [Text("Next step:"), Code(next_step, command=True)]
    blocks += report.body
    if report.caveats:
        blocks += [Heading("Caveats"), *map(Text, report.caveats)]
    return blocks


def _facts_of(report: Report, manifest: Manifest, config: Path) -> Iterable[tuple[str, str]]:
    """How the run was made, and what it took."""
    yield "command", shlex.join(manifest.argv) or "–"
    yield "reproduce", shlex.join(("agentlab", manifest.command, str(config)))
    yield from report.facts.items()
    yield "seed", str(manifest.seed)
    commit = f", commit {manifest.git['commit'][:8]}" if manifest.git else ""
    libraries = ", ".join(
        f"{name} {manifest.versions[name]}" for name in ("python", "torch") if name in manifest.versions
    )
    yield "version", f"agentlab {manifest.versions.get('agentlab', 'unknown')}{commit}; {libraries}"
    yield "machine", _machine(manifest.device)
    sessions = f" in {len(manifest.resumed) + 1} sessions" if manifest.resumed else ""
    yield "duration", f"{duration(manifest.seconds)}{sessions}"
    tokens = (manifest.tokens.input or 0) + (manifest.tokens.output or 0)
    if tokens:
        cost = "cost unknown" if manifest.cost_usd is None else dollars(manifest.cost_usd)
        yield "language models", f"{tokens:,} tokens, {cost}"


def _machine(device: Mapping[str, Any]) -> str:
    memory = device.get("memory_bytes")
    parts = (
        device.get("system"),
        device.get("processor"),
        f"{device['cores']} cores" if "cores" in device else None,
        f"{memory / 2**30:.0f} GiB" if memory else None,
    )
    return ", ".join(str(part) for part in parts if part)


def markdown(title: str, blocks: Sequence[Block]) -> str:
    """GitHub-flavoured Markdown. Text from outside cannot add markup to a table or a heading."""
    parts = [f"# {_line(title)}"]
    for block in blocks:
        match block:
            case Heading(text):
                parts.append(f"## {_line(text)}")
            case Text(text):
                parts.append(_escape(text))
            case Code(text, command):
                fence = "`" * max(3, _longest_fence(text) + 1)
                parts.append(f"{fence}\n{text if command else _fold_lines(text.rstrip())}\n{fence}")
            case Figure(file, alt):
                parts.append(f"![{_line(alt)}]({file})")
            case Table():
                parts.append(_markdown_table(block))
    return visible("\n\n".join(parts) + "\n")


def _fold_lines(text: str) -> str:
    """The same text with its long lines folded, under their own indent: at spaces, else anywhere.

    A line of more than a page is cut into pages first: `textwrap` takes time that grows as the square of a word.
    """
    pages = chain.from_iterable(map(_cut_into_pages, text.split("\n")))
    return "\n".join(chain.from_iterable(map(_lines, pages)))


def _cut_into_pages(line: str) -> list[str]:
    return [line[start : start + _PAGE_OF] for start in range(0, len(line) or 1, _PAGE_OF)]


def _lines(line: str) -> list[str]:
    if len(line) <= _COLUMNS:
        return [line]
    indent = line[: len(line) - len(line.lstrip())][: _COLUMNS // 2]
    return textwrap.wrap(
        line, _COLUMNS, subsequent_indent=indent, expand_tabs=False, replace_whitespace=False, break_on_hyphens=False
    )


def _markdown_table(table: Table) -> str:
    caption = f"{_escape(table.caption)}\n\n" if table.caption else ""
    if not any(table.columns):  # a table has to have a header, and this one would be a blank row
        return caption + "\n".join(f"- {': '.join(map(_line, filter(None, row)))}" for row in table.rows)
    right = numeric_columns(table)
    lines = [
        _markdown_row(map(_line, table.columns)),
        _markdown_row("---:" if i in right else "---" for i in range(len(table.columns))),
        *(_markdown_row(map(_line, row)) for row in table.rows),
    ]
    return caption + "\n".join(lines)


def _markdown_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def numeric_columns(table: Table) -> set[int]:
    """Indices of columns that hold only numbers, with or without a spread, and dashes."""
    return {i for i in range(len(table.columns)) if _holds_numbers(table, i)}


def _holds_numbers(table: Table, column: int) -> bool:
    return bool(table.rows) and all(_is_number(row[column]) for row in table.rows)


def _is_number(cell: str) -> bool:
    try:
        for part in cell.split(" ± "):
            float(part.rstrip(" %x").replace(",", "").replace("−", "-"))
    except ValueError:
        return cell in ("", "–")
    return True


def csv_files(blocks: Iterable[Block]) -> dict[str, str]:
    """The tables that have headings, by file name: their section, and a number from its second table on."""
    files: dict[str, str] = {}
    counts: Counter[str] = Counter()
    section = "summary"
    for block in blocks:
        if isinstance(block, Heading):
            section = "-".join(re.findall(r"[a-z0-9]+", block.text.lower()))[:60].strip("-") or "section"
        elif isinstance(block, Table) and any(block.columns):
            counts[section] += 1
            suffix = f"-{counts[section]}" if counts[section] > 1 else ""
            files[f"{section}{suffix}.csv"] = _csv(block)
    return files


def _csv(table: Table) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in (table.columns, *table.rows):
        writer.writerow(f"'{cell}" if _FORMULA.match(cell) else cell for cell in map(visible, row))
    return text.getvalue()


def _escape(text: str) -> str:
    for mark in ("\\", "`", "*", "_", "<", "[", "|"):
        text = text.replace(mark, f"\\{mark}")
    return text


def _line(text: str) -> str:
    return _escape(" ".join(text.split()))


def _longest_fence(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{{ title }}</title>
<style>
:root { color-scheme: light dark; --ink: #1c1e21; --paper: #fff; --faint: #6b7280; --rule: #d9dce1; --band: #f5f6f8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e7e9; --paper: #17191c; --faint: #9aa1ab; --rule: #33373d; --band: #1f2226; }
}
body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid var(--rule); }
h1, h2, p, pre, caption { overflow-wrap: anywhere; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; margin: 1rem 0;
  min-width: min(100%, 22rem); }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--rule); text-align: left; vertical-align: top; }
th { color: var(--faint); font-weight: 600; } .n { text-align: right; } td.n { white-space: nowrap; }
.long { overflow-wrap: anywhere; min-width: 8rem; }
caption { caption-side: top; text-align: left; color: var(--faint); padding-bottom: .4rem; }
figure { margin: 1rem 0; } figure svg { width: 100%; max-width: 40rem; height: auto; }
pre { background: var(--band); padding: .8rem; white-space: pre-wrap; }
@media (max-width: 48rem) {
  body { margin: 1rem auto; } th, td { padding: .25rem .4rem; }
  .wide, .wide caption, .wide tbody, .wide tr { display: block; } .wide thead { display: none; }
  .wide tr { border-top: 1px solid var(--rule); padding: .4rem 0; }
  .wide td { display: grid; grid-template-columns: 9rem 1fr; gap: .8rem; border: 0; padding: .1rem 0;
    text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 0; }
  .wide td::before { content: attr(data-label); color: var(--faint); }
  .wide td:first-child { font-weight: 600; } .wide td:empty { display: none; }
}
</style>
</head>
<body>
<h1>{{ title }}</h1>
{% for block in blocks %}{% if block.kind == "Heading" %}<h2>{{ block.text }}</h2>
{% elif block.kind == "Text" %}<p>{{ block.text }}</p>
{% elif block.kind == "Code" %}<pre>{{ block.text }}</pre>
{% elif block.kind == "Figure" -%}
<figure role="img" aria-label="{{ block.alt }}">{{ block.svg | safe }}</figure>
{% else %}<table{% if block.wide %} class="wide"{% endif %}>
{%- if block.caption %}<caption>{{ block.caption }}</caption>{% endif %}
{% if block.columns | select | list %}<thead><tr>{% for c in block.columns -%}
<th scope="col" class="{{ block.kinds[loop.index0] }}">{{ c }}</th>{% endfor %}</tr></thead>
{% endif %}<tbody>{% for row in block.rows %}{% set link = block.links[loop.index0] %}<tr>{% for c in row -%}
<td class="{{ block.kinds[loop.index0] }}" data-label="{{ block.columns[loop.index0] }}">
{%- if link and loop.first %}<a href="{{ link | urlencode }}">{{ c }}</a>{% else %}{{ c }}{% endif %}</td>{% endfor %}</tr>
{% endfor %}</tbody></table>
{% endif %}{% endfor %}</body>
</html>
"""


def html(title: str, blocks: Sequence[Block], read: Callable[[str], str]) -> str:
    """One page that opens anywhere. `read` returns the text of a figure's SVG file, which is ours: it is not escaped."""
    from jinja2 import Environment, StrictUndefined

    page = Environment(autoescape=True, undefined=StrictUndefined).from_string(_PAGE)
    return visible(page.render(title=title, blocks=[_html_block(block, read) for block in blocks]))


def _html_block(block: Block, read: Callable[[str], str]) -> dict[str, object]:
    kind = type(block).__name__
    match block:
        case Heading(text) | Text(text) | Code(text):
            return {"kind": kind, "text": text}
        case Figure(file, alt):
            return {"kind": kind, "alt": alt, "svg": read(file)}
        case Table(columns, rows, caption, links):
            right = numeric_columns(block)
            kinds = [
                "n" if i in right else "long" if _word(block, i) > _LONGEST_WORD else "" for i in range(len(columns))
            ]
            needed = sum(_width(block, i, number=i in right) + 2 for i in range(len(columns)))
            wide = len(columns) > 2 and needed > _PHONE  # two columns share the page
            cells = {"columns": columns, "rows": rows, "links": links or [""] * len(rows)}
            return {"kind": kind, "caption": caption, "kinds": kinds, "wide": wide, **cells}


def _word(table: Table, column: int) -> int:
    """The length of a column's longest word."""
    words = chain.from_iterable(row[column].split() for row in table.rows)
    return max(map(len, words), default=0)


def _width(table: Table, column: int, *, number: bool) -> int:
    """Characters that a column needs to be read with ease."""
    longest = max((len(row[column]) for row in table.rows), default=0)
    heading = max(map(len, table.columns[column].split()), default=0)
    return max(heading, longest if number else min(longest, _LONGEST_WORD))
