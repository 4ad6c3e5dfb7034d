"""Where sums and labelled solutions come from: the embedded domain, an earlier stage, or files."""

import json
from typing import Annotated, Literal

from pydantic import Field, field_validator

from assent.config import Frozen
from assent.data import solution_formats as solved
from assent.data.domain import arithmetic
from assent.pipeline.references import Reference
from assent.pipeline.stage import StageContext
from assent.records import Demonstration, Document, LabelledSolution, Task, solution_from_json
from assent.stages.lines import lines_of
from assent.stages.store_sources import StoreSolutions


class ArithmeticDocuments(Frozen):
    """Pretraining text of the embedded domain's sums: `{format: arithmetic_documents, count: 12000}`."""

    format: Literal["arithmetic_documents"]
    count: int = Field(gt=0)

    def records_for(self, context: StageContext) -> list[Document]:
        return list(arithmetic.documents(self.count, seed=context.seed))


class ArithmeticDemonstrations(Frozen):
    """Sums worked out by people in a hurry."""

    format: Literal["arithmetic_demonstrations"]
    count: int = Field(gt=0)

    def records_for(self, context: StageContext) -> list[Demonstration]:
        return arithmetic.demonstrations(self.count, seed=context.seed)


class ArithmeticTasks(Frozen):
    """Sums to work out, with their answers; `held_out` ones are disjoint from every training sum by construction.

    Args:
        operations: fewest and most of a sum; those that are demonstrated have 5 to 8.
    """

    format: Literal["arithmetic_tasks"]
    count: int = Field(gt=0)
    split: Literal["train", "held_out"] = "train"
    operations: tuple[int, int] = arithmetic.OPERATIONS

    @field_validator("operations")
    @classmethod
    def _in_order(cls, operations: tuple[int, int]) -> tuple[int, int]:
        least = arithmetic.FEWEST_OPERATIONS
        if not least <= operations[0] <= operations[1]:
            raise ValueError(f"operations are the fewest, {least} or more, and the most; got {list(operations)}")
        return operations

    def records_for(self, context: StageContext) -> list[Task]:
        return arithmetic.tasks(self.count, seed=context.seed, split=self.split, operations=self.operations)


class StageSolutions(Frozen):
    """The solutions that an earlier `label_steps` stage labelled."""

    format: Literal["stage"]
    stage: Annotated[str, Reference()]

    def records_for(self, context: StageContext) -> list[LabelledSolution]:
        path = context.inputs[self.stage].folder / "solutions.jsonl"
        return [solution_from_json(json.loads(line)) for line in lines_of(path)]


AnySolutions = Annotated[
    StageSolutions | StoreSolutions | solved.Solutions | solved.PrmBench | solved.Prm800k | solved.GsmSolutions,
    Field(discriminator="format"),
]
