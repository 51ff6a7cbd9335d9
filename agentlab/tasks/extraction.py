"""Texts out of which fields are to be taken as JSON. The text is made from the fields, so the fields are known."""

import json
import random
from collections.abc import Callable, Mapping
from datetime import date, timedelta
from typing import Any

from agentlab.tasks.items import Level
from agentlab.tasks.word_lists import CITIES, FIRST_NAMES, GOODS, JOBS, MONTHS

# text, properties of the schema, values
Draft = tuple[str, Mapping[str, Any], Mapping[str, Any]]

_TEXT, _COUNT, _AMOUNT = {"type": "string"}, {"type": "integer"}, {"type": "number"}
_TEXTS = {"type": "array", "items": {"type": "string"}}


# What the easiest questions show instead of a schema: a small model copies a schema, but follows an example.
_EXAMPLES: Mapping[tuple[str, ...], tuple[str, Mapping[str, Any]]] = {
    ("name", "job"): ("Nora works as a gardener.", {"name": "Nora", "job": "gardener"}),
    ("name", "age", "city"): ("Nora is 40 years old and lives in Bern.", {"name": "Nora", "age": 40, "city": "Bern"}),
}


def prompt(text: str, schema: Mapping[str, Any]) -> str:
    """The question about a text."""
    example = _EXAMPLES.get(tuple(schema["properties"]))
    if example is not None:
        return f"Text: {example[0]}\nJSON: {json.dumps(dict(example[1]))}\n\nText: {text}\nJSON:"
    return (
        "Take these fields out of the text. Reply with one JSON object that follows the schema, and nothing else.\n\n"
        f"Schema: {json.dumps(dict(schema))}\n\nText: {text}"
    )


def _person(rng: random.Random) -> Draft:
    name, city, age = rng.choice(FIRST_NAMES), rng.choice(CITIES), rng.randint(19, 88)
    text = f"{name} is {age} years old and lives in {city}."
    return text, {"name": _TEXT, "age": _COUNT, "city": _TEXT}, {"name": name, "age": age, "city": city}


def _worker(rng: random.Random) -> Draft:
    name, job = rng.choice(FIRST_NAMES), rng.choice(JOBS)
    return f"{name} works as a {job}.", {"name": _TEXT, "job": _TEXT}, {"name": name, "job": job}


def _order(rng: random.Random) -> Draft:
    name, thing, count = rng.choice(FIRST_NAMES), rng.choice(GOODS), rng.randint(2, 9)
    price, paid = rng.randint(500, 9_900) / 100, rng.random() < 0.5
    text = (
        f"{name} ordered {count} pieces of the article {thing} at {price:.2f} euros each. "
        f"{'The invoice has been paid.' if paid else 'The invoice is still open.'}"
    )
    fields = {
        "customer": _TEXT,
        "article": _TEXT,
        "quantity": _COUNT,
        "unit_price": _AMOUNT,
        "paid": {"type": "boolean"},
    }
    return text, fields, {"customer": name, "article": thing, "quantity": count, "unit_price": price, "paid": paid}


def _meeting(rng: random.Random) -> Draft:
    names, city = rng.sample(FIRST_NAMES, 3), rng.choice(CITIES)
    day = date(2025, 1, 1) + timedelta(days=rng.randrange(365))
    text = (
        f"On {day.day} {MONTHS[day.month - 1]} {day.year} the yearly meeting takes place in {city}. "
        f"{names[0]} takes the chair; {names[1]} and {names[2]} take part."
    )
    fields = {"date": {"type": "string", "description": "YYYY-MM-DD"}, "city": _TEXT, "chair": _TEXT, "members": _TEXTS}
    return text, fields, {"date": day.isoformat(), "city": city, "chair": names[0], "members": names[1:]}


def _correction(rng: random.Random) -> Draft:
    name, friend = rng.sample(FIRST_NAMES, 2)
    right_article, wrong_article = rng.sample(GOODS, 2)
    first, count = rng.sample(range(2, 13), 2)
    text = (
        f"Hello, {name} here. Please send me {first} of article {wrong_article}. "
        f"No, sorry: my friend {friend} has that one already. "
        f"Make it article {right_article} instead, and take {count}, no rush. You need not wrap them as a gift."
    )
    fields = {
        "customer": _TEXT,
        "article": _TEXT,
        "quantity": _COUNT,
        "urgent": {"type": "boolean"},
        "gift_note": {"type": ["string", "null"], "description": "null if there is none"},
    }
    values = {"customer": name, "article": right_article, "quantity": count, "urgent": False, "gift_note": None}
    return text, fields, values


def _ledger(rng: random.Random) -> Draft:
    names, amounts = rng.sample(FIRST_NAMES, 3), [rng.randint(11, 99) for _ in range(3)]
    late = rng.randrange(3)
    text = (
        f"{names[0]} owes {amounts[0]} euros, {names[1]} {amounts[1]} and {names[2]} {amounts[2]}. Only "
        f"{names[late]} is overdue; the others have time until the end of the month."
    )
    fields = {"debtors": _TEXTS, "total": _COUNT, "overdue": _TEXT, "overdue_amount": _COUNT}
    values = {"debtors": names, "total": sum(amounts), "overdue": names[late], "overdue_amount": amounts[late]}
    return text, fields, values


KINDS: dict[Level, tuple[Callable[[random.Random], Draft], ...]] = {
    1: (_worker, _person),
    2: (_order, _meeting),
    3: (_correction, _ledger),
}
