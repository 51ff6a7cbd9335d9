"""Texts to be put under one of a few labels. Each is put together from parts that decide its label."""

import random
from collections.abc import Callable, Mapping

from agentlab.tasks.items import Draft, Level
from agentlab.tasks.word_lists import BLAME, PRAISE, THINGS

_GOOD = ("I love this lamp", "The staff were kind and quick", "What a wonderful evening", "The soup was delicious")
_BAD = ("I hate this lamp", "The staff were rude and slow", "What a terrible evening", "The soup was cold and salty")
_GOOD_END = ("I will come back.", "I can only recommend it.", "It made my day.")
_BAD_END = ("I want my money back.", "Never again.", "It ruined my day.")

_TOPICS: Mapping[str, tuple[str, ...]] = {
    "sports": (
        "The goalkeeper saved two penalties in the last minutes.",
        "She ran the last lap in under a minute and took the medal.",
        "Their coach moved the defence forward after the break.",
    ),
    "cooking": (
        "Let the dough rest for an hour before you roll it out.",
        "Simmer the lentils until they are soft, then add lemon.",
        "Sear the mushrooms in a hot pan without moving them.",
    ),
    "travel": (
        "The night train reaches the coast shortly before seven.",
        "Bring your passport, the border post opens at nine.",
        "We missed the ferry and stayed in a guest house by the pier.",
    ),
    "finance": (
        "The central bank left its interest rate where it was.",
        "His shares lost a tenth of their value within a week.",
        "The loan is paid back in sixty equal instalments.",
    ),
    "weather": (
        "A cold front brings showers from the west by evening.",
        "Fog lingers in the valleys, above it the sun shines.",
        "Gusts of ninety kilometres per hour are expected on the ridge.",
    ),
}

_SOFT, _SOUR, _THINGS = PRAISE[:3], BLAME[:3], THINGS[:6]

_REQUESTS: Mapping[str, tuple[str, ...]] = {
    "refund": (
        "The parcel came twice and I was charged twice; I sent one back last week and my balance has not moved.",
        "I cancelled within the trial month, so the forty euros on my card must be a slip. Kindly put them back.",
    ),
    "bug": (
        "Since Tuesday the export button does nothing, even after I signed in again and paid for the larger plan.",
        "When I change my address the page goes white; I tried two browsers before writing to you.",
    ),
    "feature": (
        "I like the report. It would save me an hour a week if it could also go out by mail every Monday.",
        "Nothing is broken, but could dates be shown in our own order some day?",
    ),
    "account": (
        "My colleague has left; how do I hand her projects over to my login and close hers?",
        "I no longer have the phone that gets my codes, so I stand before a locked door.",
    ),
}


def _ask(question: str, labels: list[str], text: str, right: str) -> Draft:
    prompt = f"{question} Reply with one of these words only: {', '.join(labels)}.\n\nText: {text}"
    return prompt, "label", {"right": right, "among": labels}


def _sentiment(rng: random.Random) -> Draft:
    good = rng.random() < 0.5
    text = f"{rng.choice(_GOOD if good else _BAD)}. {rng.choice(_GOOD_END if good else _BAD_END)}"
    examples = "Text: What a bad film.\nMood: negative\n\nText: I like this book.\nMood: positive"
    right = "positive" if good else "negative"
    return f"{examples}\n\nText: {text}\nMood:", "label", {"right": right, "among": ["positive", "negative"]}


def _topic(rng: random.Random) -> Draft:
    right = rng.choice(list(_TOPICS))
    labels = rng.sample(list(_TOPICS), len(_TOPICS))
    return _ask("What is the text about?", labels, rng.choice(_TOPICS[right]), right)


def _topic_by_letter(rng: random.Random) -> Draft:
    right = rng.choice(list(_TOPICS))
    labels = rng.sample(list(_TOPICS), len(_TOPICS))
    letters = "ABCDE"
    options = "\n".join(f"{letter}: {label}" for letter, label in zip(letters, labels, strict=True))
    prompt = f"What is the text about? Reply with the letter only.\n\n{options}\n\nText: {rng.choice(_TOPICS[right])}"
    return prompt, "letter", {"right": letters[labels.index(right)], "among": list(letters)}


def _subtle_sentiment(rng: random.Random) -> Draft:
    good = rng.random() < 0.5
    text = f"{rng.choice(_THINGS)} {rng.choice(_SOFT if good else _SOUR)}."
    question = "Does the writer like or dislike what the text is about?"
    return _ask(question, ["like", "dislike"], text, "like" if good else "dislike")


def _request(rng: random.Random) -> Draft:
    right = rng.choice(list(_REQUESTS))
    labels = rng.sample(list(_REQUESTS), len(_REQUESTS))
    question = (
        "What does the customer want? refund: money back; bug: something that broke mended; feature: something new; "
        "account: help with logins and rights."
    )
    return _ask(question, labels, rng.choice(_REQUESTS[right]), right)


KINDS: dict[Level, tuple[Callable[[random.Random], Draft], ...]] = {
    1: (_sentiment,),
    2: (_topic, _topic_by_letter),
    3: (_subtle_sentiment, _request),
}
