"""Processes of our own that do one kind of work for this one: how they start, talk, are bounded, and end.

`gguf` holds a language model in one, `search` trains in several. Both ends speak JSON lines over pipes.
"""
