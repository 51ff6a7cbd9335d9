"""Opens a CSV file that may be anything: memory stays bounded, and what is no CSV is refused with its line."""

import codecs
import gzip
import io
import re
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from agentlab.errors import DataError, MissingFileError
from agentlab.files import open_file
from agentlab.nas.config import DataConfig
from agentlab.nas.csv_repair import refusal

if TYPE_CHECKING:
    import pandas as pd

MAX_BYTES = 1 << 30  # of text, that is after decompression
MAX_LINE = 1 << 20  # bytes
MAX_ROWS = 2_000_000
MAX_CELLS = 50_000_000
MAX_COLUMNS = 512
EXPECTED = "Expected: a header line, then one row per time step with a date and numbers, separated by data.separator."
_FIRST_LINE = 2  # line 1 of the file is the header
_CUT = "Write only the rows and columns you need to a smaller file."
_ETT = {"ETTh1.csv", "ETTh2.csv", "ETTm1.csv", "ETTm2.csv"}
_GZIP = b"\x1f\x8b"
_WINDOWS = "windows-1252"  # what Excel writes in western Europe
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars", ",": "commas"}
_OTHER = {
    b"PK\x03\x04": ("an Excel workbook or a ZIP archive", "Save the sheet as CSV (UTF-8), or unpack the archive."),
    b"\xd0\xcf\x11\xe0": ("an old Excel workbook", "Save the sheet as CSV (UTF-8)."),
    b"PAR1": ("a Parquet file", "Write it as CSV, for example with pandas: frame.to_csv(FILE, index=False)"),
    b"\xff\xfe": ("UTF-16 text", "Save it as UTF-8."),
    b"\xfe\xff": ("UTF-16 text", "Save it as UTF-8."),
}


@dataclass(frozen=True, slots=True, eq=False)
class CsvFile:
    """Fields of a file: `names` from line 1 without outer spaces, `frame` with its columns numbered from 0."""

    source: str
    names: tuple[str, ...]
    frame: "pd.DataFrame"

    def line(self, row: int) -> int:
        """The line that a row begins in. Quoted fields can hold line breaks."""
        import pandas as pd

        text = self.frame.iloc[:row].select_dtypes(include=["object", "string"])
        breaks = sum(name.count("\n") for name in self.names)
        for index in text:
            breaks += int(pd.Series(text[index].astype("string")).str.count("\n").sum())
        return row + _FIRST_LINE + breaks


def locate(path: Path) -> str:
    """The name under which messages speak of a file that can be opened.

    Raises:
        MissingFileError: there is no such file.
        DataError: it is a folder, a pipe or a device, or larger than `MAX_BYTES`.
    """
    try:
        file_stat = path.stat()
    except PermissionError as error:
        raise _forbidden_error(path.name) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        raise MissingFileError(f"No such data file: {str(path)[:200]}.", hint=_where(path)) from error
    if stat.S_ISDIR(file_stat.st_mode):
        raise DataError(f"{path} is a folder, not a CSV file.", hint="Pass a file: --data FILE")
    if not stat.S_ISREG(file_stat.st_mode):
        raise DataError(
            f"{path} is a pipe or a device; the data must be a regular file, as it is read more than once.",
            hint="Save the data to a file and pass it: --data FILE",
        )
    if file_stat.st_size > MAX_BYTES:
        raise DataError(f"{path.name} has {file_stat.st_size} bytes; the limit is {MAX_BYTES}.", hint=_CUT)
    return path.name


def _forbidden_error(source: str) -> DataError:
    return DataError(
        f"Cannot read {source}: permission denied.", hint="Check the permissions of the file and its folder."
    )


def _where(path: Path) -> str:
    if path.name in _ETT:
        return (
            f"{path.name} is in ETT-small/ of github.com/zhouhaoyi/ETDataset (CC BY-ND 4.0): download it "
            "from there, or pass another path: --data FILE"
        )
    if re.search(r"\b[a-z0-9]+:/", str(path)):
        return "Only local files can be read. Download the file, then pass it: --data FILE"
    return "Pass the file: --data FILE (a relative data.path in a config is relative to the workspace)."


