"""What `agentlab doctor` looks at: one row per thing, each with its remedy."""
