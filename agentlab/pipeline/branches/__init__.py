"""Runs and their reruns: which came from which, what differs, and why a call was asked again."""
