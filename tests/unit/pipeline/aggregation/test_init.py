"""The table of aggregations, and one that another package brings: it is configured, checked and run like ours."""

import os
import subprocess
import sys
from pathlib import Path

from agentlab.pipeline.aggregation import AGGREGATIONS, kinds

LONGEST = """
from typing import Literal
from pydantic import Field
from agentlab.pipeline.aggregation.base import Aggregation, Chosen

class Longest(Aggregation):
    \"\"\"The longest answer.\"\"\"

    method: Literal["longest"] = "longest"
    most: int = Field(100, description="Longer ones do not count.")

    def choose(self, candidates, scene):
        texts = [each.text for each in candidates if len(each.text) <= self.most]
        return Chosen(max(texts, key=len), {"method": "longest", "asked": scene.question})
"""

# The table is read when stages are first defined, so a package has to be there before.
PROGRAM = """
from agentlab.pipeline.answer import PipelineAnswer
from agentlab.pipeline.completion import complete_step
from agentlab.pipeline.config import PipelineConfig
from agentlab.pipeline.graph import unroll
from agentlab.pipeline.state import PipelineItem

stage = {"id": "a", "model": "m", "samples": 2, "aggregation": {"method": "longest", "most": 4}}
config = PipelineConfig.model_validate({"models": {"m": {"file": "m.gguf"}}, "base_pipeline": {"stages": [stage]}})
assert not list(config.problems())
found = {text: PipelineAnswer(text, "stop", "m") for text in ("two", "four", "eleven")}
end = complete_step(unroll(config.stages)[0], PipelineItem("", "why?", {}, {}), found, config, None)
print(end.answer, end.why["asked"], "LONGEST" in str(PipelineConfig.model_json_schema()).upper())
"""


def test_each_kind_is_called_as_the_table_says():
    assert [kind.model_fields["method"].default for kind in kinds()] == list(AGGREGATIONS.table)


def test_a_package_brings_one_and_those_that_cannot_be_used_are_left_out(plug_in, tmp_path: Path):
    plug_in("agentlab.aggregations", "longest = plugged_longest:Longest", LONGEST)
    plug_in("agentlab.aggregations", "broken = plugged_broken:Nothing", "import no_such_module")
    plug_in("agentlab.aggregations", "other = plugged_other:Longest", LONGEST)
    plug_in("agentlab.aggregations", "odd = plugged_odd:value", "value = 1")
    paths = [str(Path(__file__).parents[4]), str(tmp_path / "packages")]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout == "four why? True\n", done.stderr
    assert (
        "aggregation broken from an installed package cannot be used: No module named 'no_such_module'" in done.stderr
    )
    assert (
        "aggregation other from an installed package cannot be used: its method is not Literal['other']" in done.stderr
    )
    assert (
        "aggregation odd from an installed package cannot be used: it is not a subclass of Aggregation" in done.stderr
    )
