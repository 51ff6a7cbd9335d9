"""How several answers become one: a table of kinds, and an entry-point group for those of other packages."""

import logging
from typing import get_args

from agentlab.errors import AgentlabError
from agentlab.pipeline.aggregation.base import Aggregation
from agentlab.plugins import Registry

AGGREGATIONS: Registry[type[Aggregation]] = Registry(
    "aggregation",
    "agentlab.aggregations",
    {
        "concat": "agentlab.pipeline.aggregation.pick:Concat",
        "vote": "agentlab.pipeline.aggregation.vote:Vote",
        "judge": "agentlab.pipeline.aggregation.judge:Judge",
        "synthesis": "agentlab.pipeline.aggregation.judge:Synthesis",
        "best_of": "agentlab.pipeline.aggregation.pick:BestOf",
        "first_valid": "agentlab.pipeline.aggregation.pick:FirstValid",
        "template": "agentlab.pipeline.aggregation.pick:Custom",
    },
)


def kinds() -> tuple[type[Aggregation], ...]:
    """All of them. A package whose kind cannot be used is left out with a warning: other pipelines still run."""
    aggregations = []
    for name in AGGREGATIONS.names:
        try:
            kind = AGGREGATIONS.load(name)
            if not (isinstance(kind, type) and issubclass(kind, Aggregation)):
                raise AGGREGATIONS.unusable(name, "it is not a subclass of Aggregation")
            if get_args(kind.model_fields["method"].annotation) != (name,):
                raise AGGREGATIONS.unusable(name, f"its method is not Literal[{name!r}]")
        except AgentlabError as error:
            logging.getLogger(__name__).warning("%s", error)
        else:
            aggregations.append(kind)
    return tuple(aggregations)
