"""Chains of local GGUF and remote models: planned against the memory there is, every answer kept and found again."""
