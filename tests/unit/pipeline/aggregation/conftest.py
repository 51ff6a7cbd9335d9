"""What an aggregation may use, in place of a run: a model that is a function of the prompt."""

import random

import pytest


class Scripted:
    """Implements `Scene`. `asked` holds every question: name, prompt, schema."""

    def __init__(self, reply=lambda _: "", *, schema=None, question="Q?", values=None, context=9_999, seed=0):
        self.schema, self.question, self.values, self.context = schema, question, values or {}, context
        self.asked = []
        self._reply, self._seed = reply, seed

    def seed(self, name):
        return random.Random(f"{name}{self._seed}").randrange(2**32)

    def ask(self, name, prompt, schema):
        assert name not in [earlier_name for earlier_name, _, _ in self.asked]
        self.asked.append((name, prompt, schema))
        return self._reply(prompt)

    def write(self, name, prompt):
        return self.ask(name, prompt, None)


@pytest.fixture
def scene():
    return Scripted
