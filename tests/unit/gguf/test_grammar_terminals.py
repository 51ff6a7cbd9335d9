"""Numbers between bounds: the alternatives match what lies between them and nothing else."""

import re
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from agentlab.gguf.grammar_terminals import between


def matches(alternatives: list[str], text: str) -> bool:
    """These expressions have literals, classes and counts only: without quotes and spaces they are regular ones."""
    patterns = (one.replace('"."', r"\.").replace('"', "").replace(" ", "") for one in alternatives)
    return any(re.fullmatch(pattern, text) for pattern in patterns)


@given(st.integers(-2000, 2000), st.integers(0, 3000), st.integers(-6000, 6000))
def test_an_integer_is_matched_if_it_lies_between(low: int, width: int, number: int) -> None:
    alternatives = between(Decimal(low), Decimal(low + width), 0)
    assert matches(alternatives, str(number)) == (low <= number <= low + width)
    assert not matches(alternatives, f"0{abs(number)}")


@given(st.integers(-(10**20), 10**20), st.sampled_from([-1, 0, 1]), st.booleans())
def test_large_bounds_are_exact(bound: int, step: int, below: bool) -> None:
    alternatives = between(None, Decimal(bound), 0) if below else between(Decimal(bound), None, 0)
    number = bound + step
    assert matches(alternatives, str(number)) == (number <= bound if below else number >= bound)


places = st.integers(0, 4)
decimals = st.builds(lambda n, d: Decimal(n) / 10**d, st.integers(-3000, 3000), places)


@given(decimals, decimals, st.integers(-40_000, 40_000), places)
def test_a_decimal_is_matched_if_it_lies_between(one: Decimal, other: Decimal, digits: int, point: int) -> None:
    low, high = min(one, other), max(one, other)
    number = Decimal(digits) / 10**point
    text = f"{number:.{point}f}"
    expected = low <= number <= high and not (number == 0 and text.startswith("-"))
    assert matches(between(low, high, 4), text) == expected


def test_between_bounds_in_the_wrong_order_lies_nothing() -> None:
    assert between(Decimal(2), Decimal(1), 3) == []
    assert between(Decimal("0.4"), Decimal("0.6"), 0) == []
