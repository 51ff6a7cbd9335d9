"""The circuit breaker: when it opens, for how long, and that one probe at a time decides."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from agentlab.llm.guard import LONGEST, SHORTEST, Breaker


def call(breaker: Breaker, now: float, failed: bool | None, unreachable: bool = False) -> None:
    breaker.leave(now, breaker.enter(), failed, unreachable=unreachable)


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(3):
        call(breaker, now, True, unreachable=True)
    return breaker


@pytest.mark.parametrize(
    ("results", "state"),
    [
        ([True] * 4, "closed"),  # too few to judge
        ([True] * 5, "open"),
        ([False, False, False, True, True], "closed"),
        ([False, False, False, True, True, True], "open"),  # half of six
        ([None] * 9, "closed"),
        ([None] * 9 + [True] * 4, "closed"),  # what says nothing does not count as a result
    ],
)
def test_it_opens_at_half_of_at_least_five_results(results, state):
    breaker = Breaker()
    for failed in results:
        call(breaker, 0, failed)
    assert breaker.state(0) == state


def test_results_count_for_a_minute():
    breaker = Breaker()
    for second in (0, 1, 2, 3, 61, 62):
        call(breaker, second, True)
    assert breaker.state(62) == "closed"  # 3, 61 and 62 are left
    call(breaker, 62, True)
    assert breaker.state(62) == "closed"
    call(breaker, 62.5, True)
    assert breaker.state(62.5) == "open"


def test_three_connections_in_a_row_are_enough_whatever_went_well_before():
    breaker = Breaker()
    for failed in (*[False] * 20, True, True):
        call(breaker, 0, failed, unreachable=failed)
    assert breaker.state(0) == "closed"
    call(breaker, 0, True, unreachable=True)
    assert breaker.state(0) == "open"


def test_a_success_ends_the_row_of_failed_connections():
    breaker = Breaker()
    for failed in (True, True, False, False, True, True, False, False):
        call(breaker, 0, failed, unreachable=failed)
        if not failed:
            assert breaker.state(0) == "closed"


def test_it_stays_open_longer_with_every_probe_that_fails_and_starts_over_after_one_that_answers():
    breaker, now = opened(), 0.0
    for pause in (5, 10, 20, 40, 60, 60):
        assert breaker.delay(now) == pytest.approx(pause)
        assert breaker.state(now + pause - 0.01) == "open"
        now += pause
        assert breaker.state(now) == "half-open"
        assert breaker.delay(now) == 0
        call(breaker, now, True)
    call(breaker, now + 60, False)
    assert breaker.state(now + 60) == "closed"
    for _ in range(3):
        call(breaker, now + 60, True, unreachable=True)
    assert breaker.delay(now + 60) == SHORTEST


def test_one_probe_at_a_time():
    breaker = opened()
    probe = breaker.enter()
    assert probe.probe
    assert breaker.delay(5) > 0
    second = breaker.enter()
    assert not second.probe
    breaker.leave(6, second, False)
    assert breaker.state(6) == "half-open"  # only the probe decides
    breaker.leave(7, probe, False)
    assert breaker.state(7) == "closed"


def test_a_cancelled_probe_makes_room_for_the_next():
    breaker = opened()
    call(breaker, 5, None)
    assert breaker.delay(5) == 0
    assert breaker.enter().probe


def test_calls_from_before_the_opening_change_nothing():
    breaker = Breaker()
    early = [breaker.enter() for _ in range(6)]
    for one in early[:3]:
        breaker.leave(0, one, True, unreachable=True)
    breaker.leave(5, early[3], False)
    assert breaker.state(1) == "open"
    assert breaker.delay(1) == 4
    call(breaker, 5, False)
    assert breaker.state(5) == "closed"
    for one in early[4:]:
        breaker.leave(6, one, True, unreachable=True)
    call(breaker, 6, True, unreachable=True)
    assert breaker.state(6) == "closed"


class AnyOrder(RuleBasedStateMachine):
    """Calls begin, end and are cancelled in any order, at any time."""

    calls = Bundle("calls")

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker()
        self.now = 0.0
        self.probes = 0

    @rule(target=calls)
    def begin(self):
        before = self.breaker.state(self.now)
        one = self.breaker.enter()
        assert one.probe <= (before != "closed")
        self.probes += one.probe
        return one

    @rule(one=consumes(calls), failed=st.sampled_from([True, False, None]), unreachable=st.booleans())
    def end(self, one, failed, unreachable):
        before = self.breaker.state(self.now)
        self.breaker.leave(self.now, one, failed, unreachable=bool(failed) and unreachable)
        self.probes -= one.probe
        after = self.breaker.state(self.now)
        if not failed:
            assert not (before == "closed" and after != "closed"), "only a failure opens it"
        if before != "closed" and after == "closed":
            assert one.probe
            assert failed is False

    @rule(seconds=st.floats(0, 70))
    def wait(self, seconds):
        self.now += seconds

    @invariant()
    def one_probe_at_most(self):
        assert self.probes == self.breaker.probing
        assert self.probes in (0, 1)

    @invariant()
    def the_pause_is_bounded(self):
        assert 0 <= self.breaker.delay(self.now) <= LONGEST
        if self.breaker.state(self.now) == "closed":
            assert self.breaker.delay(self.now) == 0
        elif not self.probes:
            assert self.breaker.state(self.now + LONGEST) == "half-open"  # it never stays shut for good


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
