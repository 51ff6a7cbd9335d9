"""What `agentlab init` writes and what `agentlab configs` answers."""
