"""Clocks that a busy machine does not trip over: none is short but the one that a test waits for."""

from agentlab.llm.config import Timeout

PATIENT = Timeout(connect=20, first_token=20, idle=20, total=60)
IMPATIENT = {  # by the words of the error
    "did not begin": PATIENT.model_copy(update={"first_token": 0.4}),
    "The answer paused": PATIENT.model_copy(update={"idle": 0.3}),
}
