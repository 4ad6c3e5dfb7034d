"""Where records come from: files and hub data sets, the embedded domain, or the artefact of an earlier stage."""

import json
from typing import Annotated, Literal

from pydantic import Field

from assent.config import Frozen
from assent.data import domain
from assent.pipeline.references import Reference
from assent.pipeline.run import StageContext
from assent.records import Comparison, Demonstration, Document, Task, comparison_from_json


class DomainDocuments(Frozen):
    """Pretraining text of the embedded domain: `{format: domain_documents, count: 20000}`."""

    format: Literal["domain_documents"]
    count: int = Field(gt=0)

    def documents(self, context: StageContext) -> list[Document]:
        return list(domain.documents(self.count, seed=context.seed))


class DomainDemonstrations(Frozen):
    """Noisy demonstrations of the embedded domain."""

    format: Literal["domain_demonstrations"]
    count: int = Field(gt=0)

    def demonstrations(self, context: StageContext) -> list[Demonstration]:
        return domain.demonstrations(self.count, seed=context.seed)


class DomainTasks(Frozen):
    """Prompts of the embedded domain; `held_out` prompts are disjoint from every training prompt by construction."""

    format: Literal["domain_tasks"]
    count: int = Field(gt=0)
    split: Literal["train", "held_out"] = "train"

    def tasks(self, context: StageContext) -> list[Task]:
        return domain.tasks(self.count, seed=context.seed, split=self.split)


class StageComparisons(Frozen):
    """The comparisons that an earlier `compare` stage collected."""

    format: Literal["stage"]
    stage: Annotated[str, Reference()]

    def comparisons(self, context: StageContext) -> list[Comparison]:
        path = context.inputs[self.stage].folder / "comparisons.jsonl"
        return [comparison_from_json(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


AnyDocuments = DomainDocuments
AnyDemonstrations = DomainDemonstrations
AnyTasks = DomainTasks
AnyComparisons = StageComparisons
