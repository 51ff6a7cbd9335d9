"""Questions with one exact answer: sums, dates, counts, letters. Every answer is computed, not written down."""

import random
from collections.abc import Callable
from datetime import date, timedelta

from agentlab.tasks.items import Draft, Level
from agentlab.tasks.word_lists import DAYS, NOUNS

_ONLY_NUMBER = "Reply with the number only."
_ONLY_ANSWER = "Reply with the answer only."


def _sum(rng: random.Random) -> Draft:
    a, b = rng.randint(2, 9), rng.randint(2, 9)
    return f"What is {a} + {b}? {_ONLY_NUMBER}", "number", a + b


def _next_day(rng: random.Random) -> Draft:
    day_index = rng.randrange(7)
    return f"Which day of the week comes after {DAYS[day_index]}? {_ONLY_ANSWER}", "text", DAYS[(day_index + 1) % 7]


def _shout(rng: random.Random) -> Draft:
    word = rng.choice(NOUNS)
    return f'Write the word "{word}" in capital letters. {_ONLY_ANSWER}', "text", word.upper()


def _product(rng: random.Random) -> Draft:
    a, b, c = rng.randint(11, 49), rng.randint(3, 9), rng.randint(10, 99)
    return f"What is {a} * {b} + {c}? {_ONLY_NUMBER}", "number", a * b + c


def _days_later(rng: random.Random) -> Draft:
    start, days = date(2023, 1, 1) + timedelta(days=rng.randrange(700)), rng.randint(8, 45)
    question = f"Which date is {days} days after {start.isoformat()}? Reply with the date only, as YYYY-MM-DD."
    return question, "text", (start + timedelta(days=days)).isoformat()


def _letters(rng: random.Random) -> Draft:
    words = rng.sample(NOUNS, 3)
    letter = rng.choice(sorted(set("".join(words))))
    question = f'How often does the letter "{letter}" occur in "{" ".join(words)}"? {_ONLY_NUMBER}'
    return question, "number", sum(word.count(letter) for word in words)


def _backwards(rng: random.Random) -> Draft:
    word = rng.choice([noun for noun in NOUNS if len(noun) >= 6])
    return f'Spell the word "{word}" backwards. {_ONLY_ANSWER}', "text", word[::-1]


def _long_product(rng: random.Random) -> Draft:
    a, b, c = rng.randint(120, 980), rng.randint(23, 97), rng.randint(1_000, 9_000)
    return f"What is ({a} - {b}) * {b} - {c}? {_ONLY_NUMBER}", "number", (a - b) * b - c


def _days_between(rng: random.Random) -> Draft:
    start = date(2019, 1, 1) + timedelta(days=rng.randrange(1_500))
    end = start + timedelta(days=rng.randint(200, 900))
    question = f"How many days lie between {start.isoformat()} and {end.isoformat()}, the second day counted and the "
    return f"{question}first not? {_ONLY_NUMBER}", "number", (end - start).days


def _divisible(rng: random.Random) -> Draft:
    low, p, q = rng.randint(10, 60), *rng.sample((3, 4, 5, 7, 9, 11), 2)
    high = low + rng.randint(60, 120)
    question = f"How many whole numbers from {low} to {high}, both included, are divisible by {p} or by {q}?"
    return f"{question} {_ONLY_NUMBER}", "number", sum(n % p == 0 or n % q == 0 for n in range(low, high + 1))


def _shuffle(rng: random.Random) -> Draft:
    words = rng.sample(NOUNS, 3)
    question = f'Take the last letter of each word of "{" ".join(words)}", put the three letters in alphabetical order'
    return f"{question} and write them as one word. {_ONLY_ANSWER}", "text", "".join(sorted(w[-1] for w in words))


KINDS: dict[Level, tuple[Callable[[random.Random], Draft], ...]] = {
    1: (_sum, _next_day, _shout),
    2: (_product, _letters, _days_later, _backwards),
    3: (_long_product, _days_between, _divisible, _shuffle),
}
