"""How several answers become one: a table of kinds, and an entry-point group for those of other packages."""

import logging

from agentlab.pipeline.aggregation.base import Aggregation
from agentlab.plugins import Registry

AGGREGATIONS: Registry[type[Aggregation]] = Registry(
    "aggregation",
    "agentlab.aggregations",
    {
        "concat": "agentlab.pipeline.aggregation.pick:Concat",
        "vote": "agentlab.pipeline.aggregation.vote:Vote",
        "judge": "agentlab.pipeline.aggregation.judge:Judge",
        "synthesis": "agentlab.pipeline.aggregation.synthesis:Synthesis",
        "best_of": "agentlab.pipeline.aggregation.pick:BestOf",
        "first_valid": "agentlab.pipeline.aggregation.pick:FirstValid",
        "template": "agentlab.pipeline.aggregation.pick:Custom",
    },
)


def kinds() -> tuple[type[Aggregation], ...]:
    """All of them. A package whose kind cannot be imported is left out with a warning: other pipelines still run."""
    found = []
    for name in AGGREGATIONS.names:
        try:
            found.append(AGGREGATIONS.load(name))
        except Exception as error:
            if name in AGGREGATIONS.table:
                raise
            logging.getLogger(__name__).warning("The aggregation %s of a package cannot be used: %s", name, error)
    return tuple(found)
