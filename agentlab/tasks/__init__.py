"""Labelled items: generators, checkers, answer extractors, votes. Pure."""
