"""How often the referee errs, and whether it shows as often as it prints what it says that it would have shown.

Rivals that do not differ are compared, alone and three at once with the side in common that a report's families have
in common. Items are enumerated, pairs drawn 10,000 times from a heavy-tailed distribution; power is that at the printed
smallest difference, with the true discordance and deviation. Held:

    a false difference        at most 5 %, and in a family at most 5 % that any errs (plus 0.5 points where drawn)
    the power at the smallest difference that is printed        80 %, within 1 point

Usage: python tests/bench/referee.py [DRAWS]    writes .agentlab/bench/referee.json; exit 1 beyond limits
"""

import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from agentlab import machine
from agentlab.runs.atomic import write_json
from agentlab.stats.paired_tests import (
    LEVEL,
    POWER,
    compare,
    compare_family,
    mcnemar_power,
    smallest_share_difference,
    smallest_shift,
)

OUT = Path(".agentlab/bench/referee.json")
DRAWS = 10_000
ITEMS, DISCORDANCES = (20, 60, 100, 240, 500), (0.01, 0.05, 0.1, 0.3)
PAIRS = (6, 7, 8, 10, 12, 20, 50)
FAMILY = 3
MOST, DRAWN, NEAR = 0.05, 0.005, 0.01
FIRST_STEP = 1 - (1 - LEVEL) / FAMILY


def measure_items(n: int, discordance: float) -> dict[str, float | None]:
    """Enumerated; a family's three comparisons are independent, where any errs if the first step of Holm does."""
    alone, first = (2 * mcnemar_power(n, discordance, 0.0, level) for level in (LEVEL, FIRST_STEP))
    smallest = smallest_share_difference(n, discordance)
    power = None if smallest is None else mcnemar_power(n, max(discordance, smallest), smallest)
    return {"alone": alone, "family": 1 - (1 - first) ** FAMILY, "smallest": smallest, "power": power}


def measure_pairs(n: int, draws: int) -> dict[str, float | None]:
    """Drawn; the three of a family share the one side."""
    rng = np.random.default_rng([n, 1])
    alone = family = detected = 0
    shift = smallest_shift(n)
    for _ in range(draws):
        ours, *theirs = rng.standard_t(3, size=(1 + FAMILY, n))
        evidence = compare(ours, theirs[0], rng)
        alone += not evidence.low <= 0 <= evidence.high
        if n > FAMILY + 3:  # fewer can show nothing in a family of three
            intervals = compare_family(dict(enumerate((ours, peer) for peer in theirs)), rng).values()
            family += any(not one.low <= 0 <= one.high for one in intervals)
        if shift is not None:
            detected += compare(rng.normal(shift, 1, n), np.zeros(n), rng).low > 0
    return {"alone": alone / draws, "family": family / draws, "smallest": shift, "power": detected / draws}


def main() -> None:
    """Measure, print, write, and hold the limits."""
    draws = int(sys.argv[1]) if len(sys.argv) > 1 else DRAWS
    rows: list[dict[str, Any]] = []
    missed: list[str] = []
    print("                          false alone  false in three  smallest shown     power")
    cases = [(f"{n} items, {q:.0%} differ", measure_items, (n, q), 0.0) for n in ITEMS for q in DISCORDANCES]
    cases += [(f"{n} pairs, t(3)", measure_pairs, (n, draws), DRAWN) for n in PAIRS]
    for name, measure, arguments, allowed in cases:
        row = measure(*arguments)  # type: ignore[operator] # both are functions of two numbers
        rows.append({"row": name, **row})
        smallest, power = row["smallest"], row["power"]
        print(
            f"{name:26}{row['alone']:11.2%}{row['family']:16.2%}"
            f"{'–' if smallest is None else f'{smallest:.3f}':>16}{'–' if power is None else f'{power:.1%}':>10}"
        )
        for key in ("alone", "family"):
            if row[key] > MOST + allowed:
                missed.append(f"{name}: {row[key]:.2%} false ({key})")
        if power is not None and abs(power - POWER) > NEAR:
            missed.append(f"{name}: power {power:.1%}")
    OUT.parent.mkdir(parents=True, exist_ok=True)
    write_json(
        OUT,
        {
            "rows": rows,
            "machine": machine.processor(),
            "versions": {"numpy": version("numpy"), "python": platform.python_version()},
        },
    )
    print(f"{draws:,} draws of pairs; written to {OUT}")
    print("\n".join(f"MISSED: {line}" for line in missed))
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
