"""Model files: what is known, how it is fetched, where it lies, and how a GGUF becomes a trainable checkpoint."""
