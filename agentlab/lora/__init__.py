"""Adapter algebra: LoRA adapters as the change they make to a model, not as a pair of factors.

`LoraDelta` is one module's change in factored form; `blend`, `crossover`, `mutation`, `sparse` and `geometry` are pure
functions of deltas; `reading` and `writing` stream adapter folders; `gguf_export` and `vllm` hand them to servers.
"""
