"""Training language models' adapters: conversations and their masks, the base model, one adapter or several at once."""
