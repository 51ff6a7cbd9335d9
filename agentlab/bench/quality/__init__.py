"""How good answers are: items whose answers can be checked, and a judge for those that cannot."""
