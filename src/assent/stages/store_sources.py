"""What people said, read from a store as it stood at one event: the same answers whenever the stage is made."""

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, Field

from assent.config import Frozen
from assent.errors import DataError
from assent.feedback.into_records import comparisons, demonstrations, judgements, solutions
from assent.feedback.store import Answered
from assent.pipeline.stage import StageContext
from assent.records import Comparison, Demonstration, Judgement, LabelledSolution
from assent.stages.asking import checked_url

R = TypeVar("R")

KEPT: Mapping[str, Callable[[bool], bool]] = {
    "people": lambda by_model: not by_model,
    "models": lambda by_model: by_model,
    "everyone": lambda by_model: True,
}
"""By name, whether an answer counts that a model gave, or did not."""


class StoreAnswers(Frozen):
    """Answers of a store: `{format: store, store: sqlite:///feedback.db, as_of: 1200}`.

    Args:
        store: its URL.
        as_of: number of the last event that counts. A store grows, and an artefact must say what it was made from:
            what was answered, corrected or taken back later changes nothing. A number too high is refused with the
            highest there is.
        batches: only the answers to these; all when empty.
        dimension: whose choices are read; a question's first when None.
        of: whose answers: those of `people`, of `models` that were asked (`assent label judge`), or of `everyone`.
    """

    format: Literal["store"]
    store: Annotated[str, AfterValidator(checked_url)]
    as_of: int = Field(gt=0)
    batches: tuple[str, ...] = ()
    dimension: str | None = None
    of: Literal["people", "models", "everyone"] = "people"

    def _read(self, context: StageContext, teach: Callable[[Answered], Iterator[R]]) -> list[R]:
        from assent.feedback.store import Store  # only runs that ask people load a database

        store = Store.open(self.store)
        try:
            last = store.last_event()
            if self.as_of > last:
                raise DataError(
                    f"the store {self.store} has not come so far",
                    got=f"as_of: {self.as_of}, and its last event is {last}",
                    why="what is trained on would change with every answer",
                    fix=f"write as_of: {last}" if last else "have questions answered first (assent label)",
                )
            parts = [store.answers(batch=b, as_of=self.as_of) for b in self.batches or (None,)]
            found = [a for a in chain(*parts) if a.gold is None and KEPT[self.of](a.by_model)]
        finally:
            store.close()
        records = [record for answered in found for record in teach(answered)]
        context.say(f"{self.store}: {len(records):,} records of {len(found):,} answers, as of event {self.as_of:,}")
        if not records:
            raise DataError(
                "these answers teach nothing of this kind",
                got=f"{len(found):,} answers",
                why="an empty data set trains nothing",
                fix="look at what was asked: comparisons train reward models, written texts sft, steps process_reward",
            )
        return records


class StoreComparisons(StoreAnswers):
    """Pairs, rankings, and edits as edited > chosen > rejected."""

    def records_for(self, context: StageContext) -> list[Comparison]:
        return self._read(context, lambda a: comparisons(a, self.dimension))


class StoreDemonstrations(StoreAnswers):
    """What was written by hand: demonstrations and edits."""

    def records_for(self, context: StageContext) -> list[Demonstration]:
        return self._read(context, demonstrations)


class StoreSolutions(StoreAnswers):
    """Solutions with the marks of their steps."""

    def records_for(self, context: StageContext) -> list[LabelledSolution]:
        return self._read(context, solutions)


class StoreJudged(StoreAnswers):
    """Comparisons, and ratings as desirable or not."""

    def records_for(self, context: StageContext) -> list[Comparison | Judgement]:
        def both(answered: Answered) -> Iterator[Comparison | Judgement]:
            yield from comparisons(answered, self.dimension)
            yield from judgements(answered, self.dimension)

        return self._read(context, both)
