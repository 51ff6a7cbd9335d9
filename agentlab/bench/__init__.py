"""Measures language models: speed under load, availability, quality. Light to import."""
