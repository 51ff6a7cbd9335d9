"""Expressions are computed by hand: what Python says where both can, and nothing dangerous."""

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.tasks.expression import Refused, evaluate


@pytest.mark.parametrize(
    "source",
    [
        "n * n + 1",
        "n % 3 == 0 and n % 5 != 0",
        "n if n > 0 else -n",
        "not n or 7",
        "sum(int(d) ** 2 for d in str(abs(n)))",
        "len([w for w in s.split() if 'e' in w and len(w) > 3])",
        "s[:2][::-1] + s[-1].upper()",
        "''.join(sorted(s.replace(' ', '')))",
        "''.join(reversed(s))",
        "max(n, 3) - min(n, 3)",
        "1 < n < 10",
        "s.count('e') in (1, 2, 3)",
        "round(n / 3, 2)",
        "list(range(3))[n % 3]",
    ],
)
@pytest.mark.parametrize("n", [0, 7, -4, 15])
def test_it_agrees_with_python(source, n):
    names = {"n": n, "s": "three green apples"}
    assert evaluate(source, names) == eval(source, {}, names)


@pytest.mark.parametrize(
    "source",
    ["lambda n: n * 2", "def f(n):\n    return n * 2", "double = lambda x: x * 2", "result = n * 2", "return n * 2"],
)
def test_a_function_with_one_return_is_taken_at_its_body(source):
    assert evaluate(source, {"n": 21}) == 42


@pytest.mark.parametrize(
    "source",
    [
        "__import__('os').system('true')",
        "().__class__.__bases__",
        "open('/etc/passwd')",
        "s.format(s)",
        "s.__class__",
        "'%s' % n",
        "f'{n}'",
        "(lambda: n)()",
        "[x for x in [1] for y in [2]]",
        "exec('1')",
        "getattr(s, 'upper')",
        "print(n)",
        "n; n",
        "import os",
        "unknown",
        "int('x')",
        "1 / 0",
        "[1][5]",
        "n +",
        "",
        "9 ** 9 ** 9",
        "2 ** 100000",
        "10.0 ** 400",
        "'a' * 10 ** 9",
        "[0] * 10 ** 9",
        "range(10 ** 9)",
        "range(10 ** 30)",
        "round(n, -10 ** 8)",
        "s.replace('', 'x' * 900)",
        "('x' * 900).join(['y'] * 900)",
        "[[0] * 100] * 100",
        "sum(x * x for x in range(900) if sum(y for y in range(900)) > x)",
        "int('9' * 999) * int('9' * 999) * int('9' * 999)",
        "(" * 500 + ")" * 500,
        "-" * 900 + "1",
        "n" * 2_000,
    ],
)
def test_what_is_not_allowed_is_refused_at_once(source):
    began = time.process_time()
    with pytest.raises(Refused):
        evaluate(source, {"n": 7, "s": "three green apples"})
    assert time.process_time() - began < 1


@given(st.text(alphabet="ns0123456789+-*/%()[]<>=!., 'abdefgijlmort_:", max_size=60))
def test_no_source_does_more_than_compute_or_be_refused(source):
    with contextlib.suppress(Refused):
        evaluate(source, {"n": 3, "s": "abc"})
