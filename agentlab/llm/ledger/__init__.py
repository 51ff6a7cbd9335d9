"""What a workspace remembers of its calls: single attempts, statistics per task and model, spend, and answers."""
