"""Runs to read."""

from tests.unit.pipeline.workshop import workshop

__all__ = ["workshop"]
