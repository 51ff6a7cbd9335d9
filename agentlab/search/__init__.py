"""A search: its declared space, proposers (Optuna, random, language model), screening, execution, budgets."""
