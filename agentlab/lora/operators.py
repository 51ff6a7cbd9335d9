"""The operators that make an adapter of others, by name: loaded when one is asked for.

`adapters blend --method` knows those that combine several. Adding one is a file with an `Operator` and a line here, or
a package with an entry point in the group.
"""

from typing import TYPE_CHECKING

from agentlab.plugins import Registry

if TYPE_CHECKING:
    from agentlab.lora.blend import Operator  # imports torch, which the help of a command does without

GROUP = "agentlab.lora_operators"

MUTATIONS = {  # of one adapter; the others combine several
    "values": "agentlab.lora.mutation:VALUES",
    "rotate": "agentlab.lora.mutation:ROTATE",
    "directions": "agentlab.lora.mutation:DIRECTIONS",
}
OPERATORS: "Registry[Operator]" = Registry(
    "method",
    GROUP,
    {
        "sum": "agentlab.lora.blend:SUM",
        "concat": "agentlab.lora.blend:CONCAT",
        "slerp": "agentlab.lora.blend:SLERP",
        "ties": "agentlab.lora.sparse:TIES",
        "dare": "agentlab.lora.sparse:DARE",
        "svd-cross": "agentlab.lora.blend:SVD_CROSS",
        **MUTATIONS,
    },
)


def is_mutation(name: str) -> bool:
    """Whether an operator changes one adapter."""
    return name in MUTATIONS or OPERATORS.load(name).alone
