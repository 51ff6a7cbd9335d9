"""The list of pipeline runs, and full-text search over their inputs and the outputs of their stages."""

import sqlite3
from collections.abc import Sequence

from agentlab.pipeline.branches.digest import Digest, shorten_value
from agentlab.runs.document import AnswerDocument, Block, Table, Text

_MOST_WORDS = 32  # of a query

_TEXTS = """SELECT sha, snippet(words, 0, '»', '«', '…', 24) FROM words JOIN texts ON texts.id = words.rowid
    WHERE words MATCH ? ORDER BY words.rank"""
_RUNS = """SELECT name, step, created FROM stages JOIN runs ON runs.id = stages.run
    WHERE sha = ? AND folder = ? ORDER BY created DESC, born DESC, place LIMIT ?"""


class Hit(AnswerDocument):
    """A text that holds what was looked for, in one run; `snippet` shows the words between » and «."""

    run: str
    step: str
    created: str
    snippet: str


class SearchView(AnswerDocument):
    """The answer of `pipeline history search`: best hits first, of equal ones the newest."""

    query: str
    hits: list[Hit]

    def blocks(self) -> list[Block]:
        if not self.hits:
            return [Text(f"No input or stage output contains all the words in {self.query!r}.")]
        return [Table(("run", "stage", "text"), [(hit.run, hit.step, hit.snippet) for hit in self.hits])]


def search(db: sqlite3.Connection, folder: str, query: str, limit: int) -> list[Hit]:
    """The texts of a runs folder with all words of `query`, each of which may be the beginning of a word.

    Case and accents do not matter.

    Raises:
        sqlite3.Error: the index is damaged.
    """
    words = quote_query(query)
    if not words:
        return []
    hits: list[Hit] = []
    for sha, snippet in db.execute(_TEXTS, (words,)):  # one by one: marking the words of a text is the costly part
        snippet_line = " ".join(snippet.split())
        rows = db.execute(_RUNS, (sha, folder, limit - len(hits)))
        hits += [Hit(run=run, step=step, created=created, snippet=snippet_line) for run, step, created in rows]
        if len(hits) >= limit:
            break
    return hits


def quote_query(query: str) -> str:
    """What somebody typed as a query of FTS5: quoted prefixes, all of them wanted. Empty without any word. Pure.

    Nothing of it is read as syntax: within quotation marks FTS5 knows only the mark itself, which is doubled.
    """
    cleaned = query.encode("utf-8", "replace").decode().replace("\0", " ")
    words = [word for word in cleaned.split() if any(map(str.isalnum, word))]
    return " ".join('"' + word.replace('"', '""') + '"*' for word in words[:_MOST_WORDS])


class HistoryLine(AnswerDocument):
    """A run of the list. `calls` were answered, `asked` of them by a model in this run."""

    id: str
    parent: str | None
    status: str
    created: str
    seconds: float
    calls: int
    asked: int
    input: str


class HistoryList(AnswerDocument):
    """The answer of `pipeline history list`: oldest first. `left_out` are older ones; `status` is that of all."""

    runs: list[HistoryLine]
    left_out: int = 0
    status: str | None = None

    def blocks(self) -> list[Block]:
        if not self.runs:
            if self.status is not None:
                return [Text(f"No pipeline run has the status {self.status!r}.")]
            return [Text("No pipeline runs yet. Start one: agentlab pipeline demo")]
        rows = [
            (run.id, run.status, f"{run.seconds:.1f} s", f"{run.calls}", f"{run.asked}", shorten_value(run.input))
            for run in self.runs
        ]
        caption = f"{self.left_out} older runs are not shown." if self.left_out else ""
        return [Table(("run", "status", "time", "answers", "model calls", "input"), rows, caption)]


def history_list(runs: Sequence[Digest], *, status: str | None = None, limit: int | None = None) -> HistoryList:
    """The `limit` newest of `runs`, which come oldest first; of one `status`, if that is given. Pure."""
    fitting = [run for run in runs if status is None or run.status == status]
    newest = fitting if limit is None else fitting[max(0, len(fitting) - limit) :]
    return HistoryList(runs=[_line(run) for run in newest], left_out=len(fitting) - len(newest), status=status)


def _line(run: Digest) -> HistoryLine:
    return HistoryLine(
        id=run.id,
        parent=run.parent,
        status=run.status,
        created=run.created,
        seconds=run.seconds,
        calls=sum(share.calls for share in run.shares),
        asked=sum(share.asked for share in run.shares),
        input=run.excerpt,
    )
