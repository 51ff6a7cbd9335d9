"""An operator on one LoRA adapter: its sign turns."""

from agentlab.lora.blend import Operator, truncate

TURN = Operator(lambda deltas, recipe, _: truncate(deltas[0].scaled(-1.0), recipe.rank), alone=True)
