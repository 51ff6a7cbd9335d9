"""A server that stands in for language models: it answers, or fails, exactly as the model's name says."""
