"""The file behind a series: what is read as it stands, and what is refused, with its place."""

import gzip
import io
import os
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentlab.config.workspace import Workspace
from agentlab.errors import DataError, MissingFileError
from agentlab.nas.config import DataConfig
from agentlab.nas.csv_file import MAX_LINE, BoundedText, read_csv
from agentlab.nas.data import close_gaps
from agentlab.nas.table import SeriesTable, read_table

HEADER = "date,Umsatz,Besucher"


@pytest.fixture
def workspace(tmp_path):
    return Workspace(root=tmp_path, cache=tmp_path / "cache")


def rows(count: int = 60, step: int = 60, start: str = "2024-01-01T00:00") -> list[str]:
    """Lines `date,a,b`, `step` minutes apart."""
    times = np.datetime64(start) + np.arange(count) * np.timedelta64(step, "m")
    return [f"{time},{index % 7},{(index * index) % 11}" for index, time in enumerate(times)]


def changed(number: int, line: str) -> list[str]:
    lines = rows()
    lines[number] = line
    return lines


def read(workspace: Workspace, content: bytes | list[str], header: str = HEADER, **changes) -> SeriesTable:
    data = content if isinstance(content, bytes) else ("\n".join([header, *content]) + "\n").encode()
    (workspace.root / "s.csv").write_bytes(data)
    return read_table(DataConfig(**{"path": "s.csv", **changes}), workspace)


def refused(workspace: Workspace, content: bytes | list[str], header: str = HEADER, **changes) -> str:
    with pytest.raises(DataError) as caught:
        read(workspace, content, header, **changes)
    assert caught.value.hint
    return f"{caught.value.message} {caught.value.hint}"


def encoded(lines: list[str], header: str = HEADER, ending: str = "\n") -> bytes:
    return (ending.join([header, *lines]) + ending).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + encoded(rows()),
        encoded(rows(), ending="\r\n"),
        encoded(rows(), ending="\r"),
        encoded([line.replace(",", ", ") for line in rows()], "date, Umsatz, Besucher "),
        encoded(['"' + line.replace(",", '","') + '"' for line in rows()], '"date","Umsatz","Besucher"'),
        encoded([*rows(), "", "  ", ",,"]),
        encoded([line.replace("T", " ") for line in rows()]),
        encoded([f"{line[:16]}Z{line[16:]}" for line in rows()]),
        gzip.compress(encoded(rows())),
        gzip.compress(encoded(rows()[:30])) + gzip.compress(encoded(rows()[31:], rows()[30])),
    ],
    ids=["BOM", "CRLF", "CR", "spaces", "quotes", "empty end", "space in date", "Z", "gzip by content", "two members"],
)
def test_the_same_series_in_many_forms(workspace, content):
    table = read(workspace, content)
    assert table.names == ("Umsatz", "Besucher")
    assert table.values[:, 0].tolist() == [index % 7 for index in range(60)]
    assert (str(table.dates[0]), str(table.frequency)) == ("2024-01-01T00:00:00", "h")


def test_truth_values_are_numbers(workspace):
    lines = [f"{line[:16]},{index % 3 == 0},{index % 5}" for index, line in enumerate(rows())]
    assert read(workspace, lines).values[:4, 0].tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ("date,a,a", "columns 2 and 3 in line 1 are both named 'a'"),
        ("date,date,a", "columns 1 and 2 in line 1 are both named 'date'"),
        ("date,,b", "column 2 has no name in line 1"),
        ("date,  ,b", "column 2 has no name in line 1"),
        (",a,b", "has no column 'date' (data.date_column). Columns in the file: (no name), a, b"),
        ("Date,a,b", "--set data.date_column=Date"),
        ("date,a\x1b[31m,b", "column 2 in line 1, 'a\\x1b[31m', is longer than 200 characters or contains control"),
        (f"date,{'a' * 201},b", "column 2 in line 1"),
        ('date,"a\nb",c', "column 2 in line 1, 'a\\nb'"),
        ("", "or its first line is empty"),
        ("# exported yesterday", "more fields than the header (1). Line 1 must be the header"),
        ("date;a;b", "uses semicolons as separators, not commas"),
        ("date\ta\tb", "uses tabs as separators, not commas"),
        ("date|a|b", "uses bars as separators, not commas"),
        ("date," + ",".join(f"c{index}" for index in range(600)), "has 601 columns; the limit is 512"),
    ],
)
def test_a_header_that_does_not_name_each_column_once_is_refused(workspace, header, says):
    assert says in refused(workspace, rows(), header)


