"""How a file that was refused can be read: each error names the setting that mends it, and together they are tried.

A CSV of another country differs in several things at once (`;`, decimal commas, 31.01.2024, a column of remarks,
Windows text). So what one error proposes is applied and the file is read again, until it can be read; the hint then
names all settings, and they are known to work.
"""

import re
from collections.abc import Callable, Mapping
from itertools import product
from typing import TYPE_CHECKING, Any

from agentlab.config.overrides import format_set_options, replace_at
from agentlab.errors import DataError
from agentlab.nas.config import DataConfig

if TYPE_CHECKING:
    import pandas as pd

_ROUNDS = 24  # settings that are tried together
_DAYS = ("%d.%m.%Y", "%d.%m.%y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d")
_TIMES = ("", " %H:%M", " %H:%M:%S", " %H.%M", "T%H:%M", ", %H:%M", ", %H:%M:%S", " %I:%M %p", " %H:%M Uhr", "%H%M")
_DATE = re.compile(r"\d{1,4}[./-]\d{1,2}[./-]\d{1,4}(\D|$)")
_WITH_COMMA = r"[+-]?(\d+|[1-9]\d{0,2}(\.\d{3})+)(,\d+)?"  # 1.234,5 and 1234,5
GROUPED = r"[+-]?[1-9]\d{0,2}(\.\d{3})+(,\d+)?"


def date_format(text: "pd.Series[str]") -> str | None:
    """The strptime pattern that reads all of these as rising dates; where day and month can be either, the closest."""
    import pandas as pd

    spans: dict[str, Any] = {}
    for day, time in product(_DAYS, _TIMES):
        pattern = day + time
        if pd.isna(pd.to_datetime(text.iloc[0], format=pattern, errors="coerce")):
            continue
        dates = pd.to_datetime(text, format=pattern, errors="coerce")
        if dates.notna().all() and dates.is_monotonic_increasing:
            spans[pattern] = dates.iloc[-1] - dates.iloc[0]
    return min(spans, key=lambda pattern: spans[pattern], default=None)


def looks_like_dates(column: "pd.Series[Any]") -> bool:
    """Whether a column begins with what only dates look like."""
    values = column.dropna().head(20).astype(str).str.strip()
    return bool(len(values)) and all(_DATE.match(value) for value in values)


def has_decimal_commas(column: "pd.Series[Any]") -> bool:
    """Whether a column is all numbers, of which some are written with a comma: 1.234,5."""
    text = column.dropna().astype(str).str.strip()
    return bool(text.str.fullmatch(_WITH_COMMA).all() and text.str.contains(",").any())


def holds_no_number(column: "pd.Series[Any]") -> bool:
    """Whether a column is words, or empty."""
    import pandas as pd

    if pd.api.types.is_numeric_dtype(column) or has_decimal_commas(column):
        return bool(column.isna().all())
    try:
        return bool(pd.to_numeric(column.dropna(), errors="coerce").isna().all())
    except OverflowError:  # a whole number beyond all floats
        return False


def without(config: DataConfig, *names: str) -> dict[str, Any]:
    """The setting that leaves columns out; none for the target."""
    if config.target in names:
        return {}
    if config.columns:
        kept_columns = [column for column in config.columns if column not in names]
        return {"data.columns": kept_columns} if kept_columns else {}
    return {"data.ignore": [*config.ignore, *names]}


def refusal(message: str, advice: str, settings: Mapping[str, Any], otherwise: str = "") -> DataError:
    """An error whose hint is the advice with the settings as they are typed, or something else if there are none."""
    if not settings:
        return DataError(message, hint=otherwise or f"{advice.rstrip(': ')}.")
    error = DataError(message, hint=f"{advice} {format_set_options(settings)}")
    error.settings = dict(settings)
    return error


def add_remedy(error: DataError, config: DataConfig, read: Callable[[DataConfig], object]) -> DataError:
    """The error with all the settings under which the file can be read, if that can be found out.

    `read`: reads the file under another config, or raises `DataError`.
    """
    settings: dict[str, Any] = {}
    tried_config, last = config, error
    for _ in range(_ROUNDS):
        if not last.settings:
            return error
        settings |= last.settings
        tried_config = change_config(tried_config, last.settings)
        try:
            read(tried_config)
        except DataError as problem:
            last = problem
        else:
            advice = (error.hint or "").partition(" --set ")[0].rpartition(". ")[0]  # what else can be done about it
            return refusal(error.message, f"{advice}. To read the file:".removeprefix(". "), settings)
    return error


def change_config(config: DataConfig, settings: Mapping[str, Any]) -> DataConfig:
    """The config with dotted keys such as `data.decimal` replaced."""
    tree: dict[str, Any] = {"data": config.model_dump()}
    for key, value in settings.items():
        tree = replace_at(tree, key.split("."), value)
    return DataConfig.model_validate(tree["data"])
