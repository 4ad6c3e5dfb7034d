"""Which pairs people are asked about, of all pairs of all samples: where reward models disagree, or at random."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from assent.config import Frozen
from assent.feedback.choose import (
    RANDOM_SHARE,
    By,
    ByDoubleThompson,
    ByInformationGain,
    ByVariance,
    Candidates,
    Chooser,
    choose,
)
from assent.models.folders import CausalModel
from assent.pipeline.stage import StageContext
from assent.protocols import Scorer
from assent.records import PromptText, prompt_from_json
from assent.stages.parts import ModelRef
from assent.stages.scorers.ensemble import EnsembleRef
from assent.types import Rollout, ScoreEvents

Row = Mapping[str, Any]
"""The samples of one prompt, as JSON: what is kept while the stage samples."""

CHOOSERS: Mapping[str, Callable[[], Chooser]] = {
    "information_gain": ByInformationGain,
    "preference_variance": ByVariance,
    "double_thompson": lambda: ByDoubleThompson(draws=2),
}
AT_RANDOM = "a pair of the policy's own responses, drawn at random"
DISAGREED = "reward models disagree about these two"


class Choosing(Frozen):
    """How pairs are chosen; see `feedback.choose`.

    Args:
        questions: pairs to ask; fewer where the samples have fewer.
        ensemble: a `reward_ensemble` stage, or several reward models, whose disagreement chooses; None for random
            pairs only, as in a first round, when there is no reward model yet.
        by: what they disagree about: `information_gain` (BALD), `preference_variance`, or `double_thompson`.
        random_share: of the pairs, drawn at random all the same, so that accuracy can be measured on these.
        per_prompt: most pairs of one prompt that disagreement may bring it to; None for no limit.
    """

    questions: int = Field(ge=1)
    ensemble: ModelRef | Annotated[tuple[ModelRef, ...], Field(min_length=2)] | None = None
    by: Literal["information_gain", "preference_variance", "double_thompson"] = "information_gain"
    random_share: float = Field(RANDOM_SHARE, gt=0, le=1)
    per_prompt: int | None = Field(None, ge=1)

    def scorers(self, context: StageContext, policy: CausalModel) -> list[Scorer]:
        """The members, which score every sample as it comes."""
        return [] if self.ensemble is None else EnsembleRef(ensemble=self.ensemble).members(context, policy)

    def row(self, group: Sequence[Rollout], scores: Sequence[Sequence[ScoreEvents]]) -> dict[str, object]:
        """The samples of one prompt with the score of each member, [M, C]; one that a member could not read is out."""
        kept = [c for c in range(len(group)) if all(member[c] for member in scores)]
        prompt = group[0].prompt
        source = prompt.source if isinstance(prompt.source, str) else [asdict(m) for m in prompt.source]
        return {
            "id": prompt.id,
            "kind": prompt.kind,
            "prompt": source,
            "responses": [group[c].text for c in kept],
            "ended": [group[c].ended for c in kept],
            "scores": [[sum(event.value for event in member[c]) for c in kept] for member in scores],
        }

    def pairs(self, rows: Sequence[Row], seed: int) -> list["ChosenPair"]:
        """The questions, in random order."""
        with_ensemble = self.ensemble is not None
        pool = [
            Candidates(str(n), tuple(row["responses"]), np.array(row["scores"]) if with_ensemble else None)
            for n, row in enumerate(rows)
            if row["responses"]
        ]
        made = choose(
            pool,
            self.questions,
            chooser=CHOOSERS[self.by]() if with_ensemble else None,
            rng=np.random.default_rng(seed),
            random_share=self.random_share,
            per_prompt=self.per_prompt,
        )
        return [ChosenPair(rows[int(q.prompt_id)], (q.first, q.second), q.by) for q in made]


class ChosenPair:
    """A pair of one prompt's samples, and how it was chosen."""

    def __init__(self, row: Row, places: tuple[int, int], by: By) -> None:
        self.task, self.kind, self.by = str(row["id"]), str(row["kind"]), by
        self.prompt: PromptText = prompt_from_json(row["prompt"])
        self.responses = tuple(str(row["responses"][i]) for i in places)
        self.ended = tuple(bool(row["ended"][i]) for i in places)

    @property
    def why(self) -> str:
        return AT_RANDOM if self.by == "random" else DISAGREED