def test_names_that_are_not_used_may_be_anything(workspace):
    lines = [f"{line},x,y,z" for line in rows()]
    assert read(workspace, lines, "date,a,b,c,c,", columns=("a", "b")).names == ("a", "b")


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (
            [f'{line[:16]},"1,5",{index}' for index, line in enumerate(rows())],
            "'1,5' is not a finite number. The column uses decimal commas; set the decimal mark: "
            """--set 'data.decimal=","'""",
        ),
        ([f"{line[:16]},1,5,{index}" for index, line in enumerate(rows())], "decimals use a point"),
        (changed(20, "2024-01-01T20:00,1,5,2"), "line 22 has 4 fields, but the header has 3"),
        (changed(20, '"2024-01-01T20:00,1,5'), "opened near line 22 is never closed"),
        (changed(20, "2024-01-01T20:00,n/a!,5"), "line 22: 'n/a!' is not a finite number. Correct it; leave missing"),
        ([*rows()[:20], "", *rows()[20:]], "line 22 is empty"),
        (
            [*rows(), "Summe,180,300"],
            "line 62 is not a date: 'Summe'. All lines before it have a date. Remove this line if",
        ),
        ([*(f"202401{n + 1:02d},{n},{n * n}" for n in range(30)), ",1,2"], "line 32 is not a date: empty"),
        ([*rows()[:20], "21.01.2024 20:00,1,1"], "line 22 is not a date: '21.01.2024 20:00'"),
        (
            changed(20, "21.01.2024 20:00,1,1"),
            "The lines before it have a date, and all dates must have the same format",
        ),
        (rows()[::-1], "line 3 goes back in time (2024-01-03T10:00:00), as do all other lines. Reverse the rows"),
        (rows()[30:] + rows()[:30], "line 32 goes back in time (2024-01-01T00:00:00). Sort the rows"),
        (sorted(rows() * 2), "line 3 repeats the date of the previous line"),
        (["2023-12-31T23:07,1,1", *rows()], "line 3 (2024-01-01T00:00:00) is off the h grid that starts "),
        (changed(20, f"2024-01-01T20:00,{'9' * 400},5"), "column 'Umsatz'"),
        (changed(20, f"2024-01-01T20:00,1,{'x' * (2 * MAX_LINE)}"), "line 22 is longer than"),
        (changed(20, "2024-01-01T20:00,1\x00,5"), "line 22 contains a NUL byte"),
        ([line.split(",")[0] for line in rows()], "column 'Umsatz' has no value in 100% of the rows"),
    ],
)
def test_each_faulty_line_is_named(workspace, lines, says):
    assert says in refused(workspace, lines)


def test_line_numbers_count_the_breaks_inside_quotes(workspace):
    lines = [f'{line},"first\nsecond"' for line in rows()]
    lines[9] = "2024-01-01T09:00,x,1,"
    assert "column 'a', line 20: 'x' is not a finite" in refused(
        workspace, lines, "date,a,b,remark", columns=("a", "b")
    )


def test_undecodable_text_is_named_by_its_line_wherever_it_stands(workspace):
    lines = encoded(rows(60_000, step=1))
    assert "not UTF-8 text (line 60002)" in refused(workspace, lines + "2030-01-01,ä,2\n".encode("latin-1"))
    assert "not UTF-8 text (line 1)" in refused(workspace, lines.replace(b"Umsatz", b"Gr\xf6\xdfe"))


@pytest.mark.parametrize(
    ("start", "says"),
    [
        (b"PK\x03\x04", "an Excel workbook or a ZIP archive"),
        (b"PAR1", "a Parquet file"),
        ("date,a\n".encode("utf-16"), "UTF-16 text"),
        (bytes(64), "line 1 contains a NUL byte"),
    ],
)
def test_other_kinds_of_files_are_called_by_their_name(workspace, start, says):
    assert says in refused(workspace, start + b"0" * 100)


