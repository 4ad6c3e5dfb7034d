"""Where records come from: files and hub data sets, the embedded domain, or the artefact of an earlier stage."""

import json
from collections.abc import Sequence
from typing import Annotated, Literal, Protocol, TypeVar, get_args

from pydantic import Field

from assent.config import Frozen
from assent.data import domain
from assent.data import formats as files
from assent.data.reading import DataSet
from assent.data.splits import is_held_out, record_key
from assent.data.unpaired import Unpaired
from assent.pipeline.references import Reference
from assent.pipeline.stage import StageContext
from assent.records import (
    Comparison,
    Demonstration,
    Document,
    Judgement,
    LabelledSolution,
    Task,
    comparison_from_json,
    prompt_from_json,
)
from assent.stages.lines import lines_of
from assent.stages.step_sources import ArithmeticDemonstrations, ArithmeticDocuments, ArithmeticTasks
from assent.stages.store_sources import StoreComparisons, StoreDemonstrations, StoreJudged

SELECTED = "demonstrations.jsonl"
"""What a `select` stage kept."""

SHARE_SEED = 1
"""Of the draw of a share; not the seed that holds prompts out, of which a share would then hold none."""

R = TypeVar("R", Document, Demonstration, Task, Comparison, Judgement, LabelledSolution)
R_made = TypeVar("R_made", covariant=True)


class DomainDocuments(Frozen):
    """Pretraining text of the embedded domain: `{format: domain_documents, count: 20000}`."""

    format: Literal["domain_documents"]
    count: int = Field(gt=0)

    def records_for(self, context: StageContext) -> list[Document]:
        return list(domain.documents(self.count, seed=context.seed))


AnyKind = Literal["summary", "question", "reply", "route", "howto", "refusal"]
"""Kinds of prompts of the embedded domain."""
ALL_KINDS: tuple[AnyKind, ...] = get_args(AnyKind)
Kinds = Annotated[tuple[AnyKind, ...], Field(min_length=1)]


class DomainDemonstrations(Frozen):
    """Noisy demonstrations of the embedded domain, of all kinds of prompts or of some."""

    format: Literal["domain_demonstrations"]
    count: int = Field(gt=0)
    kinds: Kinds = ALL_KINDS

    def records_for(self, context: StageContext) -> list[Demonstration]:
        return domain.demonstrations(self.count, seed=context.seed, kinds=self.kinds)


class DomainTasks(Frozen):
    """Prompts of the embedded domain; `held_out` prompts are disjoint from every training prompt by construction.

    Args:
        kinds: all, or some: those of `refusal` ask for what must not be done.
    """

    format: Literal["domain_tasks"]
    count: int = Field(gt=0)
    split: Literal["train", "held_out"] = "train"
    kinds: Kinds = ALL_KINDS

    def records_for(self, context: StageContext) -> list[Task]:
        return domain.tasks(self.count, seed=context.seed, split=self.split, kinds=self.kinds)


class ListedTasks(Frozen):
    """Prompts written out in the recipe: `{format: listed, prompts: [...]}`."""

    format: Literal["listed"]
    prompts: Annotated[tuple[str, ...], Field(min_length=1)]

    def records_for(self, context: StageContext) -> list[Task]:
        return [Task(f"listed {i}", prompt) for i, prompt in enumerate(self.prompts, start=1)]


class StageComparisons(Frozen):
    """The comparisons that an earlier `compare` stage collected.

    Args:
        share: of the prompts, the same ones whoever asks; the weight of a round in the mix of all rounds' data.
    """

    format: Literal["stage"]
    stage: Annotated[str, Reference()]
    share: float = Field(1.0, gt=0, le=1)

    def records_for(self, context: StageContext) -> list[Comparison]:
        path = context.inputs[self.stage].folder / "comparisons.jsonl"
        read = [comparison_from_json(json.loads(line)) for line in lines_of(path)]
        taken = [c for c in read if is_held_out(record_key(c), self.share, SHARE_SEED)]
        if len(taken) < len(read):
            context.say(f"took {len(taken):,} of the {len(read):,} comparisons of {self.stage}, by prompt")
        return taken


class SelectedDemonstrations(Frozen):
    """What earlier `select` stages kept, pooled: `{format: selected, stages: [round_1.best, round_2.best]}`."""

    format: Literal["selected"]
    stages: Annotated[tuple[Annotated[str, Reference()], ...], Field(min_length=1)]

    def records_for(self, context: StageContext) -> list[Demonstration]:
        pooled = []
        for stage in self.stages:
            rows = [json.loads(line) for line in lines_of(context.inputs[stage].folder / SELECTED)]
            pooled += [Demonstration(prompt_from_json(row["prompt"]), row["response"]) for row in rows]
            context.say(f"{len(rows):,} demonstrations kept by {stage}")
        return pooled


OneDemonstrations = Annotated[
    DomainDemonstrations | SelectedDemonstrations | StoreDemonstrations | files.Demonstrations | files.Messages,
    Field(discriminator="format"),
]


class PooledDemonstrations(Frozen):
    """Several sources as one: `{format: pooled, of: [{format: selected, ...}, {format: demonstrations, ...}]}`."""

    format: Literal["pooled"]
    of: Annotated[tuple[OneDemonstrations, ...], Field(min_length=2)]

    def records_for(self, context: StageContext) -> list[Demonstration]:
        return [record for source in self.of for record in take(source, context)]


class Made(Protocol[R_made]):
    """A source that makes its records, or has them from an earlier stage."""

    def records_for(self, context: StageContext) -> Sequence[R_made]: ...


class Filed(Protocol[R]):
    """A source that reads files or the hub, and splits off held-out records by prompt."""

    def read(self) -> DataSet[R]: ...


AnyDocuments = Annotated[DomainDocuments | ArithmeticDocuments | files.Text, Field(discriminator="format")]
AnyDemonstrations = Annotated[
    DomainDemonstrations
    | ArithmeticDemonstrations
    | SelectedDemonstrations
    | PooledDemonstrations
    | StoreDemonstrations
    | files.Demonstrations
    | files.Messages,
    Field(discriminator="format"),
]
AnyTasks = Annotated[DomainTasks | ArithmeticTasks | ListedTasks | files.Tasks, Field(discriminator="format")]
Compared = (
    StageComparisons
    | files.Pairs
    | files.Rankings
    | files.RankedList
    | files.QaFeedback
    | files.Votes
    | files.OasstTrees
)
AnyComparisons = Annotated[Compared | StoreComparisons, Field(discriminator="format")]

AnyJudged = Annotated[Compared | StoreJudged | Unpaired, Field(discriminator="format")]
"""What direct alignment is trained on: comparisons, or responses that were judged each by itself."""


def take(source: Made[R] | Filed[R], context: StageContext, *, held_out: bool = False) -> list[R]:
    """The records of any source; what a reader skipped or left out is said.

    Args:
        held_out: of a source that keeps some back, those; of one that keeps none back, all.
    """
    if hasattr(source, "records_for"):
        return list(source.records_for(context))
    data = source.read()
    context.say(str(data.report))
    taken = data.held_out if held_out and data.held_out else data.train
    if data.held_out:
        context.say(
            f"  split by prompt: {len(data.train):,} to train on, {len(data.held_out):,} held out; took {len(taken):,}"
        )
    return list(taken)
