"""Figures as tables show them."""


def test_a_large_figure_without_decimals_is_shown_too() -> None:
    from agentlab.runs.document import number

    assert [number(value, 0) for value in (12.4, 250_000.0, 1e-5)] == ["12", "2e+05", "1e-05"]