def test_what_is_no_file_is_refused_without_waiting_for_it(workspace):
    os.mkfifo(workspace.root / "pipe.csv")
    for path in ("pipe.csv", "/dev/zero"):
        with pytest.raises(DataError, match="is a pipe or a device"):
            read_table(DataConfig(path=path), workspace)
    (workspace.root / "loop.csv").symlink_to("loop.csv")
    for path in ("loop.csv", "a\0b.csv", "a" * 5000):
        with pytest.raises(MissingFileError, match="No such data file:"):
            read_table(DataConfig(path=path), workspace)
    with pytest.raises(MissingFileError) as caught:
        read_table(DataConfig(path="https://example.org/a.csv"), workspace)
    assert "Download the file" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("block", "says"),
    [(b"\0", "NUL byte"), (b"1", "longer than 1048576 bytes"), (b"2024-01-01,1\n", "more than 2000000 rows")],
)
def test_a_small_file_that_unpacks_to_a_huge_one_is_refused_while_it_is_read(tmp_path, block, says):
    path = tmp_path / "bomb.csv.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b"date,a\n")
        for _ in range(40):
            file.write(block * (1 << 20 if len(block) == 1 else 1 << 16))
    with pytest.raises(DataError, match=says):
        read_csv(path, "bomb.csv.gz", DataConfig())


def test_no_more_than_the_limit_is_unpacked():
    packed = io.BytesIO(gzip.compress(b"a\n" * (1 << 22)))
    with gzip.GzipFile(fileobj=packed) as raw:
        text = io.BufferedReader(BoundedText(raw, "s.csv", limit=1 << 20), 1 << 16)
        with pytest.raises(DataError, match=r"s\.csv decompresses to more than the limit of 1048576 bytes"):
            text.read()
        assert raw.tell() <= (1 << 20) + (1 << 16)


fragments = st.sampled_from(
    [
        *["2024-01-01", "2024-01-02T00:00", "+02:00", "Z", ",", ",", ",", "\n", "\n", "\r\n", '"', ";", "\t", "'", "#"],
        *["1", "-2.5", "1e400", "nan", "inf", "True", "9" * 30, " ", "x", "é", "\x00", "\u2028"],
    ]
)


@given(st.one_of(st.binary(max_size=80), st.lists(fragments, max_size=60).map(lambda parts: "".join(parts).encode())))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_file_holds_it_is_read_or_refused(workspace, content):
    for data in (content, b"date,a,b\n" + content, gzip.compress(b"date,a,b\n2024-01-01,1,2\n" + content)):
        with suppress(DataError):  # anything else is a fault of the reader
            table = read(workspace, data)
            assert len(table.dates) == len(table.values) > 0


MONTHS = np.arange("2015-01", "2020-01", dtype="datetime64[M]").astype("datetime64[D]")


@pytest.mark.parametrize("day", ["start", "end"])
@pytest.mark.parametrize("clock", ["", "T00:00:00+02:00", "T00:00-0500"])
def test_months_keep_their_name_in_every_time_zone(workspace, day, clock):
    days = MONTHS if day == "start" else (MONTHS.astype("datetime64[M]") + 1).astype("datetime64[D]") - 1
    table = read(workspace, [f"{date}{clock},{n % 7},{n % 5}" for n, date in enumerate(days)])
    assert (str(table.frequency), table.dates.tolist()) == ("MS", MONTHS.astype("datetime64[s]").tolist())


def test_local_days_are_days_when_the_clock_changes(workspace):
    days = np.arange("2024-03-01", "2024-05-01", dtype="datetime64[D]")
    lines = [
        f"{day}T00:00+0{1 + (day >= np.datetime64('2024-04-01'))}:00,{n % 7},{n % 5}" for n, day in enumerate(days)
    ]
    table = read(workspace, lines)
    assert (str(table.frequency), str(table.dates[0])) == ("D", "2024-03-01T00:00:00")


def test_hours_with_offsets_are_instants_when_the_clock_changes(workspace):
    hours = np.arange("2024-10-26T22", "2024-10-29T10", dtype="datetime64[h]")
    lines = []
    for n, hour in enumerate(hours):
        offset = 2 if hour < np.datetime64("2024-10-27T01") else 1
        lines.append(f"{hour + offset}:00+0{offset}:00,{n % 7},{n % 5}")
    table = read(workspace, lines)
    assert (str(table.frequency), table.dates.tolist()) == ("h", hours.astype("datetime64[s]").tolist())


def test_months_with_holes_are_months(workspace):
    lines = [f"{date},{n % 7},{n % 5}" for n, date in enumerate(MONTHS) if n not in (5, 6, 30)]
    table = close_gaps(read(workspace, lines), DataConfig(gaps="ffill"))
    assert len(table.dates) == 60
    assert table.notes[0].startswith("Filled with the previous value: 3 missing rows; by column: Umsatz 3 (5.0%)")
    assert "the longest gap is 2 steps, from 2015-06-01T00:00:00 to 2015-07-01T00:00:00" in table.notes[0]
