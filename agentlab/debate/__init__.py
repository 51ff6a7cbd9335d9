"""Debates: several agents answer questions, hear one another, and vote; whether that beat plain voting is measured."""
