"""What `agentlab adapters merge` answers."""

from collections.abc import Iterator

from agentlab.runs.document import Block, Code, Document, Table, Text, number
from agentlab.train.probes import Apart

QUANTISED = ("4bit", "8bit")  # precisions whose base is not the one that is merged into


class MergeResult(Document):
    """A merged checkpoint, and how far its logits are from others on the probe prompts; None was not measured.

    `to_adapted` compares with the base and the adapter beside it, `to_base` with the base alone, `to_trained` with the
    adapter on the base as it was quantised for training. `computed_in` is the precision the models were loaded in for
    that, fp32 or bf16: in fp32 nothing but the rounding of the weights differs. `same_base` is None where the
    adapter's card does not say.
    """

    path: str
    adapter: str
    base: str
    fingerprint: str
    same_base: bool | None
    dtype: str
    modules: int
    trained_precision: str | None
    computed_in: str | None
    to_adapted: Apart | None
    to_base: Apart | None
    to_trained: Apart | None

    def blocks(self) -> list[Block]:
        """Where it lies, from which base, and the logits."""
        found: list[Block] = [
            Code(self.path),
            Text(f"Base: {self.base}, {self.fingerprint}; {self.modules} modules changed, written as {self.dtype}."),
        ]
        compared = (
            ("base with the adapter", self.to_adapted),
            ("base", self.to_base),
            (f"base in {self.trained_precision} with the adapter", self.to_trained),
        )
        rows = [_row(name, each) for name, each in compared if each is not None]
        if rows:
            columns = ("merged model against", "largest", "typical", "divergence", "same next token")
            caption = (
                f"Differences of logits on probe prompts, computed in {self.computed_in}; divergence of the next token "
                "in nats"
            )
            found.append(Table(columns, rows, caption=caption))
        return [*found, *(Text(remark) for remark in self.remarks())]

    def remarks(self) -> Iterator[str]:
        """What should be known before it is used."""
        if self.to_adapted is None:
            yield "The logits were not compared: there is too little free memory to load the model."
        if self.same_base is False:
            yield "The adapter was trained on another base model, by its card."
        if self.same_base is None:
            yield "The adapter does not say which files its base model had; whether it is this one is not known."
        if self.trained_precision in QUANTISED:
            measured = self.to_trained is not None
            yield (
                f"The adapter was trained on the base in {self.trained_precision}: merged into {self.dtype} it is not "
                f"the model that was trained{'; how far its logits are stands in the last row' if measured else ''}."
            )


def _row(name: str, each: Apart) -> tuple[str, ...]:
    return (name, *(number(value) for value in (each.largest, each.typical, each.divergence)), f"{each.agreement:.1%}")
