"""What a search is going to do, for `--dry-run` and the first line on the screen. Pure."""

from agentlab.evolve.config import EvolveConfig
from agentlab.evolve.data import QuestionSplit
from agentlab.evolve.genome import Coefficients
from agentlab.evolve.recipes import RecipeGenome
from agentlab.models.base_model import BaseFile
from agentlab.runs.document import AnswerDocument, Block, Table
from agentlab.search.types import meaning


class EvolvePlan(AnswerDocument):
    """The answer of `evolve --dry-run`."""

    parents: list[str]
    base: str
    imports: bool
    genome: str
    searched: list[str]
    algorithm: str
    population: int
    train: int
    test: int
    items: int
    searches: int
    language_model: str

    @property
    def summary(self) -> str:
        return (
            f"{', '.join(self.parents)} on {self.base}: {self.genome}, bred by {self.algorithm}, "
            f"up to {self.items:,} answers to {self.train} questions"
        )

    def blocks(self) -> list[Block]:
        rows = [
            ("parents", ", ".join(self.parents)),
            ("base", f"{self.base}{' (imported first, once)' if self.imports else ''}"),
            ("child", self.genome),
            ("algorithm", f"{self.algorithm}, {self.population} children per generation"),
            ("questions", f"{self.train} for the search, {self.test} sealed until all winners are chosen"),
            ("answers", f"at most {self.items:,} in each of {self.searches} searches, half of them random"),
            ("language model", self.language_model),
        ]
        return [Table(("plan", ""), rows)]


def plan_of(
    config: EvolveConfig, base: BaseFile, genome: Coefficients | RecipeGenome, questions: QuestionSplit
) -> EvolvePlan:
    """The plan of a checked config."""
    searched = list(genome.space.parameters)
    deltas = f"an adapter made by {', '.join(config.genome.operators)}"
    models = [f"{name} ({config.llm.models[name].id})" for name in config.llm.candidates("evolve.propose")]
    return EvolvePlan(
        parents=list(genome.parents),
        base=str(base.path.name),
        imports=not base.path.is_dir(),
        genome=deltas if isinstance(genome, RecipeGenome) else f"{len(searched)} weights",
        searched=searched,
        algorithm=f"{config.algorithm} ({meaning(config.algorithm)})",
        population=config.population,
        train=len(questions.train),
        test=len(questions.test),
        items=config.max_items,
        searches=2 * (config.control_seeds if config.control == "full" else 1),
        language_model=f"{' then '.join(models)}, for about half of the children" if models else "none",
    )
