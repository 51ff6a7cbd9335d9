"""Personas: LoRA adapters of one base model, trained from conversations and compared with one another."""
