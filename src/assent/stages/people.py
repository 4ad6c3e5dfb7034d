"""Comparisons by people: questions made of the samples, and what was clicked as comparisons."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from assent.config import Frozen
from assent.errors import ArtefactError
from assent.feedback.into_records import comparisons, demonstrations
from assent.feedback.questions import (
    FEWEST_RANKED,
    MOST_RANKED,
    OVERALL,
    PairQuestion,
    Question,
    RankingQuestion,
    identity,
    question_from_json,
    question_to_json,
)
from assent.models.folders import CausalModel
from assent.pipeline.stage import StageContext
from assent.protocols import Scorer, State
from assent.stages.asking import People, ask, origin_of, write_records
from assent.stages.choosing import Choosing, ChosenPair
from assent.stages.lines import lines_of
from assent.stages.sources import SELECTED
from assent.types import Rollout, ScoreEvents


class ComparingPeople(People):
    """People who compare; see `asking.People` for where and how many.

    Args:
        ask: `ranking` shows all responses to a prompt at once; `pairs` two by two, each response in one pair.
        choose: which pairs, of all that can be made of a prompt's samples; None for each response in one.
        dimensions: what is asked; comparisons are made of the first, the others stay in the store.
    """

    ask: Literal["ranking", "pairs"] = "ranking"
    choose: Choosing | None = None
    dimensions: tuple[str, ...] = Field(OVERALL, min_length=1)

    @model_validator(mode="after")
    def _pairs_are_chosen(self) -> Self:
        if self.choose is not None and self.ask != "pairs":
            raise ValueError("what is chosen is pairs, and a ranking asks about all samples: write `ask: pairs` too")
        return self


class PeopleAnnotators(Frozen):
    """`{people: {}}`: with the store of the run; `{people: {store: URL, per_question: 3}}`."""

    people: ComparingPeople


class PeopleAsks:
    """Turns the samples of a step into questions; the stage's lines are theirs until they are answered."""

    def __init__(self, people: ComparingPeople, samples: int, policy: str, context: StageContext) -> None:
        if people.ask == "ranking" and samples > MOST_RANKED:
            raise ArtefactError(
                f"people rank at most {MOST_RANKED} responses",
                got=f"samples: {samples}",
                why="longer lists are ordered badly, and the page has no room for them",
                fix="sample fewer, or write `ask: pairs`",
            )
        self.people, self.samples, self.policy, self.context = people, samples, policy, context
        self.same = 0

    def __call__(self, rollouts: Sequence[Rollout], scores: Sequence[Sequence[ScoreEvents]]) -> list[dict[str, object]]:
        starts = range(0, len(rollouts), self.samples)
        groups = [rollouts[i : i + self.samples] for i in starts]
        if self.people.choose is not None:  # among the samples of all steps, when they are there
            parts = [[member[i : i + self.samples] for member in scores] for i in starts]
            return [self.people.choose.row(g, s) for g, s in zip(groups, parts, strict=True)]
        return [json.loads(question_to_json(q)) for group in groups for q in self._questions(group)]

    def scorers(self, policy: CausalModel) -> list[Scorer]:
        """Who scores the samples, for choosing."""
        return [] if self.people.choose is None else self.people.choose.scorers(self.context, policy)

    def _questions(self, group: Sequence[Rollout]) -> list[Question]:
        """Equal texts are shown once: nobody can say which of them is better."""
        different = list({r.text: r for r in group}.values())
        self.same += len(group) - len(different)
        if self.people.ask == "pairs":
            shares = [different[i : i + 2] for i in range(0, len(different) - 1, 2)]
        else:
            shares = [different] if len(different) > 1 else []
        return [self._question(share) for share in shares]

    def _question(self, share: Sequence[Rollout]) -> Question:
        prompt, texts = share[0].prompt, tuple(r.text for r in share)
        kind = RankingQuestion if len(texts) >= FEWEST_RANKED else PairQuestion
        origin = origin_of(
            self.context,
            self.people,
            self.policy,
            slice=prompt.kind,
            ended=tuple(r.ended for r in share),
            task=prompt.id,
            why="a sample of the policy's own responses",
        )
        return kind(identity(prompt.id, prompt.source, texts), prompt.source, texts, self.people.dimensions, origin)

    def _of_chosen(self, pair: ChosenPair) -> Question:
        origin = origin_of(
            self.context, self.people, self.policy, slice=pair.kind, ended=pair.ended, task=pair.task, why=pair.why
        )
        id = identity(pair.task, pair.prompt, pair.responses)
        return PairQuestion(id, pair.prompt, pair.responses, self.people.dimensions, origin)

    def _asked(self, choosing: Choosing, lines: Sequence[str]) -> list[Question]:
        """What is chosen of the samples that the lines hold."""
        chosen = choosing.pairs([json.loads(line) for line in lines], self.context.seed)
        tally = ", ".join(f"{n:,} by {by.replace('_', ' ')}" for by, n in sorted(Counter(c.by for c in chosen).items()))
        self.context.say(f"{self.context.name} asks about {len(chosen):,} pairs: {tally or 'no two samples differ'}")
        return [self._of_chosen(pair) for pair in chosen]

    def figures(self) -> Mapping[str, float]:
        """Ask, and hand on what was answered; called when all is sampled.

        Raises:
            AwaitingPeople: not enough answers are in.
        """
        lines, choosing = lines_of(self.context.out / "comparisons.jsonl"), self.people.choose
        questions = self._asked(choosing, lines) if choosing else [question_from_json(line) for line in lines]
        answers, progress = ask(self.people, questions, self.context)
        written = {
            "comparisons": write_records(self.context, "comparisons.jsonl", answers, comparisons),
            "demonstrations": write_records(self.context, SELECTED, answers, demonstrations),
        }
        annotators = len({a.annotator for a in answers})
        return written | {"annotators": annotators, "closed": progress.closed, "equal_responses": self.same}

    def state_dict(self) -> State:
        return {"same": self.same}

    def load_state_dict(self, state: State) -> None:
        self.same = state["same"]
