"""Checkpoints of transformers that answer in a worker process."""
