"""Configs: typed models, YAML files and presets laid over each other, overrides, and where each value came from."""
