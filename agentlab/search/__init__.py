"""Ask-and-tell search: a declared space, proposers (Optuna, random, language model), screening, execution, budgets."""
