"""Instructions that are followed to the letter or not at all; what the text says is not looked at."""

import random
from collections.abc import Callable
from typing import Any

from agentlab.tasks.items import Level
from agentlab.tasks.word_lists import CITIES, NOUNS

# prompt, rules
Draft = tuple[str, list[dict[str, Any]]]


def _rules(**values: Any) -> list[dict[str, Any]]:
    return [{"rule": name, "value": value} for name, value in values.items()]


def _mention(rng: random.Random) -> Draft:
    noun = rng.choice(NOUNS)
    return f'Write one sentence in which the word "{noun}" occurs.', _rules(contains=noun)


def _count(rng: random.Random) -> Draft:
    count = rng.randint(1, 3)
    words = "one word" if count == 1 else f"{count} words"
    return f"Describe a {rng.choice(NOUNS)} in exactly {words}. Reply with nothing else.", _rules(words=count)


def _begin(rng: random.Random) -> Draft:
    word = rng.choice(("Today", "Yesterday", "Sometimes", "Perhaps"))
    return f'Write one sentence that begins with the word "{word}".', _rules(starts=word)


def _lines(rng: random.Random) -> Draft:
    count, noun = rng.randint(3, 5), rng.choice(NOUNS)
    prompt = f"List exactly {count} uses of a {noun}, one per line, all in lower case, with nothing before or after."
    return prompt, _rules(lines=count, case="lower")


def _length(rng: random.Random) -> Draft:
    count, city = rng.randint(8, 14), rng.choice(CITIES)
    prompt = f"Write exactly {count} words about travelling to {city}, and mention {city}."
    return prompt, _rules(words=count, contains=city)


def _question(rng: random.Random) -> Draft:
    noun, avoided = rng.sample(NOUNS, 2)
    prompt = f'Ask one question in which the word "{noun}" occurs, but not "{avoided}", and end with a question mark.'
    return prompt, _rules(ends="?", contains=noun, avoids=avoided)


def _without(rng: random.Random) -> Draft:
    letter, count = rng.choice("aio"), rng.randint(7, 11)
    prompt = f'Write one sentence of exactly {count} words in which the letter "{letter}" does not occur.'
    return prompt, _rules(words=count, avoids=letter)


def _frame_words(rng: random.Random) -> Draft:
    first, last = rng.sample(NOUNS, 2)
    count = rng.randint(9, 13)
    prompt = (
        f'Write exactly {count} words. The first word is "{first}", the last word is "{last}", there is exactly one '
        "comma, and everything is in lower case."
    )
    return prompt, _rules(words=count, starts=first, ends=last, commas=1, case="lower")


def _capital_lines(rng: random.Random) -> Draft:
    count, noun = rng.randint(3, 4), rng.choice(NOUNS)
    prompt = (
        f"Write {count} lines in capital letters throughout. Each word occurs as you like, but there are exactly "
        f'{3 * count} words in all, no comma, and the word "{noun}" is among them.'
    )
    return prompt, _rules(lines=count, words=3 * count, case="upper", commas=0, contains=noun)


KINDS: dict[Level, tuple[Callable[[random.Random], Draft], ...]] = {
    1: (_mention, _count, _begin),
    2: (_lines, _length, _question),
    3: (_without, _frame_words, _capital_lines),
}
