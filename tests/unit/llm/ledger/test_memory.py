"""The ledger without a file: spend with unknown costs, arms, answers, bounds."""

import math
from dataclasses import replace

import pytest

from agentlab.llm.ledger.arm import Arm, Quality
from agentlab.llm.ledger.memory import MOST_ARMS, LedgerSpending, MemoryLedger, fold_evidence

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("costs", "total"), [([], 0.0), ([None], None), ([None, 0.5, None], 0.5), ([0.0], 0.0), ([0.25, 0.5], 0.75)]
)
def test_unknown_costs_are_never_zero(sample, costs, total):
    ledger = MemoryLedger()
    for cost in costs:
        ledger.record(sample(cost=cost))
    assert ledger.spent_since(NOW - 1) == total


def test_spend_counts_from_any_moment_and_goes_on_counting(sample):
    ledger = MemoryLedger()
    for second in range(10):
        ledger.record(sample(at=NOW + second, cost=1.0))
    assert ledger.spent_since(NOW + 7) == 3.0
    ledger.record(sample(at=NOW + 6, cost=1.0))
    ledger.record(sample(at=NOW + 7, cost=1.0))
    assert ledger.spent_since(NOW + 7) == 4.0
    assert ledger.spent_since(NOW) == 12.0


def test_an_arm_is_the_evidence_in_its_order_seen_from_now(sample):
    ledger, evidence = MemoryLedger(), [sample(), sample(error="ServerFaultError"), Quality(NOW, "t", "m", 0.5)]
    ledger.record(evidence[0])
    assert ledger.arm("t", "m", NOW).successes == 1  # asking in between changes nothing
    ledger.record(evidence[1])
    ledger.quality(NOW, "t", "m", 0.5)
    assert ledger.arm("t", "m", NOW + 1e5) == fold_evidence(Arm(), evidence).with_decay(NOW + 1e5)
    assert ledger.arm("t", "unknown", NOW) == Arm()


def test_an_arm_that_nobody_asks_about_takes_no_more_than_its_newest_calls(sample):
    ledger = MemoryLedger()
    for _ in range(5_000):
        ledger.record(sample())
    assert ledger.arm("t", "m", NOW).successes == pytest.approx(1 / (1 - 0.5 ** (1 / 200)), rel=2e-3)


def test_what_is_not_sound_is_ignored(sample):
    ledger = MemoryLedger()
    ledger.record(replace(sample(), total=math.nan))
    ledger.quality(NOW, "t", "m", math.inf)
    assert ledger.arm("t", "m", NOW) == Arm()
    assert ledger.spent_since(0.0) == 0.0


def test_answers_are_remembered(answer):
    ledger = MemoryLedger()
    ledger.remember("key", answer())
    assert (ledger.answer("key"), ledger.answer("other")) == (answer(), None)


def test_it_can_stand_on_what_a_file_knows(sample):
    ledger = MemoryLedger()
    ledger.record(sample())
    ledger.rebase({("t", "m"): Arm(successes=5, at=NOW)}, LedgerSpending(NOW - 9, 2.0, 3), [sample(cost=1.0)])
    assert ledger.spent_since(NOW - 9) == 3.0
    assert ledger.arm("t", "m", NOW).successes == pytest.approx(6, rel=0.01)


def test_a_name_that_cannot_be_written_hides_no_cost(sample):
    ledger = MemoryLedger()
    ledger.record(sample(task="lone \ud83d", cost=0.5))
    assert ledger.spent_since(NOW) == 0.5
    assert ledger.arm("lone \ud83d", "m", NOW).successes == 1


def test_no_number_of_tasks_fills_the_memory(sample):
    ledger = MemoryLedger()
    for number in range(MOST_ARMS + 100):
        ledger.record(sample(task=f"task {number}"))
        ledger.record(sample(task="every day"))
    assert ledger.arm("task 0", "m", NOW) == Arm()
    assert ledger.arm(f"task {MOST_ARMS + 99}", "m", NOW).successes == 1
    assert ledger.arm("every day", "m", NOW).successes > 100
    assert len(ledger._arms) == MOST_ARMS
    assert len(ledger._waiting) <= MOST_ARMS


def test_a_files_oldest_arm_makes_room_first(sample):
    ledger = MemoryLedger()
    arms = {(f"task {age}", "m"): Arm(successes=1, at=NOW - age) for age in range(MOST_ARMS)}
    ledger.rebase(arms, LedgerSpending(NOW), [sample(task="new")])
    assert ledger.arm(f"task {MOST_ARMS - 1}", "m", NOW) == Arm()
    assert ledger.arm("task 0", "m", NOW).successes == 1
