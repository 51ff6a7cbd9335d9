"""Models made smaller and measured: quantization, pruning, recovery, distillation within a hard energy budget."""