def read_csv(path: Path, source: str, config: DataConfig) -> CsvFile:
    """All rows of a file, less the empty ones at its end. The date column keeps its characters.

    Raises:
        DataError: it is not text in the form of a CSV, is too large, or has no rows.
    """
    import pandas as pd

    options: dict[str, Any] = {"skip_blank_lines": False, "sep": config.separator, "encoding": config.encoding}
    try:
        with _text(path, source, config.encoding) as stream:
            header = pd.read_csv(stream, header=None, nrows=1, dtype=str, keep_default_na=False, **options)
        names = tuple(str(name).strip() for name in header.iloc[0])
        _require_separator(names, source, config.separator)
        if len(names) > MAX_COLUMNS:
            raise DataError(f"{source} has {len(names)} columns; the limit is {MAX_COLUMNS}.", hint=_CUT)
        rows = min(MAX_ROWS, MAX_CELLS // len(names))
        with _text(path, source, config.encoding) as stream:
            frame: pd.DataFrame = pd.read_csv(
                stream,
                header=0,
                names=range(len(names)),
                dtype={position: "string" for position, name in enumerate(names) if name == config.date_column},
                nrows=rows + 1,
                low_memory=False,
                skipinitialspace=True,
                decimal=config.decimal,
                **options,
            )
    except pd.errors.EmptyDataError as error:
        raise DataError(f"{source} or its first line is empty.", hint=EXPECTED) from error
    except pd.errors.ParserError as error:
        raise _malformed_error(source, str(error).strip()) from error
    if not isinstance(frame.index, pd.RangeIndex):  # pandas has taken the first fields for names of rows
        raise _malformed_error(source, f"the rows have more fields than the header ({len(names)})")
    if len(frame) > rows:
        raise DataError(f"{source} has more than {rows} rows of {len(names)} columns.", hint=_CUT)
    filled = frame.notna().any(axis=1).to_numpy().nonzero()[0]
    if not filled.size:
        raise DataError(f"{source} has a header but no rows.", hint=EXPECTED)
    return CsvFile(source, names, frame.iloc[: filled[-1] + 1])


def _require_separator(names: tuple[str, ...], source: str, separator: str) -> None:
    """Refuse a header that other marks separate: without this, every later message would mislead."""
    for mark, words in _SEPARATORS.items():
        if mark != separator and mark in names[0] and (len(names) == 1 or mark in ";\t"):
            message = f"{source} uses {words} as separators, not {_SEPARATORS[separator]}."
            raise refusal(message, "Set the separator:", {"data.separator": mark})


def _malformed_error(source: str, reason: str) -> DataError:
    fields = re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", reason)
    quote = re.search(r"EOF inside string starting at row (\d+)", reason)
    hint = "Line 1 must be the header, decimals use a point (1.5), and lines must not end with a comma."
    if fields:
        reason = f"line {fields[2]} has {fields[3]} fields, but the header has {fields[1]}"
    elif quote:
        reason = f'a quote (") opened near line {int(quote[1]) + 1} is never closed'
        hint = "Close or remove it."
    return DataError(f"{source}: {reason}.", hint=f"{hint} {EXPECTED}")


@contextmanager
def _text(path: Path, source: str, encoding: str) -> Iterator[IO[bytes]]:
    """The text of a plain or compressed file as bytes that `BoundedText` has passed."""
    try:
        with open_file(path) as plain:
            start = plain.read(4)
            plain.seek(0)
            for magic, (file_kind, hint) in _OTHER.items():
                if start.startswith(magic):
                    raise DataError(f"{source} is {file_kind}, not CSV text.", hint=hint)
            packed = start.startswith(_GZIP) or path.suffix.lower() == ".gz"
            raw: io.BufferedIOBase = gzip.GzipFile(fileobj=plain) if packed and start else plain
            with io.BufferedReader(BoundedText(raw, source, encoding=encoding), 1 << 18) as stream:
                yield stream
    except PermissionError as error:
        raise _forbidden_error(source) from error
    except (EOFError, zlib.error, OSError) as error:
        raise DataError(f"Cannot read {source}: {error}.", hint="Copy the file again; it may be truncated.") from error


class BoundedText(io.RawIOBase):
    """Passes bytes on as long as they are text, in lines of bounded length and within a bound in all.

    Reading raises `DataError` as soon as they are not, so a small file that unpacks to terabytes costs one buffer.
    """

    def __init__(self, raw: io.BufferedIOBase, source: str, limit: int = MAX_BYTES, encoding: str = "utf-8") -> None:
        super().__init__()
        self._raw = raw
        self._source = source
        self._limit = limit
        self._encoding = encoding
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._bytes = 0
        self._lines = 1
        self._line_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # Any: what `io` passes is a memoryview, what the stubs say has no length
        block = self._raw.read(len(buffer))
        self._check(block)
        buffer[: len(block)] = block
        return len(block)

    def _check(self, block: bytes) -> None:
        self._bytes += len(block)
        if self._bytes > self._limit:
            raise DataError(f"{self._source} decompresses to more than the limit of {self._limit} bytes.", hint=_CUT)
        if (nul := block.find(b"\0")) >= 0:
            line = self._lines + block.count(b"\n", 0, nul)
            raise DataError(
                f"{self._source}: line {line} contains a NUL byte, so this is not a text file.", hint=EXPECTED
            )
        try:
            self._decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            line = self._lines + error.object.count(b"\n", 0, error.start)
            other_encoding = "latin-1" if codecs.lookup(self._encoding) == codecs.lookup(_WINDOWS) else _WINDOWS
            message = f"{self._source} is not {self._encoding.upper()} text (line {line})."
            advice = "Save it as UTF-8, or set its encoding:"
            raise refusal(message, advice, {"data.encoding": other_encoding}) from error
        ends = block.count(b"\n") + (0 if b"\n" in block else block.count(b"\r"))
        last = max(block.rfind(b"\n"), block.rfind(b"\r"))
        self._line_bytes = len(block) - last - 1 if ends else self._line_bytes + len(block)
        self._lines += ends
        if self._line_bytes > MAX_LINE:
            raise DataError(f"{self._source}: line {self._lines} is longer than {MAX_LINE} bytes.", hint=EXPECTED)
