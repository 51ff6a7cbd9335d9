"""Numbers between two bounds as grammars: digit by digit, as a grammar cannot compare. Pure."""

from collections.abc import Sequence
from decimal import Decimal

MOST_DIGITS = 16  # of an integer, and before the point, where a bound does not ask for more


def between(low: Decimal | None, high: Decimal | None, places: int) -> list[str]:
    """Alternatives for the numbers in [low, high], written with up to `places` decimals; none where there is none."""
    whole = max([MOST_DIGITS, *(len(str(abs(int(bound)))) + 1 for bound in (low, high) if bound is not None)])
    found: list[str] = []
    for decimals in range(places + 1):
        unit, largest = Decimal(10) ** decimals, 10 ** (whole + decimals) - 1
        least = -largest if low is None else int((low * unit).to_integral_value("ROUND_CEILING"))
        most = largest if high is None else int((high * unit).to_integral_value("ROUND_FLOOR"))
        found += [f'"-" {one}' for one in _counts(max(1, -most), -least, decimals)]
        found += _counts(max(0, least), most, decimals)
    return found


def _counts(low: int, high: int, decimals: int) -> list[str]:
    """Alternatives for the whole numbers in [low, high], with a point before the last so many digits."""
    found: list[str] = []
    full: list[int] = []  # lengths of which every number counts
    for length in range(decimals + 1, max(len(str(high)), decimals + 1) + 1) if low <= high else ():
        first = 10 ** (length - 1) if length > decimals + 1 else 0
        least, most = max(low, first), min(high, 10**length - 1)
        if first and (least, most) == (first, 10**length - 1):
            full.append(length)
        elif least <= most:
            spans = _spans(str(least).zfill(length), str(most).zfill(length))
            found += [" ".join((*span[: length - decimals], *_point(span[length - decimals :]))) for span in spans]
    if full:
        head = f"[1-9] [0-9]{{{full[0] - decimals - 1},{full[-1] - decimals - 1}}}"
        found.append(" ".join((head, *_point(["[0-9]"] * decimals))))
    return found


def _point(digits: Sequence[str]) -> Sequence[str]:
    return ['"."', *digits] if digits else ()


def _spans(low: str, high: str) -> list[list[str]]:
    """Sequences of classes of digits that together match the numbers between two of one length."""
    rest = len(low) - 1
    if rest < 0:
        return [[]]
    if low[0] == high[0]:
        return [[f"[{low[0]}]", *span] for span in _spans(low[1:], high[1:])]
    zeros, nines, first, last = "0" * rest, "9" * rest, int(low[0]), int(high[0])
    below = [] if low[1:] == zeros else [[f"[{first}]", *span] for span in _spans(low[1:], nines)]
    above = [] if high[1:] == nines else [[f"[{last}]", *span] for span in _spans(zeros, high[1:])]
    first, last = first + bool(below), last - bool(above)
    middle = [[f"[{first}-{last}]", *["[0-9]"] * rest]] if first <= last else []
    return [*below, *middle, *above]
