"""Small programs whose output is to be predicted, and expressions to be written. Nothing a model writes is run."""

import random
from collections.abc import Callable
from itertools import product
from typing import Any

from agentlab.tasks.items import Draft, Level
from agentlab.tasks.word_lists import NOUNS


def _predict(lines: list[str], printed: object) -> Draft:
    source = "\n".join(lines)
    question = f"What does this Python program print? Reply with the output only.\n\n```python\n{source}\n```"
    return question, "number" if isinstance(printed, int) else "text", printed


def _assign(rng: random.Random) -> Draft:
    a, b = rng.randint(2, 12), rng.randint(2, 12)
    return _predict([f"x = {a}", f"y = x + {b}", "print(y)"], a + b)


def _length(rng: random.Random) -> Draft:
    word = rng.choice(NOUNS)
    return _predict([f'print(len("{word}"))'], len(word))


def _loop(rng: random.Random) -> Draft:
    start, end, step = rng.randint(1, 5), rng.randint(12, 20), rng.randint(2, 4)
    lines = ["total = 0", f"for n in range({start}, {end}, {step}):", "    total += n", "print(total)"]
    return _predict(lines, sum(range(start, end, step)))


def _slice(rng: random.Random) -> Draft:
    word = rng.choice([noun for noun in NOUNS if len(noun) >= 6])
    return _predict([f'word = "{word}"', "print(word[1:4] + word[-1].upper())"], word[1:4] + word[-1].upper())


def _filter(rng: random.Random) -> Draft:
    values, bound = rng.sample(range(1, 60), 7), rng.randint(15, 40)
    lines = [
        f"values = {values}",
        f"kept = [v * 2 for v in values if v > {bound} or v % 3 == 0]",
        "print(sum(sorted(kept)[:3]))",
    ]
    return _predict(lines, sum(sorted(v * 2 for v in values if v > bound or v % 3 == 0)[:3]))


def _while(rng: random.Random) -> Draft:
    start = rng.randint(11, 40)
    lines = [
        "steps = 0",
        f"n = {start}",
        "while n != 1:",
        "    n = n // 2 if n % 2 == 0 else 3 * n + 1",
        "    steps += 1",
    ]
    n, steps = start, 0
    while n != 1:
        n, steps = n // 2 if n % 2 == 0 else 3 * n + 1, steps + 1
    return _predict([*lines, "print(steps)"], steps)


def _write(names: str, description: str, cases: list[tuple[list[Any], Any]]) -> Draft:
    question = (
        f"Write one Python expression in terms of {names} that gives {description}. No imports. Reply with it only."
    )
    return question, "expression", {"names": names.split(" and "), "cases": list(map(list, cases))}


def _plus(rng: random.Random) -> Draft:
    factor, addend = rng.randint(2, 9), rng.randint(1, 9)
    description = f"{factor} times n, plus {addend}"
    return _write("n", description, [([n], factor * n + addend) for n in (0, 1, 7, -3)])


def _divides(rng: random.Random) -> Draft:
    p, q = rng.sample((3, 4, 5, 7), 2)
    description = f"True if the whole number n is divisible by {p} but not by {q}, else False"
    return _write("n", description, [([n], n % p == 0 and n % q != 0) for n in (p, q, p * q, 0, 1, 2 * p, -p)])


def _ends(rng: random.Random) -> Draft:
    count = rng.randint(2, 3)
    description = f"the first {count} letters of the text s in reverse order, followed by its last letter in capitals"
    cases: list[tuple[list[Any], Any]] = [([w], w[:count][::-1] + w[-1].upper()) for w in rng.sample(NOUNS, 3)]
    return _write("s", description, cases)


def _digits(rng: random.Random) -> Draft:
    power = rng.randint(2, 3)
    description = f"the sum of the digits of the whole number n >= 0, each digit to the power of {power}"
    return _write("n", description, [([n], _digit_power_sum(n, power)) for n in (0, 7, 10, 358, 90210)])


def _digit_power_sum(n: int, power: int) -> int:
    return sum(int(digit) ** power for digit in str(n))


def _vowels(rng: random.Random) -> Draft:
    vowel = rng.choice("aeo")
    description = f'the number of words in the text s that contain the letter "{vowel}" and have more than k letters'
    texts = [" ".join(rng.sample(NOUNS, 5)) for _ in range(3)]
    cases: list[tuple[list[Any], Any]] = []
    for text, k in product(texts, (5, 6)):
        cases.append(([text, k], sum(vowel in word and len(word) > k for word in text.split())))
    return _write("s and k", description, cases)


KINDS: dict[Level, tuple[Callable[[random.Random], Draft], ...]] = {
    1: (_assign, _length, _plus),
    2: (_loop, _slice, _divides, _ends),
    3: (_filter, _digits, _while, _vowels),
}
