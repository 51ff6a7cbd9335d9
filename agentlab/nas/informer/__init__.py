"""The Informer (arXiv 2012.07436), with the switches beyond the paper that `ModelConfig` names."""
