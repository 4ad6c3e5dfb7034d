"""Comparisons by people: fill the store from the rollouts, wait for the answers, hand on what was clicked."""

import json
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field, field_validator

from assent.config import Frozen
from assent.errors import ArtefactError
from assent.feedback.into_records import comparisons, demonstrations
from assent.feedback.questions import (
    FEWEST_RANKED,
    MOST_RANKED,
    OVERALL,
    Origin,
    PairQuestion,
    Question,
    RankingQuestion,
    identity,
    question_from_json,
    question_to_json,
)
from assent.feedback.store import Answered, Progress, Store
from assent.pipeline.artefact import write_text
from assent.pipeline.run import StageContext
from assent.protocols import State
from assent.records import to_json
from assent.stages.sources import SELECTED
from assent.types import Rollout, ScoreEvents


class AwaitingPeople(ArtefactError):
    """The stage goes on when people have answered."""


class People(Frozen):
    """Where people are asked, and what.

    Args:
        store: URL of the store: `sqlite:///feedback.db`, or `postgresql://...`.
        per_comparison: annotators who answer each question.
        overlap: share of the questions, from 0 to 1, that `overlap_annotators` answer, for agreement.
        ask: `ranking` shows all responses to a prompt at once; `pairs` two by two, each response in one pair.
        dimensions: what is asked; comparisons are made of the first, the others stay in the store.
        enough: share of the answers wanted with which the stage goes on.
        round: of the loop, kept with every question.
    """

    store: str
    per_comparison: int = Field(1, ge=1)
    overlap: float = Field(0.0, ge=0, le=1)
    overlap_annotators: int = Field(3, ge=2)
    ask: Literal["ranking", "pairs"] = "ranking"
    dimensions: tuple[str, ...] = Field(OVERALL, min_length=1)
    enough: float = Field(1.0, gt=0, le=1)
    round: int = Field(0, ge=0)

    @field_validator("store")
    @classmethod
    def _url(cls, store: str) -> str:
        # A bare path that exists would count as an input of the stage, and every answer would change the artefact's id.
        if "://" not in store:
            raise ValueError(f"a store is named by its URL; got {store!r}; write sqlite:///{store}")
        return store


class PeopleAnnotators(Frozen):
    """`{people: {store: URL, per_comparison: 1}}`."""

    people: People


class PeopleAsks:
    """Turns the samples of a step into questions; the stage's lines are theirs until they are answered."""

    def __init__(self, people: People, samples: int, policy: str, context: StageContext) -> None:
        if people.ask == "ranking" and samples > MOST_RANKED:
            raise ArtefactError(
                f"people rank at most {MOST_RANKED} responses",
                got=f"samples: {samples}",
                why="longer lists are ordered badly, and the page has no room for them",
                fix="sample fewer, or write `ask: pairs`",
            )
        self.people, self.samples, self.context = people, samples, context
        self.policy = context.inputs[policy].id if policy in context.inputs else policy
        self.same = 0

    def __call__(self, rollouts: Sequence[Rollout], scores: Sequence[Sequence[ScoreEvents]]) -> list[dict[str, object]]:
        groups = [rollouts[i : i + self.samples] for i in range(0, len(rollouts), self.samples)]
        return [json.loads(question_to_json(q)) for group in groups for q in self._questions(group)]

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
        origin = Origin(
            self.policy,
            round=self.people.round,
            slice=prompt.kind,
            ended=tuple(r.ended for r in share),
            task=prompt.id,
            why="a sample of the policy's own responses",
        )
        id = identity(self.batch, prompt.id, prompt.source, texts)
        return kind(id, prompt.source, texts, self.people.dimensions, origin)

    @property
    def batch(self) -> str:
        """The artefact this stage will be: its name and the first digits of its id."""
        return self.context.state.parent.name

    def figures(self) -> Mapping[str, float]:
        """Ask, and hand on what was answered; called when all is sampled.

        Raises:
            AwaitingPeople: not enough answers are in.
        """
        lines = (self.context.out / "comparisons.jsonl").read_text(encoding="utf-8")
        questions = [question_from_json(line) for line in lines.splitlines()]
        store = Store.open(self.people.store)
        try:
            people = self.people
            store.add(
                questions,
                batch=self.batch,
                per_question=people.per_comparison,
                overlap=people.overlap,
                overlap_annotators=people.overlap_annotators,
            )
            progress = store.progress(batch=self.batch)
            if progress.answered + progress.closed < people.enough * progress.wanted or not progress.answers:
                raise self._awaiting(progress)
            answers = [a for a in store.answers(batch=self.batch) if a.gold is None]
        finally:
            store.close()
        return self._write(answers, progress)

    def _awaiting(self, progress: Progress) -> AwaitingPeople:
        url, skipped = self.people.store, f", {progress.skipped:,} times skipped" if progress.skipped else ""
        return AwaitingPeople(
            f"{self.context.name} waits for people: {progress.left:,} of {progress.wanted:,} answers are to come",
            got=f"{progress.answered:,} answers, {progress.closed:,} questions closed{skipped}, in {url}",
            why="a reward model is trained on what people said, and on nothing else",
            fix=f"answer them (assent label {url}), then run the same command again: it goes on from here",
        )

    def _write(self, answers: Sequence[Answered], progress: Progress) -> Mapping[str, float]:
        made = [to_json(c) for a in answers for c in comparisons(a)]
        written = [to_json(d) for a in answers for d in demonstrations(a)]
        for name, rows in (("comparisons.jsonl", made), (SELECTED, written)):
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            write_text(self.context.out / name, text)
        return {
            "comparisons": len(made),
            "demonstrations": len(written),
            "annotators": len({a.annotator for a in answers}),
            "closed": progress.closed,
            "equal_responses": self.same,
        }

    def state_dict(self) -> State:
        return {"same": self.same}

    def load_state_dict(self, state: State) -> None:
        self.same = state["same"]
