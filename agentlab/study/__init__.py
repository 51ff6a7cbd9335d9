"""The engine of every search: planner -> executor -> evaluator -> update, noise, arms, control, the last round.

A capability brings a space, an objective and words. `docs/design.md` shows how, by the toy of the tests.
"""
