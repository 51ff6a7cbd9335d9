"""The command line of agentlab: arguments and rendering, no logic."""
