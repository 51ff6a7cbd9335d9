"""Local models in GGUF format: what a file says about itself, what it needs, and a process that runs it."""
